"""How scaling is measured: the flags of `contrail scale` itself."""

import os
from dataclasses import dataclass, replace

import tyro

from cluster.experiment import ExperimentError, at_least


@dataclass(frozen=True)
class ScaleOptions:
    """How scaling is measured.

    Attributes:
        actors: numbers of actors; none: 1, 2, 4 and so on up to the cores of this machine.
        envs_per_actor: weak scaling, once for each of these: every actor has so many environments, so more actors have
            more of them, and batches grow with them.
        envs: strong scaling, once for each of these: so many environments in all, however many actors share them.
            Neither this nor the last: the recipe's own number.
        learners: numbers of learners, all of the above for each of them; none: as many as the recipe has. With one
            number of actors, what is measured is how learners scale.
        seconds: that each run is measured for, after its warm-up.
        steps: env steps of each run, warm-up included, instead of seconds.
        warm_up: learner steps at the beginning that are not measured.
        repeats: of every run, in rotated order; each has another seed.
        patience: seconds without a learner step after which a run has failed.
        name: the folder is runs/scale-NAME; empty makes a name from the recipe, the environment and the time.
        compare: scale.json of an earlier measurement: the exit code is 1 where something is slower than it was.
    """

    actors: tuple[int, ...] = ()
    envs_per_actor: tuple[int, ...] = ()
    envs: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    seconds: float = 30.0
    steps: int = 0
    warm_up: int = 5
    repeats: int = 3
    patience: float = 300.0
    name: str = ""
    compare: str = ""

    def checked(self) -> "ScaleOptions":
        """The same, numbers in order and those of actors filled in.

        Raises:
            ExperimentError: a number makes no sense.
        """
        lists = {name: getattr(self, name) for name in ("actors", "envs_per_actor", "envs", "learners")}
        for name, numbers in lists.items():
            for number in numbers:
                at_least(_flag(name), number, 1)
        for name, least in (("steps", 0), ("warm_up", 1), ("repeats", 1)):
            at_least(_flag(name), getattr(self, name), least)
        for name in ("seconds", "patience"):
            if not getattr(self, name) > 0:
                raise ExperimentError(f"{_flag(name)} is {getattr(self, name)}, wanted more than 0")
        ordered = {name: tuple(sorted(set(numbers))) for name, numbers in lists.items()}
        return replace(self, **ordered | {"actors": ordered["actors"] or _doubled(len(os.sched_getaffinity(0)))})


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4 and so on up to `most`."""
    return tuple(1 << power for power in range(most.bit_length()))


def parse_options(flags: list[str], default: ScaleOptions) -> ScaleOptions:
    """Those of the command line; exits with code 2 on a bad flag, with code 0 on --help.

    Args:
        flags: of `ScaleOptions` alone.
        default: what is not given.
    """
    return tyro.cli(ScaleOptions, args=flags, default=default, prog="contrail scale RECIPE").checked()
