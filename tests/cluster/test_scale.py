"""`contrail scale`: what is run, what is made of it, what fell; with runs that are only written, and with real ones."""

import csv
import json
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from cluster.experiment import ExperimentError
from cluster.following import NewRows
from cluster.lock import holding
from cluster.metrics import read_metrics
from cluster.run_folder import FolderTaken, RunFolderError
from cluster.scale import _continued, _new, carry_out, conclude
from cluster.scale_compare import compared, earlier
from cluster.scale_folder import ScaleFolder
from cluster.scale_measure import Figure, NoMeasurement, measured, return_at
from cluster.scale_plan import Point, Series
from cluster.scale_results import Trend, collected
from cluster.scale_run import Process, Progress, await_ends
from cluster.scale_table import described
from cluster.stop import StopRequest
from learners.extras import MissingExtra
from tests.cluster.commands import SMALL, Contrail, end, finish, start, wait_until
from tests.cluster.test_pages import Board

Row = dict[str, Any]


def scale_of(path: Path, line: str, recipe: str = "ppo") -> ScaleFolder:
    scale = _new(recipe, [*line.split(), "--name", str(path / "scale-it")])
    scale.save()
    return scale


def lines_of(speed: float, steps: int = 8, **values: float) -> list[Row]:
    """What a run writes: the first two of its learner steps take ten seconds each, the others one."""
    rows, time = [], 1000.0
    for step in range(1, steps + 1):
        time += 10.0 if step < 3 else 1.0
        done = round(speed * (step - 2 if step > 2 else 0) + 100 * min(step, 2))
        episodes = step // 2
        row = {"step": done, "time": time, "time/total_timesteps": float(done), "rollout/ep_rew_mean": float(step)}
        rows.append(row | {"replay/rows_committed": done + episodes, "rollout/episodes": episodes, **values})
    return [*rows, {"step": rows[-1]["step"], "time": time + 99, "eval/mean_reward": 1.0}]


class Written:
    """Runs that only write: `speed` tells how fast each was, and `done` which there were."""

    def __init__(self, speed: Any = lambda point, repeat: 100.0 * point.actors, after: Any = None) -> None:
        self.speed, self.after = speed, after
        self.done: list[tuple[int, int]] = []

    def __call__(self, scale: ScaleFolder, point: Point, repeat: int) -> str:
        self.done.append((point.actors, repeat))
        arguments = scale.arguments(point, repeat)
        run = Path(arguments[arguments.index("--run.name") + 1])
        run.mkdir(parents=True)
        speed = self.speed(point, repeat)
        if isinstance(speed, str):
            return speed
        stages = {"time/actor_environment": 0.8, "time/actor_wait": 0.2, "time/learner_update": 0.3}
        rows = lines_of(speed, **stages, **{"time/learner_wait": 0.7, "staleness/p50": 0.0, "staleness/p99": 1.0})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "experiment.json").write_text('{"host": {"cores": 2, "name": "h"}, "versions": {}, "commit": "abc"}')
        if self.after is not None:
            self.after()
        return ""


def told(scale: ScaleFolder, carry: Written, **options: Any) -> int:
    """Carry all out and conclude; the exit code."""
    stop = StopRequest()
    carry_out(scale, carry, stop)
    return conclude(scale, options.get("before"), stop)


def test_more_actors_share_the_environments_or_bring_their_own(tmp_path: Path) -> None:
    scale = scale_of(tmp_path, "--actors 2 1 4 --envs 16 --envs-per-actor 4 --learners 1 2 --lr 0.5 --warm-up 2")
    titles = {series.title: series.points for series in scale.plan.series}
    assert list(titles) == [
        "strong, 16 environments in all, 1 learner",
        "strong, 16 environments in all, 2 learners",
        "weak, 4 environments an actor, 1 learner",
        "weak, 4 environments an actor, 2 learners",
    ]
    strong, weak = (
        titles["strong, 16 environments in all, 1 learner"],
        titles["weak, 4 environments an actor, 1 learner"],
    )
    assert strong == [f"actors={actors},envs=16,learners=1" for actors in (1, 2, 4)]
    assert weak == ["actors=1,envs=4,learners=1", "actors=2,envs=8,learners=1", strong[2]]
    assert len(scale.plan.points) == 10, "4 actors with 16 environments are in both, and run once"
    point = next(point for point in scale.plan.points if point.name == weak[1])
    arguments = " ".join(scale.arguments(point, 2))
    assert arguments.startswith(
        "--lr 0.5 --topology.actors 2 --topology.learners 1 --envs 8 --steps 1000000000 --seed 3"
    )
    assert "--run.until" not in arguments and arguments.endswith("/scale-it/actors=2,envs=8,learners=1/repeat-3")


