"""The metrics by which codecs are compared, computed by filters of FFmpeg: vmaf, vmaf_neg, psnr_y and xpsnr.

The filters get exactly the frames that are compared. `ffmpeg` finds and runs them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vaectl.errors import UsageError, VaectlError, shown
from vaectl.metrics import MetricSettings
from vaectl.metrics.ffmpeg import ANOTHER, INSTALL, PROBE_SECONDS, YUV, FFmpeg, find, programs
from vaectl.metrics.frames import at_least, check_pair
from vaectl.progress import Silent

SMALLEST_VMAF = 32
"""libvmaf crashes for a side of up to 16 pixels. Below 32, earlier versions crash too, or give random numbers."""
SMALLEST_XPSNR = 16
"""A frame with a single column of blocks, as narrow ones have, gets the weight 0 from FFmpeg's filter."""
PIXELS_XPSNR = 45 * 45
"""With fewer, the blocks by which XPSNR weights errors round to 0x0 pixels, and FFmpeg's filter crashes."""
LARGE = 2048 * 1152
"""Above this, the filter xpsnr takes pixels in squares of 2, and leaves the frame if a side is odd."""


@dataclass(frozen=True)
class FilterMetric:
    """A `FrameMetric` that a filter of FFmpeg computes."""

    name: str
    ffmpeg: FFmpeg
    filter: str
    arguments: str
    smallest: int
    read: Callable[[str], list[float]]
    """Returns the number of each frame from what the filter reports."""
    unit: str = "dB"
    better: Literal["higher", "lower"] = "higher"

    def measure(self, real_BTCHW: Tensor, generated_BTCHW: Tensor) -> Tensor:
        check_pair(real_BTCHW, generated_BTCHW)
        self.check_size(real_BTCHW)
        rows = []
        for real, generated in zip(real_BTCHW.cpu(), generated_BTCHW.cpu(), strict=True):
            report = self.ffmpeg.compare(self.filter, self.arguments, real, generated)
            rows.append(_numbers(self.ffmpeg, self.filter, report, self.read, len(real)))
        return torch.tensor(rows, dtype=torch.float64).view(real_BTCHW.shape[:2])

    def check_size(self, frames: Tensor) -> None:
        """Raise UsageError for frames (..., H, W) that are too small, or VaectlError for a width that goes wrong."""
        at_least(self.smallest, frames, self.name)
        height, width = frames.shape[-2:]
        if self.filter == "xpsnr" and height * width < PIXELS_XPSNR:
            least = f"{PIXELS_XPSNR} pixels (45x45)"
            raise UsageError(f"xpsnr needs frames of at least {least}, not {width}x{height}", "give larger ones")
        if self.filter == "xpsnr" and height * width > LARGE and (height % 2 or width % 2):
            raise UsageError(f"xpsnr needs even sides above 2048x1152, not {width}x{height}", "crop the frames")
        if self.filter == "libvmaf":
            _check_width(width)


def _numbers(
    ffmpeg: FFmpeg, filter_name: str, report: str, read: Callable[[str], list[float]], num_frames: int
) -> list[float]:
    """Return the number of each frame. Raises VaectlError for a report that does not have them."""
    try:
        numbers = [number for number in read(report) if not math.isnan(number)]
    except (ValueError, LookupError, TypeError, RecursionError):
        numbers = []
    if len(numbers) != num_frames:
        counts = f"{len(numbers)} of {num_frames} frames" if numbers else "nothing that can be read"
        raise VaectlError(f"{ffmpeg.origin}: its filter {filter_name} reported {counts}", ANOTHER)
    return numbers


def _vmaf(report: str) -> list[float]:
    return [float(frame["metrics"]["vmaf"]) for frame in json.loads(report)["frames"]]


def _psnr_y(report: str) -> list[float]:
    return [float(value) for value in re.findall(r"^lavfi\.psnr\.psnr\.y=(.+)$", report, re.MULTILINE)]


def _xpsnr(report: str) -> list[float]:
    planes = [re.findall(rf"^lavfi\.xpsnr\.xpsnr\.{plane}=(.+)$", report, re.MULTILINE) for plane in "yuv"]
    return [min(map(float, values)) for values in zip(*planes, strict=True)]


def model_of(name: str, vmaf_model: str) -> str:
    """Return the model of vmaf, or of vmaf_neg, by its name in libvmaf."""
    return f"{vmaf_model}neg" if name == "vmaf_neg" else vmaf_model


def _arguments(model: str) -> str:
    return f"model=version={model}:log_fmt=json:n_threads={torch.get_num_threads()}"


