"""Turn arrays and lists of frames, as other tools give them, into clips. Opens no file.

Frames are uint8 (T, H, W, 3) or (T, 3, H, W), or a list of them or of PIL images. A video is float (3, T, H, W) or
(1, 3, T, H, W) in [-1, 1], as models take it. Other floats are an error, because most tools mean [0, 1] by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaectl.arrays import beyond, describe
from vaectl.errors import UsageError
from vaectl.video.clip import Clip, to_frames

Frames: TypeAlias = Clip | Tensor | NDArray[Any] | Sequence[Any]
"""What `frames_of` takes."""
WANTED = "frames must be uint8 (T, H, W, 3) or (T, 3, H, W), or a float video (3, T, H, W) in [-1, 1]"


def clip_of(video: Frames, fps: float | Fraction | str | None = None) -> Clip:
    """Return frames or a video as a clip of `fps` frames per second. A clip without `fps` is returned as it is.

    Raises as `frames_of` does, and UsageError for an array of several frames without `fps`.
    """
    frames = frames_of(video)
    if isinstance(video, Clip) and fps is None:
        return video
    if fps is None and len(frames) > 1:
        raise UsageError("`fps` is missing: arrays have no frame rate", "pass `fps=25`, or the rate of the source")
    return Clip.from_frames(frames, 1 if fps is None else fps)


def frames_of(video: Frames) -> Tensor:
    """Return the frames of a clip, an array or a list: (T, 3, H, W) uint8. Raises UsageError for anything else."""
    if isinstance(video, Clip):
        if 0 in video.frames.shape:
            raise UsageError(f"a clip must have at least 1 frame and 1 pixel, not {describe(video.frames)}")
        return video.frames
    given = stacked(video) if isinstance(video, list | tuple) else tensor_of(video)
    if given is None or 0 in given.shape or given.layout != torch.strided or given.is_meta:
        raise UsageError(f"{WANTED}, not {describe(video)}")
    if given.is_floating_point():
        return frames_of_floats(given.detach(), describe(video))
    axes = [axis for axis in (1, 3) if given.ndim == 4 and given.shape[axis] == 3]
    if given.dtype != torch.uint8 or not axes:
        raise UsageError(f"{WANTED}, not {describe(video)}")
    if len(axes) == 2:
        raise UsageError(
            f"{describe(video)} may be (T, H, W, 3) or (T, 3, H, W)",
            "give a clip: vaectl.Clip.from_frames takes a tensor (T, 3, H, W)",
        )
    return given if axes == [1] else given.permute(0, 3, 1, 2)


def frames_of_floats(video: Tensor, called: str) -> Tensor:
    """Return the frames of a video in [-1, 1], which messages describe as `called`."""
    single = video[None] if video.ndim == 4 else video
    if single.ndim != 5 or single.shape[:2] != (1, 3):
        several = single.ndim == 5 and single.shape[1] == 3
        how = "give one clip at a time" if several else "convert [0, 1] with (frames * 255).round() to uint8"
        raise UsageError(f"{WANTED}, not {called}", how)
    if fault := beyond(peak := float(single.float().abs().amax())):
        raise UsageError(f"{WANTED}, not {called}{fault}", "convert it to uint8" if peak == peak else "")
    return to_frames(single)


def stacked(frames: Sequence[Any]) -> Tensor | None:
    """Return a list of frames of one size as a tensor; None if they are no arrays or images."""
    given = [tensor_of(frame) for frame in frames]
    tensors = [frame for frame in given if frame is not None and frame.ndim == 3]
    if not tensors or len(tensors) < len(given):
        return None
    for number, frame in enumerate(tensors):
        if frame.shape != tensors[0].shape or frame.dtype != tensors[0].dtype:
            raise UsageError(f"frame {number} is {describe(frame)}, but frame 0 is {describe(tensors[0])}")
    return torch.stack(tensors)


def tensor_of(array: object) -> Tensor | None:
    """Return an array or a PIL image as a tensor; None if it is no array of numbers."""
    if isinstance(array, Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind not in "fiub" or values.itemsize > 8:
        return None
    # Also reversed colours, read-only memory, and another byte order.
    return torch.from_numpy(np.require(values, values.dtype.newbyteorder("="), ["C", "W"]))
