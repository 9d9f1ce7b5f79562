"""Sizes and spatial transforms of frames. Knows only tensors and numbers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def target_size(
    width: int,
    height: int,
    *,
    to_width: int | None = None,
    to_height: int | None = None,
    short_size: int | None = None,
    even: bool = False,
) -> tuple[int, int]:
    """Return the new (width, height) of a frame of `width` x `height` pixels.

    With one side given, the other keeps the aspect ratio, rounded to a pixel; with `even`, to an even number, as 4:2:0
    chroma needs. `short_size` is the shorter side. A frame that fits is unchanged. Raises ValueError if `short_size` is
    combined with another.
    """
    if short_size is not None:
        if to_width is not None or to_height is not None:
            raise ValueError("short_size excludes to_width and to_height")
        to_width, to_height = (short_size, None) if width <= height else (None, short_size)
    if to_width in (None, width) and to_height in (None, height):
        return width, height
    step = 2 if even else 1
    if to_height is None:
        assert to_width is not None
        return to_width, step * _scaled(height, to_width, step * width)
    return to_width if to_width is not None else step * _scaled(width, to_height, step * height), to_height


def resize(frames: Tensor, width: int, height: int) -> Tensor:
    """Centre crop (T, 3, H, W) uint8 to the aspect ratio of `width` x `height`, then resize, antialiased bilinear.

    Computed in float32 and rounded to the nearest of 256 levels. Frames of that size are returned unchanged.
    """
    old_height, old_width = frames.shape[-2:]
    if (old_width, old_height) == (width, height):
        return frames
    crop_width = min(old_width, _scaled(width, old_height, height))
    crop_height = min(old_height, _scaled(height, old_width, width))
    left, top = (old_width - crop_width) // 2, (old_height - crop_height) // 2
    cropped = frames[..., top : top + crop_height, left : left + crop_width]
    return resize_exactly(cropped, width, height).contiguous()


def scale_and_crop(
    frames: Tensor,
    resolution: int | None,
    crop_size: int | None,
    at: tuple[float, float] = (0.5, 0.5),
    *,
    exact: bool = True,
) -> Tensor:
    """Resize the shorter side of (T, 3, H, W) uint8 to `resolution`, then crop a square of `crop_size`. None: neither.

    The protocol of the published tables: antialiased bilinear, computed in float32 and rounded to the nearest of 256
    levels. `at` is the position of the square, from (0, 0), top left, to (1, 1), bottom right. `exact=False` uses 8-bit
    arithmetic: ten times as fast, and within one level. Raises ValueError for a `crop_size` above the shorter side.
    """
    height, width = frames.shape[-2:]
    width, height = target_size(width, height, short_size=resolution)
    if crop_size is not None and crop_size > min(width, height):
        raise ValueError(f"a crop of {crop_size} pixels does not fit into frames of {min(width, height)}")
    scaled = resize_exactly(frames, width, height) if exact else _resize_fast(frames, width, height)
    if crop_size is None:
        return scaled
    top, left = round(at[0] * (height - crop_size)), round(at[1] * (width - crop_size))
    return scaled[..., top : top + crop_size, left : left + crop_size].contiguous()


def resize_exactly(frames: Tensor, width: int, height: int) -> Tensor:
    """Resize (T, 3, H, W) uint8 without keeping the aspect ratio: antialiased bilinear in float32, rounded."""
    if frames.shape[-2:] == (height, width):
        return frames
    resized = frames.new_empty((*frames.shape[:2], height, width))
    for frame, place in zip(frames, resized, strict=True):  # one by one, to limit memory
        for channel, target in zip(frame, place, strict=True):
            values = F.interpolate(channel[None, None].float(), (height, width), mode="bilinear", antialias=True)
            target.copy_(values[0, 0].round_().clamp_(0, 255))
    return resized


def _resize_fast(frames: Tensor, width: int, height: int) -> Tensor:
    return F.interpolate(frames, (height, width), mode="bilinear", antialias=True)


def _scaled(side: int, numerator: int, denominator: int) -> int:
    """Return side * numerator / denominator, rounded, at least 1."""
    return max(1, (2 * side * numerator + denominator) // (2 * denominator))
