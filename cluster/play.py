"""Episodes of a policy, played to be looked at."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from actors.environments import Environment, EnvironmentFailed, Environments, Step, environment_seeds
from actors.episodes import Episode
from actors.evaluator import EVALUATOR
from actors.policy import Policy
from actors.spaces import columns_of
from cluster.experiment import ExperimentError
from learners.frames import is_image

View = Literal["auto", "render", "observation"]

ATARI_SCREEN = {"grayscale": False, "img_height": 210, "img_width": 160}
"""The emulator's own picture, in place of the small grey one that policies see."""
ATARI_FPS = 15.0
"""The console's 60, over a frame skip of 4."""
USUAL_FPS = 30.0
RGB = "rgb_array"
PAUSE = 0.5
"""Seconds for which an episode's last frame stays."""


@dataclass
class Stage:
    """One environment, and its picture.

    Attributes:
        environments: it alone.
        shown: the same, or a copy that takes the same seeds and actions and observes a better picture.
        image: the observation's column that is the picture; None: it is rendered.
        fps: frames a second at which it looks natural.
    """

    environments: Environments
    shown: Environments
    image: str | None
    fps: float
    _seen: dict[str, np.ndarray] = field(default_factory=dict)

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """A new episode's first observation."""
        observation = self.environments.reset([seed])
        self._seen = observation if self.shown is self.environments else self.shown.reset([seed])
        return observation

    def step(self, action: np.ndarray) -> Step:
        """One action, in the copy, too."""
        step = self.environments.step(action)
        copy = step if self.shown is self.environments else self.shown.step(action)
        if not (np.array_equal(copy.reward, step.reward) and np.array_equal(copy.terminated, step.terminated)):
            raise ExperimentError("the copy that was to be shown went another way: give --view observation")
        self._seen = copy.observation
        return step

    def frame(self) -> np.ndarray:
        """What is to be seen now, (H, W) or (H, W, 3) uint8.

        Raises:
            ExperimentError: rendering fails; says why.
        """
        if self.image is not None:
            return self._seen[self.image][0]
        try:
            return np.asarray(self.shown.render()[0])
        except EnvironmentFailed as error:
            cause = error.__cause__ or error
            raise ExperimentError(
                f"nothing can be rendered here ({type(cause).__name__}: {cause}): install what is missing, or give "
                "--view observation where observations are images"
            ) from error

    def close(self) -> None:
        """Close what was opened."""
        self.environments.close()
        if self.shown is not self.environments:
            self.shown.close()


def open_stage(environment: Environment, view: View = "auto") -> Stage:
    """A stage for an environment.

    An environment is rendered if it can be. Atari's vector class cannot, so a second copy of it observes the emulator's
    screen. Where neither is possible, the observation itself is shown, if it is an image.

    Args:
        environment: which; `render_mode` is set here.
        view: "render" or "observation" insist on one of them.

    Raises:
        ExperimentError: it cannot be shown this way.
    """
    _do_without_screen()
    made = environment.make(1)
    try:
        return _staged(environment, made, view)
    except Exception:
        made.close()
        raise


def _staged(environment: Environment, made: Environments, view: View) -> Stage:
    atari = environment.id.rpartition(":")[2].startswith("ALE/")
    fps = ATARI_FPS if atari else float(made.metadata.get("render_fps") or USUAL_FPS)
    image = image_column(made)
    if atari and view != "observation":
        return Stage(made, _with(environment, ATARI_SCREEN), "observation", fps)
    if RGB in made.metadata.get("render_modes", ()) and view != "observation":
        made.close()
        rendering = _with(environment, {"render_mode": RGB})
        return Stage(rendering, rendering, None, fps)
    if view == "render":
        raise ExperimentError(f"{environment.id} does not render as an array: leave out --view render")
    if image is None:
        why = "its observations are no images" if view == "observation" else "it does not render, nor observe images"
        raise ExperimentError(f"{environment.id} cannot be shown: {why}")
    return Stage(made, made, image, fps)


def rendered(environment: Environment) -> Environment | None:
    """The environment made to render; None: it cannot."""
    _do_without_screen()
    made = environment.make(1)
    made.close()
    if RGB not in made.metadata.get("render_modes", ()):
        return None
    return replace(environment, kwargs={**environment.kwargs, "render_mode": RGB})


def _do_without_screen() -> None:
    """Where there is none, tell MuJoCo and pygame, which look when they are imported."""
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _with(environment: Environment, kwargs: dict[str, Any]) -> Environments:
    return replace(environment, kwargs={**environment.kwargs, **kwargs}).make(1)


def image_column(environments: Environments) -> str | None:
    """The first of an observation's columns that is an image; None: there is none."""
    space = environments.observation_space
    columns = columns_of(space, "observation")
    return next((name for name, column in columns.items() if is_image(column)), None)


def play(
    policy: Policy,
    stage: Stage,
    *,
    episodes: int,
    seed: int,
    max_steps: int,
    greedy: bool,
    told: Callable[[Episode], None],
) -> Iterator[np.ndarray]:
    """The frames of so many episodes, one after another, each with its first and last.

    Args:
        policy: with its weights loaded.
        stage: where they are played.
        episodes: how many.
        seed: of the starts and of the policy's randomness.
        max_steps: after which an episode is cut.
        greedy: take the most likely actions.
        told: hears of every episode as it ends.
    """
    rng = np.random.default_rng([seed, EVALUATOR])
    for number in range(episodes):
        observation = stage.reset(environment_seeds(seed, EVALUATOR, 1, incarnation=number)[0])
        state, first, total, finished, length = policy.initial_state(1), np.ones(1, np.bool_), 0.0, False, 0
        frame = stage.frame()
        while not finished and length < max_steps:
            yield frame
            columns, state = policy.act(observation, state, first, rng, greedy=greedy)
            step = stage.step(columns["action"])
            total, length = total + float(step.reward[0]), length + 1
            finished = bool(step.terminated[0] | step.truncated[0])
            observation, first = step.observation, step.first
            if step.final is None:  # else the next episode's first frame is on already
                frame = stage.frame()
        for _ in range(max(1, round(PAUSE * stage.fps))):
            yield frame
        told(Episode(total, length, number, finished=finished))
