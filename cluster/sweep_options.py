"""How a sweep goes on: its own flags, and what of the machine each run is counted with."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
import tyro

from cluster.experiment import ExperimentError


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep goes on.

    Attributes:
        name: folder of the sweep under --run.folder; empty makes one from the recipe, the environment and the time.
        parallel: runs at a time; 0: as many as cores and GPUs allow.
        cpus: cores that each run is counted with.
        gpus: GPUs that each run gets for itself, or its share of one; 0: every run sees all.
        scheduler: asha stops runs early that do worse than others; pbt lets the worst quarter take over what the best
            has learned, with other settings; none: all come to their end as they began.
        grace_steps: env steps before asha's first look; 0: those of the longest run, divided by the reduction twice.
        reduction: one run in so many goes on after asha's look, and as much later it looks again.
        pbt_every: env steps between two looks of pbt; 0: a tenth of a run's.
    """

    name: str = ""
    parallel: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    scheduler: Literal["none", "asha", "pbt"] = "none"
    grace_steps: int = 0
    reduction: float = 3.0
    pbt_every: int = 0

    def checked(self) -> "SweepOptions":
        """The same.

        Raises:
            ExperimentError: a number makes no sense, here or on this machine.
        """
        for name, least in (("parallel", 0), ("gpus", 0.0), ("grace_steps", 0), ("pbt_every", 0)):
            if not getattr(self, name) >= least:
                raise ExperimentError(
                    f"--sweep.{name.replace('_', '-')} is {getattr(self, name)}, wanted at least {least}"
                )
        for name, above in (("cpus", 0), ("reduction", 1)):
            if not getattr(self, name) > above:
                raise ExperimentError(f"--sweep.{name} is {getattr(self, name)}, wanted more than {above}")
        for name, there in self._there().items():
            wanted = max(1, self.parallel) * getattr(self, name)
            if wanted > there:
                runs = f"{max(1, self.parallel)} at a time"
                raise ExperimentError(
                    f"--sweep.{name} {getattr(self, name):g} and {runs} want {wanted:g}, this machine has {there}: "
                    f"lower --sweep.{name} or --sweep.parallel"
                )
        return self

    @staticmethod
    def _there() -> dict[str, int]:
        return {"cpus": len(os.sched_getaffinity(0)), "gpus": torch.cuda.device_count()}

    @property
    def at_a_time(self) -> int:
        """Runs at a time."""
        there = self._there()
        most = [int(there[name] / each) for name, each in (("cpus", self.cpus), ("gpus", self.gpus)) if each]
        return self.parallel or min(most)

    def grace(self, steps: int) -> int:
        """Env steps before asha's first look.

        Raises:
            ExperimentError: a run would have ended.
        """
        grace = self.grace_steps or max(1, int(steps / self.reduction**2))
        if grace >= steps:
            raise ExperimentError(f"--sweep.grace-steps {grace} is not before the end of runs, at {steps}: lower it")
        return grace

    def look(self, steps: int) -> int:
        """Env steps between two looks of pbt.

        Raises:
            ExperimentError: runs would have ended.
        """
        every = self.pbt_every or max(1, steps // 10)
        if every >= steps:
            raise ExperimentError(f"--sweep.pbt-every {every} is not before the end of runs, at {steps}: lower it")
        return every


def parse_options(flags: list[str], default: SweepOptions) -> SweepOptions:
    """Those of the command line; exits with code 2 on a bad flag, with code 0 on --help.

    Args:
        flags: all of them begin with --sweep.
        default: what is not given.
    """

    def command(sweep: SweepOptions = default) -> SweepOptions:
        return sweep

    return tyro.cli(command, args=flags, prog="contrail sweep RECIPE").checked()
