"""The Triton kernel of `fused_norm.py`. Importing it needs Triton, which CUDA builds of PyTorch bring along."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def norm_silu_kernel(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    root,
    eps,
    LAYER_NORM: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Compute `ROWS` rows of `channels` values. `root` is the square root of `channels`, `CHANNELS` its power of 2."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, CHANNELS)
    within = column < channels
    inside = (row < rows)[:, None] & within[None, :]
    place = row[:, None] * channels + column[None, :]
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=within, other=0.0).to(tl.float32)
    if LAYER_NORM:
        x = tl.where(inside, x - (tl.sum(x, 1) / channels)[:, None], 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(x * x, 1) / channels + eps)
        bias = tl.load(bias_ptr + column, mask=within, other=0.0).to(tl.float32)
        y = x * scale[:, None] * weight[None, :] + bias[None, :]
    else:
        scale = root / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), eps)
        y = x * scale[:, None] * weight[None, :]
    y = y * tl.sigmoid(y)
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=inside)
