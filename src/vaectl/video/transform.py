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
    crop_height, crop_width = (height, width) if crop_size is None else (crop_size, crop_size)
    top, left = round(at[0] * (height - crop_height)), round(at[1] * (width - crop_width))
    rows, columns = slice(top, top + crop_height), slice(left, left + crop_width)
    if exact:
        return resize_exactly(frames, width, height)[..., rows, columns].contiguous()
    return _resize_fast(frames, width, height, columns)[..., rows, :].contiguous()


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


def _resize_fast(frames: Tensor, width: int, height: int, columns: slice) -> Tensor:
    """Resize (T, 3, H, W) uint8 in 8-bit arithmetic, and keep `columns` of the result.

    PyTorch resizes interleaved channels: first the width, then, from the rounded values, the height. To interleave
    planes before, and to separate them again, takes it most of the time. Each direction alone needs less of that.
    """
    num_frames, channels, old_height, old_width = frames.shape
    rows, kept = channels * old_height, columns.stop - columns.start
    if rows % 4 or kept % 4 or not frames.is_contiguous():
        return _interpolate(frames, height, width)[..., columns]
    # Rows do not mix. So they may pass for those of four channels, which PyTorch interleaves in less time than three.
    wide = _interpolate(frames.view(num_frames, 4, rows // 4, old_width), rows // 4, width)[..., columns]
    # Columns do not mix. So four neighbours may pass for a pixel of four channels, which is interleaved already.
    pixels = wide.reshape(num_frames * channels, old_height, kept // 4, 4).permute(0, 3, 1, 2)
    high = _interpolate(pixels, height, kept // 4).permute(0, 2, 3, 1)
    return high.reshape(num_frames, channels, height, kept)


def _interpolate(frames: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(frames, (height, width), mode="bilinear", antialias=True)


def _scaled(side: int, numerator: int, denominator: int) -> int:
    """Return side * numerator / denominator, rounded, at least 1."""
    return max(1, (2 * side * numerator + denominator) // (2 * denominator))
