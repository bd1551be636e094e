import json
import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as processes

from learners.gradient import Gradient
from learners.group import Group, join, leave
from learners.objectives.ppo import PPO
from learners.update import Normalise
from tests.learners.small import random_batch, small_model


def trained(group: Group, batch: dict) -> dict[str, torch.Tensor]:
    """Parameters and statistics after two learner steps on one minibatch each."""
    model = small_model(seed=group.rank + 1, normalise=True)
    group.broadcast(model)
    objective = PPO(scale_reward=True)
    engines = [
        Gradient({"fresh": objective}, lr=0.01, epochs=3, minibatches=1).start(model, group),
        Normalise("fresh").start(model, group),
    ]
    for _ in range(2):
        for engine in engines:
            engine.step({"fresh": batch}, progress=0.0)
    return model.state_dict()


def train_half(rank: int, address: str, folder: Path, through_memory: bool) -> None:
    torch.set_num_threads(1)
    group = join(address, rank, 2, device=torch.device("cpu"), seconds=60)
    assert group.shares_memory
    group.shares_memory = through_memory
    whole = random_batch(6, 9)
    half = {name: column[:4] if rank == 0 else column[4:] for name, column in whole.items()}
    torch.save(trained(group, half), folder / f"{rank}.pt")
    leave()
    (folder / f"{rank}.json").write_text(json.dumps({"process": os.getpid(), "threads": thread_names()}))


def thread_names() -> list[str]:
    return [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("through_memory", [True, False])
def test_two_learners_on_uneven_halves_equal_one_on_the_whole(tmp_path: Path, through_memory: bool) -> None:
    address = f"file://{tmp_path}/rendezvous"  # no port that another process could take meanwhile
    processes.spawn(train_half, args=(address, tmp_path, through_memory), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert not list(Path("/dev/shm").glob(f"contrail-{told[0]['process']}-sum-*")), "the shared file outlived its use"
    # One that is left when the interpreter ends may abort the process.
    assert not [name for end in told for name in end["threads"] if "gloo" in name], "the group's threads outlived it"
    whole = trained(Group(), random_batch(6, 9))
    for name, tensor in whole.items():
        assert torch.equal(halves[0][name], halves[1][name]), name
        torch.testing.assert_close(halves[0][name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_single_learner_needs_no_group() -> None:
    tensor = torch.ones(3)
    assert Group().sum(tensor) is tensor
