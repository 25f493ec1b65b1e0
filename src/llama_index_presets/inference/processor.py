"""What the processor of this machine computes in."""

from __future__ import annotations

import numkong

__all__ = ["cpu_computes_bfloat16"]


def cpu_computes_bfloat16() -> bool:
    """Whether this x86 CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32.

    `numkong` names the instruction sets by the processors that had them first: AVX512-BF16 came with AMD's Genoa, AMX
    with Intel's Sapphire Rapids.
    """
    has = numkong.get_capabilities()
    return bool(has.get("genoa") or has.get("sapphireamx"))