def test_learners_are_what_differs_where_actors_do_not(tmp_path: Path) -> None:
    scale = scale_of(tmp_path, "--actors 2 --learners 1 2 4 --envs-per-actor 8 --steps 5000 --seed 7")
    (series,) = scale.plan.series
    assert series.along == "learners" and series.title == "strong, 16 environments in all"
    assert series.points == [f"actors=2,envs=16,learners={learners}" for learners in (1, 2, 4)]
    arguments = scale.arguments(scale.plan.points[0], 1)
    assert arguments[-2:] == ["--run.until", "5000"] and arguments[arguments.index("--seed") + 1] == "8"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--actors 3 --envs 8", "8 environments do not divide over 3 actors"),
        ("--actors 0", "--actors is 0, wanted at least 1"),
        ("--actors 1 --topology.actors 2", "--topology.actors differs between runs here: give --actors"),
        ("--actors 1 --run.until 9", "--run.until differs between runs here: give --steps"),
        ("--seconds 0", r"--seconds is 0\.0, wanted more than 0"),
        ("--actors 2 --learners 2 --topology.local", "2 learners in one process"),
        ("--actors 1 --envs 8 --run.evaluate-every -1", "--run.evaluate-every is -1, wanted at least 0"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(ExperimentError, match=text):
        scale_of(tmp_path, line)


@pytest.mark.parametrize(("flags", "module"), [("--run.writers wandb", "wandb"), ("--run.film", "PIL.Image")])
def test_what_a_run_lacks_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra):
        scale_of(tmp_path, f"--actors 1 --envs 8 {flags}")


def test_a_configuration_is_in_a_series_once(tmp_path: Path) -> None:
    scale = scale_of(tmp_path, "--actors 1 --learners 1 2 --envs 8 --envs-per-actor 8")
    (series,) = scale.plan.series
    assert series.points == [f"actors=1,envs=8,learners={learners}" for learners in (1, 2)]


def test_a_recipe_without_the_flag_cannot_be_scaled_by_it(tmp_path: Path) -> None:
    (tmp_path / "own_scaled.py").write_text(
        "from cluster.experiment import Experiment\nfrom recipes.ppo import ppo\n\n\n"
        "def mine(*, lr: float = 0.1) -> Experiment:\n    return ppo(lr=lr)\n"
    )
    with pytest.raises(ExperimentError, match=r"has no flag --topology\.actors: add it to the recipe"):
        scale_of(tmp_path, "--actors 1", f"{tmp_path / 'own_scaled.py'}:mine")
    with pytest.raises(ExperimentError, match=r"learns from .*, without actors"):
        scale_of(tmp_path, f"--actors 1 --store {tmp_path}", "clone")


def test_every_round_begins_elsewhere(tmp_path: Path) -> None:
    scale = scale_of(tmp_path, "--actors 1 2 4 8 --envs 8")
    rounds = [[point.actors for point, repeat in scale.plan.order(3) if repeat == index] for index in range(3)]
    assert rounds == [[1, 2, 4, 8], [2, 4, 8, 1], [4, 8, 1, 2]]


def test_the_warm_up_is_left_out_and_final_observations_are_no_steps() -> None:
    found = measured(lines_of(250.0, **{"a/b": 2.0}), 2)
    assert (found.trained, found.generated, found.seconds) == (250.0, 250.0, 6.0)
    assert found.values["a/b"] == 2.0 and found.values["rollout/ep_rew_mean"] == 5.5 and found.steps == 1700
    assert return_at(found, 1699) == 7.0 and return_at(found, 200) == 2.0 and return_at(found, 99) is None
    assert measured(lines_of(250.0), 1).trained < 110, "the second step took ten seconds"


def test_what_gives_no_speed_says_why() -> None:
    with pytest.raises(NoMeasurement, match="it ended after 8 learner steps, 8 of them warm-up: raise --seconds"):
        measured(lines_of(1.0), 8)
    with pytest.raises(NoMeasurement, match=r"1 of its processes died and were replaced, see faults\.jsonl"):
        measured(lines_of(1.0, **{"health/deaths": 1.0}), 2)


