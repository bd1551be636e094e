"""CleanRL's own script of PPO on CartPole, as its package brings it: agent steps a second. Imports none of ours."""

import os
import re
import runpy
import sys
import tempfile
from collections import deque
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.clock import EPISODES, Clock, asked


class Listener(StringIO):
    """Reads what the script prints: a line of each return, and one of the speed after each learner step."""

    def __init__(self, clock: Clock, batch: int) -> None:
        super().__init__()
        self.clock, self.batch, self.steps = clock, batch, 0
        self.returns: deque[float] = deque(maxlen=EPISODES)

    def write(self, text: str) -> int:
        """Take note of it.

        Raises:
            SystemExit: the run is over.
        """
        if found := re.search(r"episodic_return=([\d.]+)", text):
            self.returns.append(float(found.group(1)))
        elif text.startswith("SPS:"):
            self.steps += self.batch
            if self.clock.iteration(self.steps, self.returns):
                raise SystemExit
        return len(text)


def flags(run: dict, steps: int) -> list[str]:
    """The run's settings as the script wants them; all else is its own."""
    told = {
        "env-id": run["environment"],
        "seed": run["seed"],
        "total-timesteps": steps,
        "learning-rate": run["lr"],
        "anneal-lr": run["anneal"],
        "num-envs": run["envs"],
        "num-steps": run["rows"],
        "num-minibatches": run["minibatches"],
        "update-epochs": run["epochs"],
        "gamma": run["gamma"],
        "gae-lambda": run["lam"],
        "clip-coef": run["clip"],
        "clip-vloss": False,
        "ent-coef": run["entropy"],
        "cuda": False,
    }
    return [f"--{name}={value}" for name, value in told.items()]


def main() -> None:
    """Run the script as the command line says."""
    run, clock = asked(__doc__)
    torch.set_num_threads(1)
    sys.argv[1:] = flags(run, clock.steps)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where the script writes its TensorBoard files
        try:
            with redirect_stdout(Listener(clock, run["envs"] * run["rows"])):
                runpy.run_module("cleanrl.ppo", run_name="__main__")
        except SystemExit:
            if not clock.done:
                raise
    print(clock.told())


if __name__ == "__main__":
    main()
