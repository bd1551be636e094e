"""Which precision encoders run in."""

from typing import Literal

import torch

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
