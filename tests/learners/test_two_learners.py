"""What two learners, each in a process of its own, do when only one of them has seen something."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as processes

from learners.gradient import Gradient
from learners.group import join, leave
from learners.not_finite import NotFinite
from learners.objectives.ppo import PPO
from tests.learners.small import random_batch, small_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def fail(rank: int, address: str, folder: Path) -> None:
    torch.set_num_threads(1)
    group = join(address, rank, 2, device=torch.device("cpu"), seconds=60)
    batch = random_batch(4, 6, seed=rank)
    if rank == 1:
        batch["reward"][batch["mask"] > 0] = torch.nan
    engine = Gradient({"fresh": PPO(normalise_advantage=False)}, minibatches=1).start(small_model(), group)
    try:
        engine.step({"fresh": batch}, progress=0.0)
    except NotFinite as error:
        (folder / f"{rank}.txt").write_text(str(error))
    leave()


def test_all_learners_stop_and_say_whose_rows_were_no_numbers(tmp_path: Path) -> None:
    processes.spawn(fail, args=(f"file://{tmp_path}/rendezvous", tmp_path), nprocs=2)
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert told[0] == told[1]
    assert "On learner 1: columns fresh/reward" in told[0] and "On learner 0" not in told[0]


def halved(rank: int, address: str, folder: Path, accumulate: int) -> None:
    torch.set_num_threads(1)
    group = join(address, rank, 2, device=torch.device("cpu"), seconds=60)
    model, whole = small_model(), random_batch(6, 9)
    half = {name: column[:4] if rank == 0 else column[4:] for name, column in whole.items()}
    update = Gradient({"fresh": PPO()}, lr=0.01, epochs=2, minibatches=1, accumulate=accumulate)
    update.start(model, group).step({"fresh": half}, progress=0.0)
    torch.save([parameter.detach() for parameter in model.parameters()], folder / f"{accumulate}-{rank}.pt")
    leave()


def test_parts_of_a_minibatch_do_not_show_between_learners(tmp_path: Path) -> None:
    for accumulate in (1, 3):
        processes.spawn(halved, args=(f"file://{tmp_path}/{accumulate}", tmp_path, accumulate), nprocs=2)
    one, three = (torch.load(tmp_path / f"{accumulate}-0.pt") for accumulate in (1, 3))
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
