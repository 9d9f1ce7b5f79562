"""Describe the machine: GPU, driver, versions, memory, and the speed of products and copies."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.util import find_spec

import torch

from gpu_steps.console import first_line
from gpu_steps.context import Context, Values, dtype_name, seconds_of
from vaectl.memory import obtainable


def run(context: Context) -> None:
    device = context.device
    context.case("software", software)
    context.case("host", host)
    if device.type == "cuda":
        context.case("GPU", lambda: gpu(device))
        if not context.bfloat16:
            context.leave_out("bfloat16", f"{torch.cuda.get_device_name(device)} does not compute in it")
    else:
        context.leave_out("GPU", "no CUDA GPU is used")
    for dtype in context.dtypes:
        context.case(f"matrix product, {dtype_name(dtype)}", lambda dtype=dtype: product(context, dtype))
    if device.type == "cuda":
        context.case("matrix product, TF32", lambda: product(context, torch.float32, tf32=True))
    context.case("copy on the device", lambda: copy(context))


def software() -> Values:
    packages = ("av", "lpips", "diffusers", "triton")
    return {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "cuDNN": torch.backends.cudnn.version() or "none",
        "missing": ", ".join(name for name in packages if find_spec(name) is None) or "nothing",
    }


def host() -> Values:
    memory = obtainable(torch.device("cpu")) / 2**30
    return {"processor": platform.machine(), "cores": os.cpu_count(), "free GiB": memory}


def gpu(device: torch.device) -> Values:
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "GiB": total / 2**30,
        "free GiB": free / 2**30,
        "driver": driver(),
    }


def driver() -> str:
    """Return the version of the driver from nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({first_line(error)})"
    return (printed.splitlines() or ["unknown"])[0].strip()


def product(context: Context, dtype: torch.dtype, *, tf32: bool = False) -> Values:
    return {"TFLOP/s": product_rate(context, dtype, tf32=tf32) / 1e12}


def product_rate(context: Context, dtype: torch.dtype, *, tf32: bool = False) -> float:
    """Measure the FLOP/s of a large square matrix product, the reference of other steps."""
    size = 256 if context.tiny else 8192
    a, b = (torch.randn(size, size, device=context.device).to(dtype) for _ in range(2))
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return 2 * size**3 / seconds_of(lambda: a @ b, context.device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def copy(context: Context) -> Values:
    """Measure the GB/s of a copy on the device, counting bytes read and written."""
    source = torch.randn((2**20 if context.tiny else 2**30) // 4, device=context.device)
    target = torch.empty_like(source)
    return {"GB/s": 2 * source.nbytes / seconds_of(lambda: target.copy_(source), context.device) / 1e9}
