"""Regression targets of actor-critic methods: advantages, V-trace, and how well the critic explains the returns."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks and returns the same on each; `Group.sum`."""


def alone(tensor: Tensor) -> Tensor:
    """The total of one rank: the tensor itself."""
    return tensor


def gae(
    reward: Float[Tensor, "B T"],
    value: Float[Tensor, "B T"],
    terminated: Float[Tensor, "B T"],
    truncated: Float[Tensor, "B T"],
    mask: Float[Tensor, "B T"],
    *,
    gamma: float,
    lam: float,
) -> Float[Tensor, "B T"]:
    """Advantage of each recorded action, by generalised advantage estimation.

    A decaying sum of one-step errors, from the row to the end of its episode or of the window, whichever is first. A
    terminated row looks at no later value; a truncated one bootstraps from the final observation, which is the row
    after it (mask 0).

    Args:
        reward: received between row t and row t+1, in the environment's units.
        value: the critic's estimate at each row, same units, no gradient needed.
        terminated: 1 where the episode ended by the task's own rules.
        truncated: 1 where it was cut off, e.g. by a time limit.
        mask: 1 where the row has an action; 0 on final observations and padding.
        gamma: discount per row, in [0, 1].
        lam: 0 gives the one-step error, 1 the full return minus the value.

    Returns:
        Zero on masked rows and on the last row of the window, which has no successor.

    Reference: Schulman et al., arXiv:1506.02438, eq. 16.
    """
    decided = has_successor(mask)
    error = decided * (reward + gamma * (1 - terminated) * following(value) - value)
    decay = decided * gamma * lam * (1 - torch.maximum(terminated, truncated))
    return decaying_sum(error, decay)


def vtrace(
    ratio: Float[Tensor, "B T"],
    reward: Float[Tensor, "B T"],
    value: Float[Tensor, "B T"],
    terminated: Float[Tensor, "B T"],
    truncated: Float[Tensor, "B T"],
    mask: Float[Tensor, "B T"],
    *,
    gamma: float,
    lam: float = 1.0,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Value targets and advantages for a policy, of rows that an older one chose.

    With delta_t = min(rho_clip, ratio_t) (r_t + gamma V_{t+1} - V_t) and c_t = lam min(c_clip, ratio_t),

        v_t = V_t + delta_t + gamma c_t (v_{t+1} - V_{t+1})
        A_t = r_t + gamma (lam v_{t+1} + (1 - lam) V_{t+1}) - V_t

    to the end of the episode or of the window, whichever is first. Ends and masks are those of `gae`, which A is where
    all ratios are 1. The policy's gradient is that of min(rho_clip, ratio_t) A_t log pi(a_t).

    Args:
        ratio: how much likelier the policy makes each recorded action than the one that acted did; anything on rows
            without a decision.
        reward: received between row t and row t+1, in the environment's units.
        value: the critic's present estimate at each row, no gradient needed.
        terminated: 1 where the episode ended by the task's own rules.
        truncated: 1 where it was cut off.
        mask: 1 where the row has an action.
        gamma: discount per row, in [0, 1].
        lam: below 1, targets lean on nearer values.
        rho_clip: rho-bar of the paper: which policy the values are of; infinity: the learner's,
            towards 0: the one that acted.
        c_clip: c-bar: how far corrections reach back, i.e. their variance; at most `rho_clip`.

    Returns:
        Targets, the value itself where there is no decision or no successor, and advantages, 0 there.

    Reference: Espeholt et al., IMPALA, arXiv:1802.01561, section 4.1; lam as in its remark 2.
    """
    decided = has_successor(mask)
    successor, bootstrapped = following(value), gamma * (1 - terminated)
    # Without a decision the ratio may be infinite, and 0 * inf is not a number.
    ratio = torch.where(decided > 0, ratio, 0.0)
    error = decided * ratio.clamp(max=rho_clip) * (reward + bootstrapped * successor - value)
    ongoing = 1 - torch.maximum(terminated, truncated)
    beyond = decaying_sum(error, decided * gamma * lam * ratio.clamp(max=c_clip) * ongoing)
    # A final observation decides nothing, so the target of its row is its value: there a truncation bootstraps.
    advantage = decided * (reward + bootstrapped * (successor + lam * ongoing * following(beyond)) - value)
    return value + beyond, advantage


def decaying_sum(error: Float[Tensor, "B T"], decay: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The sum s_t = error_t + decay_t s_{t+1} of every row, from the window's end backwards."""
    tail, sums = torch.zeros_like(error[:, 0]), []
    # One fused operation per row on contiguous (B,) columns: 128 rows take about half a millisecond on one core.
    for step_error, step_decay in zip(reversed(error.T.contiguous()), reversed(decay.T.contiguous()), strict=True):
        tail = torch.addcmul(step_error, step_decay, tail)
        sums.append(tail)
    return torch.stack(sums[::-1], 1)


def following(x: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """What stands in the next row; 0 after the window's last."""
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


def has_successor(mask: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The mask of rows whose next observation is in the window: the last row's is not."""
    kept = mask.clone()
    kept[:, -1] = 0
    return kept


def moments(
    x: Float[Tensor, "B T"], mask: Float[Tensor, "B T"], *, total: Total = alone
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean and population variance of the masked-in rows, over all ranks; (0, 0) if there are none."""
    count, sums = total(torch.stack([mask.sum(), (x * mask).sum()])).unbind()
    count = count.clamp(min=1.0)
    mean = sums / count
    # A second pass, because the difference of two large sums loses the variance of large returns in float32.
    return mean, total(((x - mean).square() * mask).sum()) / count


def standardise(x: Float[Tensor, "B T"], mask: Float[Tensor, "B T"], *, total: Total = alone) -> Float[Tensor, "B T"]:
    """`x` with mean 0 and standard deviation 1 over the masked-in rows of all ranks; 0 elsewhere."""
    mean, variance = moments(x, mask, total=total)
    return mask * (x - mean) / (variance.sqrt() + 1e-8)


def explained_variance(
    value: Float[Tensor, "B T"],
    target: Float[Tensor, "B T"],
    mask: Float[Tensor, "B T"],
    *,
    total: Total = alone,
) -> Float[Tensor, ""]:
    """Share of the targets' variance that the values account for: 1 perfect, 0 a constant's, negative worse than that.

    0 where the targets do not vary, so that it can be averaged.
    """
    _, spread = moments(target, mask, total=total)
    _, residual = moments(target - value, mask, total=total)
    return torch.where(spread > 0, 1 - residual / spread.clamp(min=1e-12), torch.zeros_like(spread))
