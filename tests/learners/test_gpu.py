"""What only a GPU can show; skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.assembly import pinned
from cluster.experiment import Topology
from learners import checkpoint
from learners.gradient import Gradient
from learners.learner import Learner
from learners.objective import Sum
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.update import Average
from learners.upload import Upload
from recipes.ppo import ppo
from tests.cluster.worlds import world_of
from tests.learners.reading import TABLE, RandomRows, model_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or a PyTorch built without CUDA"),
]


def test_a_learner_on_the_gpu_finds_what_actors_on_the_processor_recorded(tmp_path: Path) -> None:
    topology = Topology(actors=1, learners=1, gpus_per_learner=1, local=True)
    with world_of(ppo(rows=16, epochs=2, topology=topology), tmp_path) as world:
        metrics = [world.advance().metrics for _ in range(3)]
        assert all(step["train/first_ratio_error"] < 1e-4 for step in metrics)
        assert all(parameter.device.type == "cuda" for parameter in world.learner.model.parameters())
    assert torch.cuda.max_memory_allocated() > 0


def test_a_batch_is_copied_while_the_gpu_computes() -> None:
    """From page-locked memory, on a stream of its own: kernels that were given before are still at work after it."""
    device = torch.device("cuda")
    columns = {"rows": pinned((64, 1 << 20), np.dtype(np.uint8))}
    columns["rows"][:] = np.arange(64, dtype=np.uint8)[:, None]
    assert torch.from_numpy(columns["rows"]).is_pinned()
    upload, square = Upload(device), torch.randn(8192, 8192, device=device)
    upload({"fresh": columns})
    torch.cuda.synchronize()
    for _ in range(200):  # seconds of work, against milliseconds of copying
        square = (square @ square).clamp(-1, 1)
    busy = torch.cuda.Event()
    busy.record()
    moved = upload({"fresh": columns})["fresh"]["rows"]
    assert not busy.query(), "the copy waited for the computation"
    assert torch.equal(moved.cpu(), torch.from_numpy(columns["rows"]))


def joint_learner(rows: RandomRows) -> Learner:
    objective = Sum({"ppo": (1.0, PPO()), "curl": (0.5, Curl())})
    follow = (Average("encoder"), Average("curl.projection"))
    gradient = Gradient({"fresh": objective}, lr=0.01, epochs=2, minibatches=2, then=follow)
    model = model_of(objective, images=True, precision="bf16")
    return Learner(model, [gradient], tables={"fresh": TABLE}, read=rows, publish=rows, total_steps=1000, device="cuda")


def test_a_learner_on_the_gpu_goes_on_with_optimiser_and_random_numbers(tmp_path: Path) -> None:
    """Not bit for bit: no deterministic kernels are asked for."""
    whole = joint_learner(RandomRows(images=True))
    whole.step()
    checkpoint.save(tmp_path / "a", *whole.state())
    whole.step()
    resumed = joint_learner(RandomRows(images=True))
    resumed.restore(*checkpoint.load(tmp_path / "a"))
    resumed.step()
    assert torch.equal(torch.cuda.get_rng_state(), whole.random()["random_cuda/0"])
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=0.05, atol=5e-3)


def test_a_minibatch_in_parts_takes_less_memory() -> None:
    def peak(accumulate: int) -> int:
        model = model_of(images=True).cuda()
        columns = {"observation": torch.randint(0, 256, (4096, 1, 2, 24, 24), dtype=torch.uint8, device="cuda")}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with model.encoding_in(accumulate):
            model(columns).value.sum().backward()
        return torch.cuda.max_memory_allocated() - before

    assert peak(8) < 0.5 * peak(1)
