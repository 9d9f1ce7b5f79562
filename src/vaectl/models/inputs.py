"""Check what a caller gives to a model: a video or a latent, (B, C, T, H, W) as floats.

An error says what is wanted, what was given, and the expression that converts it. Knows no network.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaectl.arrays import LARGEST, beyond, describe
from vaectl.errors import UsageError

EVERY = 8
"""The range is checked in one row and one column of 8: in full, it would take 20 times as long."""
LAYOUTS = {
    5: {1: "", 2: ".transpose(1, 2)", 4: ".permute(0, 4, 1, 2, 3)"},
    4: {0: "[None]", 1: ".transpose(0, 1)[None]", 3: ".permute(3, 0, 1, 2)[None]"},
    3: {0: "[None, :, None]", 2: ".permute(2, 0, 1)[None, :, None]"},
}
"""Number of dimensions -> the dimension of the channels -> how to make it (B, C, T, H, W)."""
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


Self = TypeVar("Self", bound="VideoClip")


@runtime_checkable
class VideoClip(Protocol):
    """A clip that gives its frames as model input: a `vaectl.video.Clip`."""

    def video(self) -> Tensor: ...
    def with_video(self: Self, video_BCTHW: Tensor) -> Self: ...


def check_video(video: object, channels: int) -> Tensor:
    """Return a video (B, `channels`, T, H, W) in [-1, 1], or that of a clip. Raises UsageError for anything else.

    Values up to 255 and NaN are found, in a sample of the values. Values from 0 to 1 are not, because a bright video in
    [-1, 1] may have only those.
    """
    if not isinstance(video, Tensor) and isinstance(video, VideoClip):
        video = video.video()
    values = ""
    if isinstance(video, Tensor) and fits(video, channels):
        if largest(video) <= LARGEST:
            return video
        values = beyond(float(video.detach().abs().amax()))
    wanted = f"a video must be a float tensor (B, {channels}, T, H, W) in [-1, 1]"
    raise UsageError(f"{wanted}, not {describe(video)}{values}", remedy(video, "video", channels))


def check_latent(latent: object, channels: int) -> Tensor:
    """Return a latent (B, `channels`, t, h, w). Raises UsageError for anything else."""
    wanted = f"a latent must be a float tensor (B, {channels}, t, h, w)"
    if isinstance(latent, Tensor) and fits(latent, channels):
        if math.isfinite(largest(latent)):
            return latent
        raise UsageError(f"{wanted}, not {describe(latent)} with NaN or infinity", "try `dtype=float32`")
    raise UsageError(f"{wanted}, not {describe(latent)}", remedy(latent, "latent", channels))


def fits(x: Tensor, channels: int) -> bool:
    return x.dtype in FLOATS and is_plain(x) and x.ndim == 5 and x.shape[1] == channels and 0 not in x.shape[2:]


def is_plain(x: Tensor) -> bool:
    return x.layout == torch.strided and not x.is_nested


def largest(x: Tensor) -> float:
    """Return the largest magnitude of a sample of the values; 0 if they cannot be read: compiling, or without data."""
    if torch.compiler.is_compiling() or type(x) is not Tensor or x.device.type not in ("cpu", "cuda", "mps"):
        return 0.0
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return 0.0
    return float(x.detach()[..., ::EVERY, ::EVERY].abs().amax()) if x.numel() else 0.0


def remedy(given: Any, name: str, channels: int) -> str:
    """Return how to convert `given`, which is called `name` there; "" if that is not clear."""
    if isinstance(given, str | Path):
        return "convert it: vaectl.read_video(video)" if name == "video" else ""
    if name == "latent" and hasattr(given, "logvar"):
        return "convert it: latent.mode()"
    several = isinstance(given, list | tuple) and len(given) > 0
    try:
        parts = [part if isinstance(part, Tensor) else np.asarray(part) for part in (given if several else [given])]
    except ValueError:  # lists of lists of different lengths
        return ""
    first = parts[0]
    if other := next((tuple(part.shape) for part in parts if part.shape != first.shape), None):
        return f"give frames of one size, not {tuple(first.shape)} and {other}"
    if isinstance(first, Tensor):
        odd = not is_plain(first) or first.is_complex() or first.dtype == torch.bool
        odd = odd or (first.is_floating_point() and first.dtype not in FLOATS)
    else:
        odd = first.dtype.kind in "bc"
    if odd:
        return "give a dense tensor of float32, bfloat16 or float16, with values"
    how = conversion(first, len(given) if several else 0, isinstance(given, np.ndarray), name, channels)
    return how and f"convert it: {how}"


def conversion(first: Tensor | NDArray[Any], count: int, is_array: bool, name: str, channels: int) -> str:
    """Return the expression that converts `first`, or a list of `count` like it; "" if that is not clear."""
    shape = (*([count] if count else []), *first.shape)
    ways = LAYOUTS.get(len(shape), {})
    axes = [axis for axis in ways if shape[axis] == channels]
    if len(shape) == 5 and 1 in axes:
        axes = [1]
    if len(axes) != 1 or 0 in shape:
        return ""
    if isinstance(first, Tensor):
        values, is_float = first.detach().float(), first.is_floating_point()
        start = f"torch.stack({name})" if count else name
    elif first.dtype.kind not in "fiu":
        return ""
    else:
        values, is_float = torch.from_numpy(first.astype(np.float32)), first.dtype.kind == "f"
        array = name if is_array else f"np.{'stack' if count else 'asarray'}({name})"
        if first.itemsize > 8 or (is_array and not (first.dtype.isnative and min(first.strides) >= 0)):
            array = f"np.ascontiguousarray({array}, np.float32)"
        start = f"torch.from_numpy({array})"
    start += ways[axes[0]]
    peak = largest(values)
    if is_float and (peak <= LARGEST or name == "latent"):
        return start
    eight_bit = name == "video" and peak <= 255 and values.min() >= 0
    return f"{start}{'' if is_float else '.float()'} / 127.5 - 1" if eight_bit else ""