def test_a_run_is_measured_from_the_end_of_its_warm_up(tmp_path: Path) -> None:
    rows = [json.dumps(row) + "\n" for row in lines_of(100.0)]
    progress = Progress(tmp_path, 2)
    for count, enough in ((2, False), (3, False), (4, True), (8, True)):
        (tmp_path / "metrics.jsonl").write_text("".join(rows[:count]))
        progress.look()
        assert progress.enough(2.0) == enough, count
    assert not progress.enough(6.5) and progress.silent < 60


def test_everything_is_told_of_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale = scale_of(tmp_path, "--actors 1 2 4 --envs 8 --warm-up 2 --repeats 3")
    speeds = {1: 100.0, 2: 180.0, 4: 280.0}
    assert told(scale, Written(lambda point, repeat: speeds[point.actors] + 10 * repeat)) == 0
    out = capsys.readouterr().out
    assert "1.73x" in out and "66%" in out and "110" in out and "(100-120)" in out
    assert (
        "environment 80%" in out
        and "environment: more actors (--topology.actors), or a cheaper" in out
        and "tensorboard --logdir" in out
    )
    found = json.loads((scale.path / "scale.json").read_text())
    assert found["configurations"]["actors=2,envs=8,learners=1"]["trained"] == {"median": 190, "low": 180, "high": 200}
    assert found["series"][0]["efficiency"] == pytest.approx([1, 190 / 220, 290 / 440])
    assert found["measured_with"]["cores"] == 2 and found["return_at_env_steps"] == 200 + 6 * 100
    lines = list(csv.DictReader((scale.path / "scale.csv").read_text().splitlines()))
    assert [line["trained_high"] for line in lines] == ["120.0", "200.0", "300.0"]
    assert lines[1]["limit"] == "environment" and lines[1]["actors_busy"] == "" and lines[1]["policy_age_p99"] == "1.0"
    page = (scale.path / "scale.md").read_text()
    assert "| strong: 8 in all | 2 | 1 | 190 (180-200) | 190 | 1.73x, 86% | 0.0, 1.0 | - | - | " in page
    assert "X(N) = " in page and "three points" in page


