"""Ray Tune on the runs of a sweep: a trial is the process of a run, and hears of its metrics as they are written.

Who wants a run to end leaves a file; its trial passes that on as SIGTERM and waits for the checkpoint, however long
that takes. Tune itself would give it ten seconds.
"""

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from cluster import sweep_process
from cluster.embedded import end_ray, start_ray
from cluster.following import NewRows
from cluster.logs import last_words
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from cluster.sweep_folder import SweepFolder, locked, settled, stop_run, verdict

STEPS, RETURN, TAG = "env_steps", "return", "rollout/ep_rew_mean"
NOBODY: Any = None
"""ASHA does without a controller."""
POLL = 0.2
"""Seconds between two looks at a run's files."""
PATIENCE = 2.0
"""Seconds after which a trial answers Tune although its run has nothing new to tell."""
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # runs keep their numbers themselves
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # there is no return before the first episode's end
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints, however quiet it is asked to be
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_kill_child_processes_on_worker_exit": "0",  # by SIGKILL: no checkpoint
}


class Trial(tune.Trainable):
    """A run's process, as Tune sees it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take note of which run it is; `step` starts it."""
        self.sweep, _ = SweepFolder.open(Path(config["sweep"]))
        self.planned = next(run for run in self.sweep.runs if run.name == config["run"])
        self.path = self.sweep.path / self.planned.name
        self.follow = NewRows(self.path)
        self.process: subprocess.Popen[bytes] | None = None
        self.asked = False
        self.last: dict[str, float] = {}

    def step(self) -> dict[str, Any]:
        """The next return that the run wrote; `done` when its process has ended."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            over = self._over()  # before the look at what it wrote: what it wrote last is there
            if new := self._next():
                self.last = new
                break
            if over:
                return {**self.last, "done": True}
            time.sleep(POLL)
        return dict(self.last)

    def cleanup(self) -> None:
        """End the process in order, where Tune wants the trial gone."""
        if self.process is not None and self.process.poll() is None:
            self._ask()
            self.process.wait()

    def _over(self) -> bool:
        """Whether there is nothing to wait for; starts the run once nobody else trains it, and asks it to stop."""
        stop = self.sweep.stopping or bool(verdict(self.path))
        if self.process is None:
            if stop or settled(self.sweep, self.planned.name):
                return True
            if locked(self.path):  # by a start that has not ended yet
                return False
            if self._waits():
                return True
            self._start()
            return False
        if self.process.poll() is not None:
            return True
        if stop:
            self._ask()
        return False

    def _waits(self) -> bool:
        """Whether it is where it was to stop: a start that outlived its sweep may have come there meanwhile."""
        found = RunFolder(self.path).checkpoints()
        return bool(found) and 0 < self.config["until"] <= int(found[-1].name) < self.planned.steps

    def _start(self) -> None:
        self.process = sweep_process.start(
            self.sweep.command(self.planned, self.config["until"]),
            folder=self.sweep.folder,
            output=self.sweep.output(self.planned.name),
            driver=self.config["driver"],
            gpus=self.config["gpus"],
        )

    def _ask(self) -> None:
        """Ask the process to stop, once: a second request would interrupt its saving."""
        if not self.asked and self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.asked = True

    def _next(self) -> dict[str, float] | None:
        for row in self.follow.read():
            if TAG in row:
                return {STEPS: row["step"], RETURN: row[TAG]}
        return None


class Halving(ASHAScheduler):
    """Asynchronous successive halving (Li et al., arXiv:1810.05934), which knows runs by name.

    So what earlier starts of the sweep have seen counts, and a decision is left in the run's folder.

    Args:
        sweep: the sweep.
        grace: env steps before the first rung.
        reduction: one in so many goes on beyond a rung, and rungs are this factor apart.
    """

    def __init__(self, sweep: SweepFolder, *, grace: int, reduction: float) -> None:
        most = max(run.steps for run in sweep.runs)
        # A run at its end is being evaluated: it is not stopped, and there is no rung.
        super().__init__(
            STEPS, RETURN, "max", max_t=most - 1, grace_period=grace, reduction_factor=reduction, stop_last_trials=False
        )
        self.sweep = sweep
        for run in sweep.runs:
            super().on_trial_add(NOBODY, _called(run.name))
        for _, name, result in sorted(_seen(sweep), key=lambda seen: seen[:2]):
            super().on_trial_result(NOBODY, _called(name), result)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """All runs are known already."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note a return; what is to be stopped is told so by a file, and ends as a trial whose run ended."""
        run = self.sweep.path / trial.config["run"]
        decision = super().on_trial_result(tune_controller, _called(run.name), result)
        if decision == TrialScheduler.STOP and not verdict(run):
            stop_run(run, "asha", int(result[STEPS]))
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its last result was noted already."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """It may come again."""


def _called(name: str) -> Any:
    """All of a trial that ASHA asks for."""
    return SimpleNamespace(trial_id=name)


def _seen(sweep: SweepFolder) -> Iterable[tuple[float, str, dict[str, Any]]]:
    """All returns that runs have written so far: when, which run, and what."""
    for run in sweep.runs:
        if (sweep.path / run.name / "metrics.jsonl").exists():
            for row in read_metrics(sweep.path / run.name):
                if TAG in row:
                    yield row["time"], run.name, {STEPS: row["step"], RETURN: row[TAG]}


class Watcher(tune.Callback):
    """Tells somebody which runs are in trials, every little while.

    Args:
        look: called with the runs in trials, and with those whose trial itself broke and why.
    """

    def __init__(self, look: Callable[[set[str], dict[str, str]], None]) -> None:
        self.look, self.running, self.broken = look, set[str](), dict[str, str]()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a pickle, which nobody reads."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its process."""
        self.running.add(trial.config["run"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The run's process has ended."""
        self.running.discard(trial.config["run"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process of the trial died, and let the run's stop."""
        name = trial.config["run"]
        self.running.discard(name)
        said = last_words(Path(trial.error_file)) if trial.error_file else []
        self.broken[name] = said[0] if said else "its trial died"

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune has handled an event, or waited for one in vain."""
        self.look(self.running, self.broken)


class Ended(tune.Stopper):
    """Ends the sweep when runs were asked to stop, and all have."""

    def __init__(self, sweep: SweepFolder, watcher: Watcher) -> None:
        self.sweep, self.watcher = sweep, watcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Trials end by themselves."""
        return False

    def stop_all(self) -> bool:
        """Whether no run is left that writes its checkpoint."""
        return self.sweep.stopping and not any(locked(self.sweep.path / run) for run in self.watcher.running)


@contextmanager
def tune_ray() -> Iterator[None]:
    """A Ray for Tune, as long as it is wanted."""
    os.environ.update(SETTINGS)
    start_ray("", installs=True)
    try:
        yield
    finally:
        end_ray()


def fit(
    sweep: SweepFolder,
    names: Sequence[str],
    *,
    parallel: int,
    resources: dict[str, float],
    scheduler: Halving | None,
    until: int,
    look: Callable[[set[str], dict[str, str]], None],
) -> None:
    """Let Tune carry runs out on the Ray of `tune_ray`, until all have ended or were asked to stop.

    Args:
        sweep: the sweep.
        names: of runs, in order.
        parallel: at a time.
        resources: of each, "CPU" and "GPU".
        scheduler: that stops some early; None: all come to their end.
        until: env steps at which new runs stop; 0: their end.
        look: called every little while, see `Watcher`.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the table tells what becomes of runs
    watcher, own = Watcher(look), sweep.path / "tune"
    shutil.rmtree(own, ignore_errors=True)
    space = {
        "run": tune.grid_search(list(names)),
        "sweep": str(sweep.path),
        "driver": os.getpid(),
        "gpus": resources["GPU"] > 0,
        "until": until,
    }
    tuner = tune.Tuner(
        tune.with_resources(Trial, resources),
        param_space=space,
        tune_config=tune.TuneConfig(scheduler=scheduler or FIFOScheduler(), max_concurrent_trials=parallel),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(own),
            verbose=0,
            callbacks=[watcher],
            stop=Ended(sweep, watcher),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs write theirs
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(own, ignore_errors=True)  # how runs are is told by their folders
