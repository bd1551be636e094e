import sys
from pathlib import Path

import numpy as np
import pytest

from actors.environments import Environment
from actors.episodes import Episode
from actors.policy import RandomPolicy
from cluster.experiment import ExperimentError
from cluster.play import open_stage, play, rendered
from cluster.video import as_rgb, enlarged, write_video
from learners.extras import MissingExtra

TOLD = Environment("tests.cluster.told:Told-v0")


def played(environment: Environment, view: str = "auto", *, episodes: int = 2, max_steps: int = 50, seed: int = 0):
    """Frames and episodes of a random policy."""
    stage = open_stage(environment, view)
    told: list[Episode] = []
    policy = RandomPolicy(stage.environments.action_space)
    try:
        frames = list(
            play(policy, stage, episodes=episodes, seed=seed, max_steps=max_steps, greedy=False, told=told.append)
        )
    finally:
        stage.close()
    return frames, told, stage.fps


def test_every_frame_of_an_episode_is_seen_from_its_first_to_its_last() -> None:
    frames, told, fps = played(TOLD, episodes=4)
    assert len({episode.length for episode in told}) > 1, "every episode began alike"
    shown = [int(frame[0, 0, 0]) for frame in frames]
    wanted = [s for episode in told for s in [*range(episode.length), *[episode.length] * round(0.5 * fps)]]
    assert fps == 10 and shown == wanted and all(episode.finished for episode in told)


def test_a_long_episode_is_cut_and_a_seed_repeats() -> None:
    pendulum = Environment("Pendulum-v1")
    pytest.importorskip("pygame")
    frames, told, _ = played(pendulum, max_steps=3, episodes=1)
    assert [(episode.length, episode.finished) for episode in told] == [(3, False)]
    again, same, _ = played(pendulum, max_steps=3, episodes=1)
    assert same == told and np.array_equal(frames, again)
    assert played(pendulum, max_steps=3, episodes=1, seed=1)[1] != told


def test_the_screen_of_atari_shows_the_very_episode() -> None:
    pytest.importorskip("ale_py")
    breakout = Environment("ALE/Breakout-v5")
    screen, told, fps = played(breakout, episodes=1, max_steps=60)
    seen, same, _ = played(breakout, "observation", episodes=1, max_steps=60)
    assert told == same and screen[0].shape == (210, 160, 3) and seen[0].shape == (84, 84) and fps == 15
    # The small grey picture is the big coloured one, averaged: the paddle and the ball are where they are.
    for big, small in zip(screen[:61:10], seen[:61:10], strict=True):
        luminance = big @ np.array([0.299, 0.587, 0.114])
        rows = np.arange(84) * 210 // 84
        columns = np.arange(84) * 160 // 84
        assert np.corrcoef(luminance[np.ix_(rows, columns)].ravel(), small.ravel())[0, 1] > 0.8


def test_a_copy_that_goes_another_way_is_told() -> None:
    pytest.importorskip("ale_py")
    stage = open_stage(Environment("ALE/Breakout-v5"))
    stage.reset(0)
    stage.shown.reset([1])
    with pytest.raises(ExperimentError, match="went another way: give --view observation"):
        for _ in range(300):
            stage.step(np.array([1 + _ % 3]))
    stage.close()


def test_images_are_shown_where_nothing_renders() -> None:
    frames, told, _ = played(Environment("actors.envs:StaticRecall-v0"), episodes=1)
    assert frames[0].shape == (32, 32) and len(frames) == told[0].length + 15


@pytest.mark.parametrize(
    ("environment", "view", "words"),
    [
        (Environment("tests.actors.counting:Counting-v0"), "auto", "cannot be shown: it does not render, nor observe"),
        (Environment("tests.actors.counting:Counting-v0"), "render", "does not render as an array"),
        (TOLD, "observation", "cannot be shown: its observations are no images"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_sentence(environment: Environment, view: str, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        open_stage(environment, view)


def test_a_renderer_that_fails_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self):
        raise RuntimeError("no OpenGL here")

    monkeypatch.setattr("tests.cluster.told.Told.render", broken)
    with pytest.raises(ExperimentError, match=r"nothing can be rendered here \(RuntimeError: no OpenGL here\)"):
        played(TOLD)


def test_an_environment_is_made_to_render_if_it_can() -> None:
    found = rendered(Environment("tests.cluster.told:Told-v0", {"render_mode": None}))
    assert found is not None and found.kwargs == {"render_mode": "rgb_array"}
    assert rendered(Environment("tests.actors.counting:Counting-v0")) is None


@pytest.mark.parametrize(
    "shape", [(10, 12), (10, 12, 1), (10, 12, 3), (10, 12, 4), (1, 10, 12), (3, 10, 12), (8, 10, 12)]
)
def test_frames_of_any_layout_become_rgb(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    frame = rng.integers(0, 256, shape, dtype=np.uint8)
    rgb = as_rgb(frame)
    assert rgb.shape == (10, 12, 3) and rgb.dtype == np.uint8
    newest = (
        frame
        if frame.ndim == 2
        else frame[..., 2]
        if shape in ((10, 12, 3), (10, 12, 4))
        else frame.reshape(-1)[-120:].reshape(10, 12)
    )
    np.testing.assert_array_equal(rgb[..., 2], newest)


def test_small_frames_are_enlarged_and_sides_are_even() -> None:
    frame = np.arange(84 * 83 * 3, dtype=np.uint8).reshape(84, 83, 3)
    big = enlarged(frame)
    assert big.shape == (252, 250, 3) and (big[3:6, 6:9] == frame[1, 2]).all()
    assert enlarged(np.zeros((401, 600, 3), np.uint8)).shape == (402, 600, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg leaves its pipes open
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_film_shows_its_frames(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL" if suffix == "gif" else "imageio_ffmpeg")
    frames = [np.full((240, 320, 3), [20 * t, 255 - 20 * t, 0], np.uint8) for t in range(10)]
    assert write_video(tmp_path / f"new/film.{suffix}", iter(frames), 10.0) == 10
    found = _frames(tmp_path / f"new/film.{suffix}")
    assert len(found) == 10 and [path.name for path in (tmp_path / "new").iterdir()] == [f"film.{suffix}"]
    for wanted, got in zip(frames, found, strict=True):
        assert np.abs(got.astype(int) - wanted).max() <= 16


def _frames(path: Path) -> list[np.ndarray]:
    if path.suffix == ".gif":
        from PIL import Image, ImageSequence

        with Image.open(path) as image:
            assert image.info["duration"] == 100
            return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["fps"] == 10
    width, height = facts["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


@pytest.mark.parametrize(("suffix", "module"), [("gif", "PIL.Image"), ("mp4", "imageio_ffmpeg")])
def test_what_writes_films_is_an_extra(
    suffix: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r'pip install "contrail\[video\]"'):
        write_video(tmp_path / f"film.{suffix}", iter([np.zeros((8, 8, 3), np.uint8)]), 10.0)
    assert not list(tmp_path.iterdir())
