"""Adam: torch's own numbers, and its start-up saved."""

import subprocess
import sys

import torch
from torch import Tensor

from learners.adam import Adam

SHAPES = ((7, 3), (7,), (4, 2, 3, 3), ())


def parameters() -> list[Tensor]:
    """Of several shapes, a convolution's weights channels last."""
    torch.manual_seed(1)
    made = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    made[2] = made[2].detach().to(memory_format=torch.channels_last).requires_grad_()
    return made


def give_gradients(own: list[Tensor], *, number: int) -> None:
    """The same for the same number; every third time the second parameter has none."""
    generator = torch.Generator().manual_seed(number)
    for parameter in own:
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
    if number % 3 == 0:
        own[1].grad = None


def test_numbers_are_those_of_torch_bit_for_bit() -> None:
    """With a parameter that is sometimes left out, and a rate that changes."""
    ours, theirs = parameters(), parameters()
    adam, reference = Adam(ours, lr=1e-2), torch.optim.Adam(theirs, lr=1e-2, eps=1e-5, fused=True)
    for number in range(20):
        adam.lr = reference.param_groups[0]["lr"] = 1e-2 / (1 + number)
        for own in (ours, theirs):
            give_gradients(own, number=number)
        adam.step()
        reference.step()
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_restored_it_goes_on_bit_for_bit() -> None:
    """Also one that is restored before its first step, from moments in another memory format."""
    whole, begun = parameters(), parameters()
    adam, first = Adam(whole, lr=1e-2), Adam(begun, lr=1e-2)
    for number in range(4):
        for own in (whole, begun):
            give_gradients(own, number=number)
        adam.step()
        first.step()
    second = Adam(begun, lr=1e-2)
    second.restore({name: value.clone(memory_format=torch.contiguous_format) for name, value in first.state().items()})
    for number in range(4, 8):
        for own, engine in ((whole, adam), (begun, second)):
            give_gradients(own, number=number)
            engine.step()
    assert all(torch.equal(mine, other) for mine, other in zip(whole, begun, strict=True))


def test_nothing_is_moved_without_gradients() -> None:
    """And nothing is remembered."""
    own = parameters()
    adam = Adam(own, lr=1e-2)
    adam.step()
    assert all(torch.equal(mine, other) for mine, other in zip(own, parameters(), strict=True))
    assert adam.state() == {}


def test_the_compiler_is_not_loaded() -> None:
    """Loading it takes as long as importing torch."""
    program = (
        "import sys, torch; from learners.adam import Adam; import learners.gradient\n"
        "own = torch.ones(2, requires_grad=True); own.sum().backward(); Adam([own], lr=0.1).step()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
