"""Where a run runs: how many processes of each kind, and what they get."""

import os
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Topology:
    """Where a run runs.

    Attributes:
        actors: processes that step environments; 0 takes one per core, as far as the environments divide.
        learners: processes that learn together, each on its share of every batch; 0 takes one per GPU, or where there
            is none one per core, as far as the environments divide and each keeps eight of them.
        shards: processes that hold the replay store's index.
        threads: of each learner. More learners are faster than more threads, and do not suffer on a shared machine.
        gpus_per_learner: 0 learns on the CPU, 1 gives each learner a GPU of its own; -1 takes a GPU if there is one.
        max_version_lag: newest weights minus those an actor may start a block with. 0 is strictly on-policy: actors
            and learners take turns; 1 overlaps them.
        local: everything in this process, without Ray, in turns: for debugging, and the specification of the rest.
        address: a running Ray cluster to join, "auto" for the one on this machine; empty starts one inside this run.
    """

    actors: int = 0
    learners: int = 0
    shards: int = 1
    threads: int = 1
    gpus_per_learner: int = -1
    max_version_lag: int = 0
    local: bool = False
    address: str = ""

    def resolved(self, envs: int) -> "Topology":
        """The same with every number that was left to the machine filled in."""
        gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
        gpus_per_learner = min(gpus, 1) if self.gpus_per_learner < 0 else self.gpus_per_learner
        # Minibatches of recurrent models are made of whole windows, and every learner must have some for each of them.
        learners = 1 if self.local else divisor(envs, gpus if gpus_per_learner else min(cores, envs // 8))
        return replace(
            self,
            actors=self.actors or divisor(envs, cores),
            learners=self.learners or learners,
            gpus_per_learner=gpus_per_learner,
        )


LEAST = {"actors": 0, "learners": 0, "shards": 1, "threads": 1, "gpus_per_learner": -1, "max_version_lag": 0}
"""The smallest number that makes sense for each field of a topology."""


def divisor(whole: int, most: int) -> int:
    """The largest divisor of `whole` that is not above `most`."""
    return max(part for part in range(1, max(1, min(whole, most)) + 1) if whole % part == 0)
