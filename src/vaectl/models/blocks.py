"""Residual and attention blocks of both model families, with the published parameter names."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.models.context import Piece
from vaectl.models.layers import CausalConv3d, Conv2d, Layer, clip_norm, frame_norm, silu


class ResnetBlock2D(Layer):
    """norm, SiLU, 3x3 convolution, twice, plus the input; every frame an image of its own."""

    def __init__(self, in_channels: int, out_channels: int, norm_type: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = frame_norm(norm_type, in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = frame_norm(norm_type, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return residual(self, x, piece)

    def margin_before(self, margin: int) -> int:
        return self.conv1.margin_before(self.conv2.margin_before(margin))


class ResnetBlock3D(Layer):
    """norm, SiLU, causal 3x3x3 convolution, twice, plus the input."""

    def __init__(self, in_channels: int, out_channels: int, norm_type: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = clip_norm(norm_type, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, padding=1)
        self.norm2 = clip_norm(norm_type, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = CausalConv3d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        return residual(self, x, piece)

    def margin_before(self, margin: int) -> int:
        return self.conv1.margin_before(self.conv2.margin_before(margin))


def residual(block: ResnetBlock2D | ResnetBlock3D, x: Tensor, piece: Piece) -> Tensor:
    """What both kinds of block compute."""

    def first(x: Tensor, piece: Piece) -> Tensor:
        return block.conv1.forward(silu(block.norm1(x, piece)), piece)

    def second(h: Tensor, x: Tensor, piece: Piece) -> Tensor:
        h = block.conv2.forward(block.dropout(silu(block.norm2(h, piece))), piece)
        x = piece.match(x, h)
        return h + (x if block.nin_shortcut is None else block.nin_shortcut.forward(x, piece))

    h = piece.stage(first, x, margin=block.conv1.margin_before(0))
    return piece.stage(second, h, x, margin=block.conv2.margin_before(0))


class Attention(nn.Module):
    """Norm, single-head self-attention, plus the input; q, k, v and the output by causal 1x1x1 convolutions.

    `AttnBlock3DFix`: over the H·W positions of each frame. `AttnBlock3D`, of old checkpoints: the same after
    (B, C, T, H, W) was reshaped, not permuted, to (B·T, C, N). For T > 1 this mixes channels and frames. It is what
    those checkpoints were trained with.
    """

    def __init__(self, kind: str, channels: int, norm_type: str) -> None:
        super().__init__()
        self.whole_clip = kind == "AttnBlock3D"
        self.norm = clip_norm(norm_type, channels)
        self.q = CausalConv3d(channels, channels, 1)
        self.k = CausalConv3d(channels, channels, 1)
        self.v = CausalConv3d(channels, channels, 1)
        self.proj_out = CausalConv3d(channels, channels, 1)

    def forward(self, x: Tensor, piece: Piece) -> Tensor:
        if not self.whole_clip:
            return piece.stage(self.in_frames, x, whole_frames=True)
        q, k, v = piece.stage(self.projections, x)
        return piece.stage(self.added, piece.reshaped(attend, q, k, v), x)

    def in_frames(self, x: Tensor, piece: Piece) -> Tensor:
        return self.added(attend_in_frames(*self.projections(x, piece)), x, piece)

    def projections(self, x: Tensor, piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
        h = self.norm(x, piece)
        return self.q.forward(h, piece), self.k.forward(h, piece), self.v.forward(h, piece)

    def added(self, h: Tensor, x: Tensor, piece: Piece) -> Tensor:
        return x + self.proj_out.forward(h, piece)


def attend_in_frames(q_BCTHW: Tensor, k_BCTHW: Tensor, v_BCTHW: Tensor) -> Tensor:
    """Attention over the positions of each frame."""
    b, _, t, h, w = q_BCTHW.shape
    # The head is a dimension of its own: PyTorch's fused kernels take no 3-D input, and without them the scores of all
    # pairs of positions stand in memory.
    q, k, v = (rearrange(x, "b c t h w -> (b t) 1 (h w) c") for x in (q_BCTHW, k_BCTHW, v_BCTHW))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "(b t) 1 (h w) c -> b c t h w", b=b, t=t, h=h, w=w)


def attend(q_BCN: Tensor, k_BCN: Tensor, v_BCN: Tensor) -> Tensor:
    """Attention over N positions."""
    # Contiguous, again for the fused kernels.
    q, k, v = (x[:, None].mT.contiguous() for x in (q_BCN, k_BCN, v_BCN))
    return F.scaled_dot_product_attention(q, k, v)[:, 0].mT


RESNET_BLOCKS: dict[str, type[ResnetBlock2D] | type[ResnetBlock3D]] = {
    "ResnetBlock2D": ResnetBlock2D,
    "ResnetBlock3D": ResnetBlock3D,
}
