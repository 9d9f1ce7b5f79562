"""Where a model runs and in which precision: what `auto` means, and what this machine does not have."""

from __future__ import annotations

import torch

from vaectl.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is the first CUDA GPU if there is one, else the CPU. Raises UsageError for a device that is not there.

    On a GPU float32 means float32 from then on. Convolutions round to TF32 by default, and products where the
    environment asks for it (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE).
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device {device}: unknown", "must be auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {chosen}: PyTorch sees no CUDA GPU here", "use `device=cpu` or install a CUDA build")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {chosen}: there are only {torch.cuda.device_count()} GPUs, counted from 0")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {chosen}: PyTorch sees no Apple GPU here", "use `device=cpu`")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device, *, low_memory: bool = False) -> torch.dtype:
    """`auto` is bfloat16 on GPUs that compute in it, else float32, or for `low_memory` float16 on any other GPU."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        if native:
            return torch.bfloat16
        return torch.float16 if low_memory and device.type != "cpu" else torch.float32
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype}: unknown", f"must be auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]
