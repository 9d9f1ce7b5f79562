"""Check what a caller gives to a model: a video or a latent, (B, C, T, H, W) as floats.

An error says what is wanted, what was given, and the expression that converts it. Knows no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from vaectl.arrays import LARGEST, describe
from vaectl.errors import UsageError

EVERY = 8
"""The range is checked in one row and one column of 8: in full, it would take 20 times as long."""
LAYOUTS = {
    5: {1: "", 2: ".transpose(1, 2)", 4: ".permute(0, 4, 1, 2, 3)"},
    4: {0: "[None]", 1: ".transpose(0, 1)[None]", 3: ".permute(3, 0, 1, 2)[None]"},
    3: {0: "[None, :, None]", 2: ".permute(2, 0, 1)[None, :, None]"},
}
"""Number of dimensions -> the dimension of the channels -> how to make it (B, C, T, H, W)."""


Self = TypeVar("Self", bound="VideoClip")


@runtime_checkable
class VideoClip(Protocol):
    """A clip that gives its frames as model input: a `vaectl.video.Clip`."""

    def video(self) -> Tensor: ...
    def with_video(self: Self, video_BCTHW: Tensor) -> Self: ...


def check_video(video: object, channels: int) -> Tensor:
    """Return a video (B, `channels`, T, H, W) in [-1, 1], or that of a clip. Raises UsageError for anything else.

    Values up to 255 are found. Values from 0 to 1 are not, because a bright video in [-1, 1] may have only those.
    """
    if not isinstance(video, Tensor) and isinstance(video, VideoClip):
        return video.video()
    values = ""
    if isinstance(video, Tensor) and fits(video, channels):
        if not largest(video) > LARGEST:
            return video
        values = f" with values up to {float(video.detach().abs().amax()):g}"
    wanted = f"a video must be a float tensor (B, {channels}, T, H, W) in [-1, 1]"
    raise fault(f"{wanted}, not {describe(video)}{values}", conversion(video, "video", channels))


def check_latent(latent: object, channels: int) -> Tensor:
    """Return a latent (B, `channels`, t, h, w). Raises UsageError for anything else."""
    if isinstance(latent, Tensor) and fits(latent, channels):
        return latent
    wanted = f"a latent must be a float tensor (B, {channels}, t, h, w)"
    how = "latent.mode()" if hasattr(latent, "logvar") else conversion(latent, "latent", channels)
    raise fault(f"{wanted}, not {describe(latent)}", how)


def fault(problem: str, how: str) -> UsageError:
    return UsageError(problem, how and f"convert it: {how}")


def fits(x: Tensor, channels: int) -> bool:
    return x.ndim == 5 and x.shape[1] == channels and 0 not in x.shape[2:] and x.is_floating_point()


def largest(x: Tensor) -> float:
    """Return the largest magnitude of a sample of the values; 0 if they cannot be read: compiling, or without data."""
    if torch.compiler.is_compiling() or type(x) is not Tensor or x.device.type not in ("cpu", "cuda", "mps"):
        return 0.0
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return 0.0
    return float(x.detach()[..., ::EVERY, ::EVERY].abs().amax()) if x.numel() else 0.0


def conversion(given: Any, name: str, channels: int) -> str:
    """Return the expression that converts `given`, which is called `name` there; "" if that is not clear."""
    if isinstance(given, str | Path):
        return "vaectl.read_video(video)" if name == "video" else ""
    several = isinstance(given, list | tuple) and len(given) > 0
    first = given[0] if several else given
    shape = (*([len(given)] if several else []), *np.shape(first))
    ways = LAYOUTS.get(len(shape), {})
    axes = [axis for axis in ways if shape[axis] == channels]
    if len(shape) == 5 and 1 in axes:
        axes = [1]
    if len(axes) != 1 or 0 in shape:
        return ""
    way = ways[axes[0]]
    if isinstance(first, Tensor):
        tensor, start = first, f"torch.stack({name})" if several else name
    else:
        tensor = torch.from_numpy(np.array(first))
        array = name if isinstance(given, np.ndarray) else f"np.{'stack' if several else 'asarray'}({name})"
        start = f"torch.from_numpy({array})"
    peak = largest(tensor.float())
    if tensor.is_floating_point() and (peak <= LARGEST or name == "latent"):
        return start + way
    eight_bit = name == "video" and peak <= 255 and tensor.min() >= 0 and tensor.dtype != torch.bool
    return f"{start}{way}{'' if tensor.is_floating_point() else '.float()'} / 127.5 - 1" if eight_bit else ""
