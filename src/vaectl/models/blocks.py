"""Residual and attention blocks that several families share, with the parameter names of the published checkpoints."""

from __future__ import annotations

from typing import ClassVar

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.context import StreamContext
from vaectl.models.layers import Block, CausalConv3d, Conv2d, Layer, add, clip_norm, frame_norm, norm_silu
from vaectl.models.segments import Segment, run_segments


class ResnetBlock(Layer):
    """Twice norm, SiLU and convolution, plus the input."""

    norm1: nn.Module
    conv1: Layer
    norm2: nn.Module
    dropout: nn.Dropout
    conv2: Layer
    shortcut_name: ClassVar[str] = "nin_shortcut"
    """The name of the convolution of the input. It is None if the number of channels does not change."""

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return self.second(self.first(x, context), context.crop_halo(x, self.input_halo(0)), context)

    def segments(self, x: str, y: str) -> list[Segment]:
        return [
            Segment(self.first, x, f"{y}.branch", layer=self.conv1, norm=self.norm1, block=self),
            Segment(self.second, f"{y}.branch {x}", y, layer=self.conv2, norm=self.norm2, block=self),
        ]

    def first(self, x: Tensor, context: StreamContext) -> Tensor:
        return self.conv1(norm_silu(self.norm1, x, context), context)

    def second(self, h: Tensor, x: Tensor, context: StreamContext) -> Tensor:
        h = self.conv2(self.dropout(norm_silu(self.norm2, h, context)), context)
        shortcut: Layer | None = getattr(self, self.shortcut_name)
        return add(h, x if shortcut is None else shortcut(x, context))

    def input_halo(self, halo: int) -> int:
        return self.conv1.input_halo(self.conv2.input_halo(halo))


class ResnetBlock2D(ResnetBlock):
    """A `ResnetBlock` with 3x3 convolutions of single frames."""

    def __init__(self, in_channels: int, out_channels: int, norm_type: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = frame_norm(norm_type, in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = frame_norm(norm_type, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None


class ResnetBlock3D(ResnetBlock):
    """A `ResnetBlock` with causal 3x3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, norm_type: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = clip_norm(norm_type, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, padding=1)
        self.norm2 = clip_norm(norm_type, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = CausalConv3d(in_channels, out_channels, 1) if in_channels != out_channels else None


class Attention(Block):
    """Norm and single-head self-attention, plus the input; q, k, v and the output are causal 1x1x1 convolutions.

    `AttnBlock3DFix` attends over the H·W positions of each frame. `AttnBlock3D`, in old checkpoints, reshapes
    (B, C, T, H, W) to (B·T, C, N) without a permutation first. For T > 1 this mixes channels and frames, as in the
    training of those checkpoints.
    """

    def __init__(self, kind: str, channels: int, norm_type: str) -> None:
        super().__init__()
        self.mixes_frames = kind == "AttnBlock3D"
        self.norm = clip_norm(norm_type, channels)
        self.q = CausalConv3d(channels, channels, 1)
        self.k = CausalConv3d(channels, channels, 1)
        self.v = CausalConv3d(channels, channels, 1)
        self.proj_out = CausalConv3d(channels, channels, 1)

    def segments(self, x: str, y: str) -> list[Segment]:
        if not self.mixes_frames:
            return [Segment(self.in_frames, x, y, sees="frame", norm=self.norm, block=self)]
        q, k, v, h = (f"{y}.{name}" for name in "qkvh")
        return [
            Segment(self.projections, x, f"{q} {k} {v}", norm=self.norm, block=self),
            Segment(attend, f"{q} {k} {v}", h, sees="clip", view=lambda b, c, t, h, w: (b * t, c, h * w), block=self),
            Segment(self.added, f"{h} {x}", y, block=self),
        ]

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return run_segments(self.segments("x", "y"), x, context)["y"]

    def in_frames(self, x: Tensor, context: StreamContext) -> Tensor:
        return self.added(attend_in_frames(*self.projections(x, context)), x, context)

    def projections(self, x: Tensor, context: StreamContext) -> tuple[Tensor, Tensor, Tensor]:
        h = self.norm(x, context)
        return self.q(h, context), self.k(h, context), self.v(h, context)

    def added(self, h: Tensor, x: Tensor, context: StreamContext) -> Tensor:
        return x + self.proj_out(h, context)


def attend_in_frames(q_BCTHW: Tensor, k_BCTHW: Tensor, v_BCTHW: Tensor) -> Tensor:
    """Self-attention over the positions of each frame, (B, C, T, H, W)."""
    b, _, t, h, w = q_BCTHW.shape
    # With an explicit head dimension, because PyTorch's fused kernels take no 3-D input. Other kernels hold the scores
    # of all pairs of positions in memory.
    q, k, v = (rearrange(x, "b c t h w -> (b t) 1 (h w) c") for x in (q_BCTHW, k_BCTHW, v_BCTHW))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "(b t) 1 (h w) c -> b c t h w", b=b, t=t, h=h, w=w)


def attend(q_PCN: Tensor, k_PCN: Tensor, v_PCN: Tensor, context: StreamContext) -> Tensor:
    """Self-attention over N positions in each of P planes, (P, C, N)."""
    # Contiguous, also for the fused kernels.
    q, k, v = (x[:, None].mT.contiguous() for x in (q_PCN, k_PCN, v_PCN))
    return F.scaled_dot_product_attention(q, k, v)[:, 0].mT


RESNET_BLOCKS: dict[str, type[ResnetBlock2D] | type[ResnetBlock3D]] = {
    "ResnetBlock2D": ResnetBlock2D,
    "ResnetBlock3D": ResnetBlock3D,
}
