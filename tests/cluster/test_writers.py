"""Where a run's numbers go beside its folder: services of which a run takes no harm."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.events import Events
from cluster.experiment import ExperimentError
from cluster.metrics import read_metrics
from cluster.ray_gauges import RayGauges
from cluster.run_folder import RunFolder
from cluster.writers import Elsewhere, ScalarWriter
from tests.cluster.commands import Contrail


class Kept:
    """Keeps what it is given, until it is told to break."""

    def __init__(self, breaks_at: int = sys.maxsize) -> None:
        self.given: list[tuple[int, dict[str, float]]] = []
        self.breaks_at, self.closed = breaks_at, 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self.breaks_at:
            raise ConnectionError("nobody answers")
        self.given.append((step, dict(values)))

    def close(self) -> None:
        self.closed += 1


class Package:
    """As `wandb` and `trackio` look from here."""

    def __init__(self, breaks_after: int = sys.maxsize, *, starts: bool = True) -> None:
        self.starts: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []
        self.metrics: list[Any] = []
        self.finished, self._left, self._starts = 0, breaks_after, starts

    def Settings(self, **options: Any) -> Any:  # noqa: N802 - wandb's name
        return SimpleNamespace(**options)

    def init(self, **options: Any) -> "Package":
        if not self._starts:
            raise RuntimeError("no key")
        self.starts.append(options)
        return self

    def define_metric(self, *names: str, **options: str) -> None:
        self.metrics.append((*names, *options.values()))

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        if not self._left:
            raise OSError("the socket is gone")
        self._left -= 1
        self.logged.append(values | ({} if step is None else {"env_steps": step}))

    def finish(self) -> None:
        self.finished += 1


def package(name: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Package:
    made = Package(**options)
    monkeypatch.setitem(sys.modules, name, made)  # type: ignore[arg-type]
    return made


def test_all_places_for_numbers_are_alike(tmp_path: Path) -> None:
    events = Events(tmp_path)
    assert isinstance(events, ScalarWriter) and isinstance(RayGauges("run"), ScalarWriter)
    events.close()


def test_a_writer_that_fails_is_named_once_and_the_others_go_on() -> None:
    said: list[str] = []
    good, bad = Kept(), Kept(breaks_at=2)
    with Elsewhere(said.append) as elsewhere:
        elsewhere.add("bad", bad)
        elsewhere.add("good", good)
        for step in (1, 2, 3):
            elsewhere.scalars(step, {"a/b": 0.5, "facts/weights_crc": 7.0})
    assert said == ["bad failed (ConnectionError: nobody answers); the run goes on without it"]
    assert good.given == [(step, {"a/b": 0.5}) for step in (1, 2, 3)] and good.closed == 1
    assert [step for step, _ in bad.given] == [1] and not bad.closed


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_service_gets_every_number_at_its_env_steps_and_goes_on_when_the_run_does(
    service: str, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = package(service, monkeypatch)
    assert contrail.train("ppo", "--steps", 300, "--run.writers", service).code == 0
    run = contrail.runs / "run"
    rows = read_metrics(run)
    assert [values["env_steps"] for values in there.logged] == [row["step"] for row in rows]
    assert there.logged[0]["train/value_loss"] == rows[0]["train/value_loss"] and "step" not in there.logged[0]
    assert there.logged[-1]["eval/mean_reward"] == rows[-1]["eval/mean_reward"] and there.finished == 1
    assert {"recipe": "ppo", "steps": 300, "topology.local": True}.items() <= there.starts[0]["config"].items()
    assert contrail("resume", run).code == 0
    first, second = there.starts
    assert first["name"] == second["name"] and second["resume"] == "allow" != first["resume"]
    assert first.get("id") == second.get("id") and (service == "trackio" or first["id"])
    assert first["group"] is None, "it is of no sweep"
    assert there.metrics == ([("env_steps",), ("*", "env_steps")] * 2 if service == "wandb" else [])


def test_a_service_that_fails_in_the_middle_does_not_end_the_run(
    contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = package("wandb", monkeypatch, breaks_after=1), package("trackio", monkeypatch)
    outcome = contrail.train("ppo", "--steps", 300, "--run.writers", "wandb", "trackio")
    assert outcome.code == 0 and not outcome.error
    assert outcome.out.count("wandb failed (OSError: the socket is gone); the run goes on without it") == 1
    assert len(broken.logged) == 1 and len(whole.logged) == len(read_metrics(contrail.runs / "run")) > 2


def test_a_service_that_does_not_start_is_a_mistake_of_a_new_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("wandb", monkeypatch, starts=False)
    folder = RunFolder.create(tmp_path / "run")
    folder.save_experiment({})
    said: list[str] = []
    with Elsewhere(said.append) as elsewhere:
        with pytest.raises(ExperimentError, match=r"wandb did not start \(RuntimeError: no key\): mend that, or leave"):
            elsewhere.start("wandb", folder, resume=False)
        assert not said
        elsewhere.start("wandb", folder, resume=True)
        elsewhere.scalars(1, {"a/b": 1.0})
    assert said == ["wandb did not start (RuntimeError: no key); the run goes on without it"]


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_service_without_its_package_is_refused_before_there_is_a_run(
    service: str, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, service, None)  # as if it was not installed
    outcome = contrail.train("ppo", "--run.writers", service)
    assert outcome.code == 2 and f'pip install "contrail[{service}]"' in outcome.sentence
    assert not (contrail.runs / "run").exists()


@pytest.mark.parametrize(("service", "known_by"), [("wandb", "id"), ("trackio", "name")])
def test_two_runs_of_one_name_are_two_there_and_each_knows_its_sweep(
    service: str, known_by: str, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = package(service, monkeypatch)
    for sweep in ("one", "two"):
        folder = contrail.runs / sweep
        folder.mkdir(parents=True)
        (folder / "sweep.json").write_text("{}")
        name = folder / "seed=1"
        assert contrail.train("ppo", "--steps", 64, "--run.writers", service, name=str(name)).code == 0
    first, second = there.starts
    assert first[known_by] != second[known_by] and first["name"].startswith("seed=1")
    assert [start["group"] for start in there.starts] == ["one", "two"]
    assert (contrail.runs / "one" / "seed=1" / f"{service}-id.txt").read_text() in first[known_by]
    json.dumps(first["config"])
