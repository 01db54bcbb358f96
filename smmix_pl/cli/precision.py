"""Precision chosen by the device: bf16 where it has bf16 instructions, else float32."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

CPUINFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = {"amx_bf16", "avx512_bf16", "bf16", "svebf16"}
"""Names of Linux, for x86 and Arm."""


def resolve_precision(precision: Any, accelerator: Any, automatic: bool) -> Any:
    """Return the Trainer's precision, and report a choice or a slow precision in one line.

    Args:
        precision: `trainer.precision`. A value other than None is never changed.
        accelerator: `trainer.accelerator`.
        automatic: Choose `bf16-mixed` or `32-true` if there is no precision.
    """
    device, has_bf16 = bf16_support(accelerator)
    if precision is None and automatic:
        chosen, has = ("bf16-mixed", "has") if has_bf16 else ("32-true", "has no")
        rank_zero_info(
            f"precision {chosen}: {device} {has} bf16 instructions (trainer.precision overrides it)"
        )
        return chosen
    if device == "the CPU" and not has_bf16 and str(precision).startswith("bf16"):
        rank_zero_warn(
            f"trainer.precision={precision}: {device} has no bf16 instructions and emulates them, "
            "which is slow. Use trainer.precision=32-true."
        )
    return precision


def bf16_support(accelerator: Any) -> tuple[str, bool]:
    """Return the device that an accelerator stands for, and whether it has bf16 instructions."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "MPS", False
    if accelerator in ("auto", "cpu"):
        instructions = CPUINFO.read_text().split() if CPUINFO.is_file() else []
        return "the CPU", not BF16_INSTRUCTIONS.isdisjoint(instructions)
    return f"accelerator {accelerator}", False