def test_tensorboard_shows_a_curve_for_each_series(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    scale = scale_of(tmp_path, "--actors 1 2 --envs 8 --envs-per-actor 4 --warm-up 2 --repeats 1")
    assert told(scale, Written()) == 0
    board = Board(scale.path / "tensorboard")
    tags = board.ask("scalars", "/tags")
    strong = "strong-8-environments-in-all-1-learner/events"
    assert {*tags} >= {strong, "weak-4-environments-an-actor-1-learner/events", "ideal/events"}
    curve = board.ask("scalars", "/scalars", run=strong, tag="scale/trained")
    assert [(step, value) for _, step, value in curve] == [(1, 100.0), (2, 200.0)]
    pictures = board.ask("images", "/tags")["ideal/events"]
    assert set(pictures) == {"scale/efficiency_plot", "scale/stages_plot"}
    assert (scale.path / "efficiency.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_all_but_the_plots_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    scale = scale_of(tmp_path, "--actors 1 2 --envs 8 --warm-up 2 --repeats 1")
    assert told(scale, Written()) == 0
    assert "no plots: plots are drawn by matplotlib, which cannot be imported" in capsys.readouterr().out
    assert not list(scale.path.glob("*.png")) and (scale.path / "tensorboard").exists()
    assert {"scale.json", "scale.csv", "scale.md"} <= {path.name for path in scale.path.iterdir()}


def test_what_was_measured_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--actors 1 2 --envs 8 --warm-up 2 --repeats 2"
    scale, stop = scale_of(tmp_path, line), StopRequest()
    first = Written()
    first.after = lambda: len(first.done) == 3 and stop.ask(signal.SIGINT, None)
    carry_out(scale, first, stop)
    assert conclude(scale, None, stop) == 130 and first.done == [(1, 0), (2, 0), (2, 1)]
    assert "continue with: contrail scale --resume" in capsys.readouterr().out
    again = Written()
    assert told(_continued([str(scale.path)]), again) == 0 and again.done == [(2, 1), (1, 1)]
    more = scale_of(tmp_path, line.replace("1 2 --envs", "1 2 4 --envs"))
    later = Written()
    assert told(more, later) == 0 and later.done == [(4, 0), (4, 1)], "another number joins those that are there"
    with pytest.raises(FolderTaken, match="was measured with warm_up 2: choose another --name"):
        scale_of(tmp_path, line.replace("--warm-up 2", "--warm-up 3"))
    with pytest.raises(ExperimentError, match="--actors cannot change where a measurement goes on"):
        _continued([str(scale.path), "--actors", "8"])
    with pytest.raises(RunFolderError, match=r"is no measurement of scaling: it has no plan\.json"):
        ScaleFolder.open(tmp_path)
    assert _continued([str(scale.path), "--repeats", "5"]).options.repeats == 5


def test_what_was_measured_is_not_left_out(tmp_path: Path) -> None:
    line = "--actors 1 2 --envs 8 --warm-up 2 --repeats 2"
    scale = scale_of(tmp_path, line)
    told(scale, Written(lambda point, repeat: "no room" if point.actors == 2 and repeat else 100.0))
    plan = (scale.path / "plan.json").read_text()
    with pytest.raises(FolderTaken, match="has a measurement of actors=2,envs=8,learners=1, repeat 1, which would be"):
        scale_of(tmp_path, line.replace("1 2 --envs", "1 --envs"))
    with pytest.raises(FolderTaken, match="has a measurement of actors=1,envs=8,learners=1, repeat 2, which would be"):
        scale_of(tmp_path, line.replace("--repeats 2", "--repeats 1"))
    with pytest.raises(FolderTaken, match="repeat 2, which would be left out"):
        _continued([str(scale.path), "--repeats", "1"])
    assert (scale.path / "plan.json").read_text() == plan
    other = scale_of(tmp_path / "other", line)
    told(other, Written(lambda point, repeat: "no room" if point.actors == 2 else 100.0))
    assert len(scale_of(tmp_path / "other", line.replace("1 2 --envs", "1 --envs")).plan.points) == 1, "it gave none"


def test_a_run_that_is_still_written_is_not_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale, stop = scale_of(tmp_path, "--actors 1 --envs 8 --warm-up 2 --repeats 1"), StopRequest()
    run = scale.run(scale.plan.points[0], 0)
    run.mkdir(parents=True)
    (run / "checkpoint").write_text("half of it")
    with holding(run):
        with pytest.raises(RunFolderError, match=r"repeat-1 is still written by another process after 0\.3 s: wait"):
            await_ends([run], stop, late=0.3)
        asked = threading.Timer(0.3, stop.ask, (signal.SIGINT, None))
        asked.start()
        carry = Written()
        carry_out(scale, carry, stop)
        asked.join()
        assert carry.done == [] and (run / "checkpoint").exists()
        assert "waiting for the process that still writes" in capsys.readouterr().out
    assert told(scale, carry) == 0 and carry.done == [(1, 0)] and not (run / "checkpoint").exists()


def test_a_damaged_line_is_the_error_of_its_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale = scale_of(tmp_path, "--actors 1 2 --envs 8 --warm-up 2 --repeats 1")
    written = Written()
    written.after = lambda: _damage(scale.run(scale.plan.points[0], 0), "{\n") if len(written.done) == 1 else None
    assert told(scale, written) == 1 and len(written.done) == 2
    out = capsys.readouterr().out
    assert "repeat 1: failed: " in out and "line 10: not JSON" in out and "2 of 2: actors=2,envs=8,learners=1" in out
    again = Written()
    assert told(scale, again) == 0 and again.done == [(1, 0)]
    _damage(scale.run(scale.plan.points[1], 0), '["time/total_timesteps"]\n')
    assert "metrics.jsonl is damaged (AttributeError" in collected(scale).results[scale.plan.points[1].name].error
    later = Written()
    assert told(scale, later) == 0 and later.done == [(2, 0)], "what was damaged since is measured anew"


def _damage(run: Path, line: str) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.write(line)


def test_what_fails_is_a_row_and_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale = scale_of(tmp_path, "--actors 1 2 4 --envs 8 --warm-up 2 --repeats 1")
    assert told(scale, Written(lambda point, repeat: "no room" if point.actors == 2 else 100.0)) == 1
    out = capsys.readouterr().out
    assert (
        "actors=2,envs=8,learners=1, repeat 1: failed: no room" in out
        and "envs=8,learners=1 failed: repeat 1: no" in out
    )
    assert "failed: repeat 1: no room |" in (scale.path / "scale.md").read_text()
    assert "no law: it wants 3 numbers of actors, and has 2" in out
    again = Written()
    assert told(scale, again) == 0 and again.done == [(2, 0)]


def test_a_speed_that_fell_is_told_by_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--actors 1 2 --envs 8 --warm-up 2 --repeats 3"
    old = scale_of(tmp_path / "old", line)
    told(old, Written(lambda point, repeat: 100.0 + 10 * repeat))
    before = earlier(old.path, "ppo", [])
    near = scale_of(tmp_path / "near", line)
    assert told(near, Written(lambda point, repeat: 96.0), before=before) == 0, "within its spread, and five per cent"
    assert "none of 4 speeds fell" in capsys.readouterr().out
    slow = scale_of(tmp_path / "slow", line)
    assert told(slow, Written(lambda point, repeat: 94.0 if point.actors == 2 else 200.0), before=before) == 1
    out = capsys.readouterr().out
    assert "2 of 4 speeds fell" in out and "FELL" in out and "94 (94-94) -15%" in out
    broken = scale_of(tmp_path / "broken", line)
    told(broken, Written(lambda point, repeat: "no" if point.actors == 2 else 200.0))
    assert compared(before, described(broken, collected(broken)))[1] == 2, "what fails now has fallen"


def test_only_the_same_thing_is_compared(tmp_path: Path) -> None:
    scale = scale_of(tmp_path, "--actors 1 --envs 8 --warm-up 2 --repeats 1")
    told(scale, Written())
    with pytest.raises(
        ExperimentError, match=r"was measured with ppo, not ppo --lr 1: compare measurements of the same"
    ):
        earlier(scale.path / "scale.json", "ppo", ["--lr", "1"])
    with pytest.raises(ExperimentError, match=r"is no scale\.json that can be read"):
        earlier(tmp_path / "nothing.json", "ppo", [])
    content = json.loads((scale.path / "scale.json").read_text())
    with pytest.raises(ExperimentError, match="no configuration is in both"):
        compared(content | {"configurations": {"other": {"trained": None}}}, content)


def test_figures_are_medians_of_repeats() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)


def test_speeds_are_beside_those_of_the_fewest_processes() -> None:
    series = Series("strong", 8, 1, ["a", "b"])
    trend = Trend(series, [2, 4], [Figure.of([100.0]), Figure.of([150.0])], None, [])
    assert (trend.speed_up(4), trend.efficiency(4), trend.efficiency(2)) == (1.5, 0.75, 1.0)


def test_real_runs_in_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"{' '.join(SMALL[:1] + SMALL[3:])} --actors 1 2 --envs-per-actor 2 --steps 400 --warm-up 2 --repeats 1"
    scale = scale_of(tmp_path, line)

    def carry(scale: ScaleFolder, point: Point, repeat: int) -> str:
        code = cli.run(["train", scale.recipe, *scale.arguments(point, repeat)])
        return f"exit code {code}" if code else ""

    stop = StopRequest()
    carry_out(scale, carry, stop)
    assert conclude(scale, None, stop) == 0, capsys.readouterr()
    results = collected(scale)
    (trend,) = results.trends
    assert trend.counts == [1, 2] and all(figure.median > 0 for figure in trend.speeds)
    for result in results.results.values():
        assert result.limit is not None and result.trained is not None and result.generated is not None
        assert result.generated.median == pytest.approx(result.trained.median, rel=0.2), "lag 0: all is trained on"
        assert (scale.run(result.point, 0) / "checkpoints").exists()


def test_a_process_is_ended_in_order_when_it_was_measured(tmp_path: Path) -> None:
    local = f"{' '.join(SMALL[:1] + SMALL[3:])} --actors 1 --envs 2 --warm-up 2"
    scale = scale_of(tmp_path, f"{local} --seconds 0.2")
    (point,) = scale.plan.points
    assert Process(StopRequest())(scale, point, 0) == "", scale.output(point, 0).read_text()
    found = measured(read_metrics(scale.run(point, 0)), 2)
    assert found.seconds >= 0.2 and list((scale.run(point, 0) / "checkpoints").iterdir())


def test_a_process_that_fails_or_does_not_learn_says_why(tmp_path: Path) -> None:
    scale, carry = scale_of(tmp_path, "--actors 1 --envs 8"), Process(StopRequest())
    (point,) = scale.plan.points
    assert carry(replace(scale, recipe="pppo"), point, 0) == "no recipe 'pppo': did you mean ppo?"
    assert "no recipe" in scale.output(point, 0).read_text()
    impatient = replace(scale, options=replace(scale.options, patience=0.01))
    assert carry(impatient, point, 0) == "no learner step in 0.01 s"


def own_recipe(tmp_path: Path, scale: ScaleFolder, then: str) -> ScaleFolder:
    """The same with a recipe that writes its run's metrics when it is imported, and then does something else."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines_of(100.0)))
    run = scale.run(scale.plan.points[0], 0)
    (tmp_path / "own_written.py").write_text(
        "import os, signal, time\nfrom pathlib import Path\n\n"
        f"run = Path({str(run)!r})\nrun.mkdir(parents=True)\n"
        f"rows = Path({str(tmp_path / 'rows.jsonl')!r}).read_text()\n{then}\ntime.sleep(60)\n"
    )
    return replace(scale, recipe=f"{tmp_path / 'own_written.py'}:mine")


def test_a_process_that_writes_damaged_lines_says_so(tmp_path: Path) -> None:
    scale = own_recipe(
        tmp_path,
        scale_of(tmp_path, "--actors 1 --envs 8 --warm-up 2"),
        "(run / 'metrics.jsonl').write_text(rows + '{\\n')",
    )
    error = Process(StopRequest())(scale, scale.plan.points[0], 0)
    assert "metrics.jsonl is damaged (JSONDecodeError: " in error


def test_a_measured_run_counts_however_late_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scale = own_recipe(
        tmp_path,
        scale_of(tmp_path, "--actors 1 --envs 8 --warm-up 2 --seconds 2"),
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n(run / 'metrics.jsonl').write_text(rows)",
    )
    assert Process(StopRequest(), late=0.3)(scale, scale.plan.points[0], 0) == ""
    assert "repeat 1 was measured, but did not end in order: " in capsys.readouterr().out


def test_what_has_nothing_in_common_is_told_before_anything_starts(tmp_path: Path, contrail: Contrail) -> None:
    old = scale_of(tmp_path, "--actors 1 --envs 8 --warm-up 2 --repeats 1")
    told(old, Written())
    new = tmp_path / "new" / "scale-it"
    outcome = contrail("scale", "ppo", "--actors", 2, "--envs", 8, "--compare", old.path, "--name", new)
    assert outcome.code == 2 and "no configuration is in both: measured were actors=1" in outcome.sentence, outcome
    assert not new.exists()


def test_a_mistake_is_one_sentence(contrail: Contrail) -> None:
    outcome = contrail("scale", "ppo", "--actors", 3, "--envs", 8, "--run.folder", contrail.runs)
    assert outcome.code == 2 and "do not divide over 3 actors" in outcome.sentence and not contrail.runs.exists()
    outcome = contrail("scale", "ppo", "--actors", 1, "--compare", "no/where.json", "--run.folder", contrail.runs)
    assert outcome.code == 2 and "is no scale.json" in outcome.sentence and not contrail.runs.exists()
    outcome = contrail("scale", "ppo", "--help")
    assert outcome.code == 0 and "--envs-per-actor" in outcome.out and "strong scaling" in outcome.out


@pytest.mark.ray
def test_ctrl_c_ends_a_run_by_ray_in_order(tmp_path: Path) -> None:
    flags = ["--rows", 16, "--epochs", 1, "--actors", 2, "--envs", 4, "--seconds", 1000]
    process = start(tmp_path, "scale", "ppo", *flags, "--name", "it")
    scale = tmp_path / "runs" / "scale-it"
    run = scale / "actors=2,envs=4,learners=1" / "repeat-1"
    try:
        wait_until(lambda: bool(list(NewRows(run).read())), "the run has begun to learn")
        process.send_signal(signal.SIGINT)
        outcome = finish(process)
    finally:
        end(process)
    assert outcome.code == 130 and f"continue with: contrail scale --resume {scale}" in outcome.out, outcome
    assert list((run / "checkpoints").iterdir()) and not (run / "measured.json").exists()
    assert json.loads((scale / "scale.json").read_text())["configurations"][run.parent.name]["trained"] is None
