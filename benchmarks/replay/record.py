"""Records ALE Breakout with random actions, for the benchmarks that want real frames.

python -m benchmarks.replay.record FOLDER --rows 65536

Writes one COLUMN.npy for each column of a sequence, (streams, rows // streams, *shape). 84x84 grey frames of four
emulator frames each; the row of an episode's last observation, where nothing is decided, has a mask of 0. Whatever the
policy is asked for (log_prob, value) is random. Needs ale-py.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from ale_py.vector_env import AtariVectorEnv

from benchmarks.replay.peers.workload import ROW


def record(rows: int, *, streams: int, seed: int) -> dict[str, np.ndarray]:
    """The columns of some steps of random play."""
    envs = AtariVectorEnv("breakout", num_envs=streams, stack_num=1, reward_clipping=True)
    rng = np.random.default_rng(seed)
    each = rows // streams
    data = {name: np.zeros((streams, each, *shape), dtype) for name, (dtype, shape) in ROW.items()}
    data["log_prob"][:] = np.log(1 / 4)
    data["value"] = rng.standard_normal((streams, each), np.float32)
    observation, _ = envs.reset(seed=seed + np.arange(streams))
    episode, step, ended = np.arange(streams) * each, np.zeros(streams, np.int32), np.zeros(streams, bool)
    for row in range(each):
        action = rng.integers(0, 4, streams)
        following, reward, terminated, truncated, _ = envs.step(action)
        values = {"observation": observation[:, 0], "action": action, "reward": reward, "terminated": terminated}
        values |= {"truncated": truncated, "mask": ~ended, "episode": episode, "step": step}
        for name, value in values.items():
            data[name][:, row] = value
        # The step after an end only starts the next episode: its action is not used.
        episode, step = episode + ended, np.where(ended, 0, step + 1)
        observation, ended = following, terminated | truncated
    return data


def main() -> None:
    """Record and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, column in record(arguments.rows, streams=arguments.streams, seed=arguments.seed).items():
        np.save(arguments.folder / f"{name}.npy", column)
    print(f"{arguments.rows} rows in {arguments.folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
