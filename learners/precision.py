"""Which precision encoders run in."""

from typing import Literal

import torch

from learners.objective import Bound

Precision = Literal["fp32", "bf16"]


def resolved_precision(wanted: Literal["auto", "fp32", "bf16"]) -> Precision:
    """A precision; "auto" is bf16 where the hardware computes in it, and fp32 where it would only emulate it.

    On a processor that is AMX or AVX512-BF16; on a GPU, compute capability 8 or later.
    """
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def same_policy(precision: Precision, device: torch.device) -> Bound:
    """How far from 1 the mean ratio of the learner's policy to the one that acted may be, with the same weights.

    It is rounding: on a processor in float32 below 1e-5, in bf16 up to a few hundredths. A GPU multiplies in shorter
    floats than the processor on which actors run.
    """
    exact = precision == "fp32" and device.type == "cpu"
    return Bound(
        most=1e-3 if exact else 0.1,
        otherwise="with the same weights the learner does not compute the policy that acted; look for what differs "
        "between acting and learning: frames, normalisation, masks, dropout, a policy of one's own",
        on_policy=True,
    )
