"""Versions of vaectl and its dependencies, and the hardware. For records and bug reports.

Imports large libraries only when they are needed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from vaectl.memory import format_size, obtainable

NAMES = {
    "torch": "PyTorch",
    "numpy": "NumPy",
    "av": "PyAV",
    "scipy": "SciPy",
    "lpips": "LPIPS",
    "tensorboard": "TensorBoard",
    "typer": "Typer",
    "rich": "Rich",
    "pydantic": "Pydantic",
}


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package. That of PyTorch includes the build, for example 2.15.0+cu132.

    Raises PackageNotFoundError for a package that is not installed.
    """
    return {package: _torch() if package == "torch" else version(package) for package in packages}


def summary() -> str:
    """Return the versions that matter most for a bug report, in two lines. Imports no large library."""
    system = f"{platform.system()} {platform.machine()}"
    return (
        f"vaectl {_installed('vaectl')}\n"
        f"Python {platform.python_version()}, PyTorch {_torch_build()}, PyAV {_installed('av')}, {system}"
    )


def environment() -> Iterator[tuple[str, str]]:
    """Yield name and version of vaectl, Python, the OS, the dependencies and FFmpeg, then CPU, memory and GPUs.

    Raises nothing: the value of a package that cannot be imported is its error.
    """
    yield "vaectl", _installed("vaectl")
    yield "Python", f"{platform.python_version()}, {platform.python_implementation()}"
    yield "OS", _system()
    yield "PyTorch", _tried(_pytorch, "torch")
    yield "torchvision", _installed("torchvision")
    yield "NumPy", _installed("numpy")
    yield "PyAV", _installed("av")
    yield "FFmpeg", _tried(_ffmpeg, "av")
    for package in sorted(_needed() - {"torch", "numpy", "av"}):
        yield NAMES.get(package, package), _installed(package)
    yield "CPU", _cpu()
    yield "Memory", _tried(_memory, "torch")
    try:
        yield from _gpus()
    except Exception as error:
        yield "GPU", f"cannot be queried: {error}"


def _needed() -> set[str]:
    """Names of the required packages."""
    lines = [line for line in requires("vaectl") or () if "extra ==" not in line and "python_version" not in line]
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _tried(describe: Callable[[], str], package: str) -> str:
    try:
        return describe()
    except Exception as error:  # a build for another machine fails in many ways
        return f"{_installed(package)}, cannot be imported: {type(error).__name__}: {error}"


def _torch() -> str:
    import torch

    return torch.__version__


def _torch_build() -> str:
    """Return the version of PyTorch with its build, from its files, without the second that an import takes."""
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    found = re.search(r"^__version__ = '(.+)'", file.read_text(), re.MULTILINE) if file and file.is_file() else None
    return found[1] if found else _installed("torch")


def _pytorch() -> str:
    import torch

    hip = getattr(torch.version, "hip", None)
    build = f"ROCm {hip}" if hip else f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return f"{torch.__version__}, {build} build" + (f", cuDNN {cudnn}" if cudnn else "")


def _ffmpeg() -> str:
    import av
    from av.filter import filters_available

    libraries = (f"{name} {'.'.join(map(str, number))}" for name, number in av.library_versions.items())
    vmaf = "with" if "libvmaf" in filters_available else "without"
    return f"{av.ffmpeg_version_info}, {vmaf} libvmaf ({', '.join(libraries)})"


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # no Linux
        name = ""
    return f"{name}, {platform.platform()}" if name else platform.platform()


def _memory() -> str:
    import torch

    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{format_size(total)}, {format_size(obtainable(torch.device('cpu')))} available"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    name = model[1] if model else platform.processor() or platform.machine()
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return f"{name}, {cores} logical cores" + (f", {usable} usable" if usable != cores else "")


def _gpus() -> Iterator[tuple[str, str]]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    driver = _nvidia_driver()
    for number in range(count):
        gpu = torch.cuda.get_device_properties(number)
        yield f"GPU {number}", f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB"
    if torch.backends.mps.is_available():
        yield "GPU", "Apple (MPS)"
    elif not count:
        yield "GPU", "none that PyTorch can use"
    if driver or count:
        yield "GPU driver", driver or "unknown"


def _nvidia_driver() -> str | None:
    """Version of the NVIDIA driver; None without a driver or nvidia-smi."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[0] if answer else None
