"""Device and precision of a model: the meaning of `auto`, and checks that the machine has the device."""

from __future__ import annotations

import torch
from torch import nn

from vaectl.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHORT = {"fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
"""Other names, of published commands and of PyTorch."""
NARROW = 256
"""Channels. Wider convolutions need fewer products in float32 (see `winograd`), so bfloat16 gains little there."""


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device; `auto` is the first CUDA GPU if there is one, else the CPU.

    Also turns off TF32, so float32 on a GPU means float32. By default convolutions use TF32, and matrix products if the
    environment sets TORCH_ALLOW_TF32_CUBLAS_OVERRIDE. Raises UsageError if the device does not exist.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise UsageError(f"device {device}: unknown", "must be auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {chosen}: PyTorch sees no CUDA GPU here", "use `device=cpu` or install a CUDA build")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {chosen}: there are only {torch.cuda.device_count()} GPUs, counted from 0")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {chosen}: PyTorch sees no Apple GPU here", "use `device=cpu`")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device, *, low_memory: bool = False) -> torch.dtype:
    """Return the precision; `auto` is bfloat16 on GPUs that support it, else float32 (`low_memory`: float16 on GPUs).

    `vaectl reconstruct` also uses bfloat16 on a CPU, where `is_faster_in_bfloat16`.

    Names are those of PyTorch, or fp32, bf16, fp16, half. Raises UsageError for an unknown name, or if the dtype is not
    of floating-point numbers.
    """
    if dtype == "auto":
        native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        if native:
            return torch.bfloat16
        return torch.float16 if low_memory and device.type != "cpu" else torch.float32
    name = str(dtype).removeprefix("torch.")
    chosen = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(SHORT.get(name, name))
    if chosen is None or not chosen.is_floating_point:
        raise UsageError(f"dtype {name}: unknown", f"must be auto, {', '.join(DTYPES)}")
    return chosen


def is_faster_in_bfloat16(model: nn.Module) -> bool:
    """Whether a model on a CPU is much faster in bfloat16: one of narrow convolutions, on a CPU that multiplies it."""
    weights = [weight for weight in model.parameters() if weight.ndim >= 4]
    return (
        all(weight.device.type == "cpu" and min(weight.shape[:2]) < NARROW for weight in weights)
        and multiplies_bfloat16()
    )


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16. Others emulate it. Old versions of PyTorch cannot tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