class LibVMAF(NamedTuple):
    """The libvmaf that measures."""

    ffmpeg: FFmpeg
    version: str
    exact: bool
    """False: its numbers are wrong at some widths."""
    passed_over: tuple[str, ...] = ()
    """Why others were not taken: they fail, or do not answer."""


@cache
def libvmaf() -> LibVMAF:
    """Return the first libvmaf here whose number of a known pair is right; the first that works if none is.

    libvmaf 3.2.0, which PyAV 19 has, is wrong by up to 17 at some widths on processors with AVX-512. Raises VaectlError
    if no FFmpeg has a libvmaf that works.
    """
    working, errors = [], []
    y, x = torch.meshgrid(torch.arange(128), torch.arange(144), indexing="ij")
    real = (128 + 60 * torch.sin(x / 7) + 50 * torch.cos(y / 5) + (x * 31 + y * 17) % 17 - 8).round().byte()
    pair = real.expand(1, 3, -1, -1), (real // 24 * 24 + 12).expand(1, 3, -1, -1)
    for ffmpeg in find("libvmaf"):
        try:
            report = ffmpeg.compare("libvmaf", _arguments("vmaf_v0.6.1"), *pair, PROBE_SECONDS)
            (number,) = _numbers(ffmpeg, "libvmaf", report, _vmaf, 1)
        except VaectlError as error:
            errors.append(error)
            continue
        release = shown(str(json.loads(report).get("version", "unknown")), 60)
        working.append(LibVMAF(ffmpeg, release, abs(number - 90.188) < 0.5))
        if working[-1].exact:
            break
    if not working:
        raise errors[0]
    chosen = next((each for each in working if each.exact), working[0])
    reasons = [error.problem for error in errors]
    if chosen.ffmpeg.program or not chosen.exact:  # programs were asked
        reasons += [f"{each.origin}: {each.trouble}" for each in programs() if each.trouble]
    return chosen._replace(passed_over=tuple(reasons))


def _check_width(width: int) -> None:
    """Raise VaectlError if the libvmaf here may be wrong for frames of that width."""
    ffmpeg, version, exact, _ = libvmaf()
    if not exact and width < 528 and (width - 1) % 32 < 16:
        raise VaectlError(f"libvmaf {version} of {ffmpeg.origin} is wrong for frames {width} pixels wide", INSTALL)


def provenance(name: str, vmaf_model: str) -> dict[str, Any]:
    """Return what computes the metric `name`, and on what, as plain JSON values."""
    if name.startswith("vmaf"):
        ffmpeg, version, *_ = libvmaf()
        facts = {"model": model_of(name, vmaf_model), "libvmaf": version}
    else:
        ffmpeg, facts = next(find(name.removesuffix("_y"))), {}
    return {**facts, "ffmpeg": ffmpeg.version, "ffmpeg_of": ffmpeg.origin, "frames": YUV}


def _build_vmaf(name: str, settings: MetricSettings) -> FilterMetric:
    for reason in libvmaf().passed_over:
        (settings.progress or Silent()).note(f"{reason}; it is not used")
    arguments = _arguments(model_of(name, settings.vmaf_model))
    metric = FilterMetric(name, libvmaf().ffmpeg, "libvmaf", arguments, SMALLEST_VMAF, _vmaf, unit="")
    flat = torch.zeros(1, 1, 3, SMALLEST_VMAF, SMALLEST_VMAF, dtype=torch.uint8)
    metric.measure(flat, flat)  # fails now rather than at the first clip, if it lacks the model
    return metric


def vmaf(settings: MetricSettings, device: torch.device) -> FilterMetric:
    """Build VMAF. Raises VaectlError if no FFmpeg has libvmaf."""
    return _build_vmaf("vmaf", settings)


def vmaf_neg(settings: MetricSettings, device: torch.device) -> FilterMetric:
    """Build VMAF NEG, in which enhancement gains nothing. Raises VaectlError if no FFmpeg has libvmaf."""
    return _build_vmaf("vmaf_neg", settings)


def psnr_y(settings: MetricSettings, device: torch.device) -> FilterMetric:
    """Build the PSNR of luma, which every FFmpeg has."""
    return FilterMetric("psnr_y", next(find("psnr")), "psnr", "", 1, _psnr_y)


def xpsnr(settings: MetricSettings, device: torch.device) -> FilterMetric:
    """Build XPSNR. Raises VaectlError if no FFmpeg has it."""
    return FilterMetric("xpsnr", next(find("xpsnr")), "xpsnr", "", SMALLEST_XPSNR, _xpsnr)
