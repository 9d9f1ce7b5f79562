"""The VAEs of Wan 2.1 and 2.2 (Wan Team 2025), and of Qwen-Image, in the layout of diffusers.

All are causal: convolutions see zeros before the clip, norms see one position, and attention sees one frame. The
first frame is halved and doubled in space alone. Wan 2.2 takes 2x2 patches, and each of its levels has a shortcut that
averages or repeats values.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from torch import Tensor, nn

from vaectl.models.context import StreamContext
from vaectl.models.families.wan_config import AutoencoderKLQwenImageConfig, AutoencoderKLWanConfig, WanConfig
from vaectl.models.families.wan_layers import (
    AttentionBlock,
    AverageDown,
    CausalConv3d,
    Downsample,
    Patchify,
    RepeatUp,
    ResidualBlock,
    RMSNorm,
    Unpatchify,
    Upsample,
)
from vaectl.models.layers import Block, in_order, norm_silu
from vaectl.models.segments import Segment, run_segments
from vaectl.models.vae import VideoVAE


class MidBlock(nn.Module):
    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, dropout) for _ in range(2))
        self.attentions = nn.ModuleList([AttentionBlock(channels)])

    def blocks(self) -> list[nn.Module]:
        return [self.resnets[0], self.attentions[0], self.resnets[1]]


class Level(Block):
    """Blocks and resampling, and in Wan 2.2 a shortcut beside them."""

    avg_shortcut: AverageDown | RepeatUp | None

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the blocks in order."""

    def forward(self, x: Tensor, context: StreamContext) -> Tensor:
        return run_segments(self.segments("x", "y"), x, context)["y"]

    def segments(self, x: str, y: str) -> list[Segment]:
        if self.avg_shortcut is None:
            return in_order(self.blocks(), x, y)
        beside, main = f"{y}.shortcut", f"{y}.main"
        return [
            *self.avg_shortcut.segments(x, beside),
            *in_order(self.blocks(), x, main),
            Segment(lambda h, shortcut, context: h + shortcut, f"{main} {beside}", y),
        ]


class ShortcutDownBlock(Level):
    def __init__(self, in_channels: int, out_channels: int, config: WanConfig, *, space: bool, time: bool) -> None:
        super().__init__()
        self.avg_shortcut = AverageDown(in_channels, out_channels, space=space, time=time)
        self.resnets = res_blocks(in_channels, out_channels, config.num_res_blocks, config.dropout)
        self.downsampler = Downsample(out_channels, time=time) if space else None

    def blocks(self) -> list[nn.Module]:
        return [*self.resnets, *([] if self.downsampler is None else [self.downsampler])]


class ShortcutUpBlock(Level):
    def __init__(self, in_channels: int, out_channels: int, config: WanConfig, *, space: bool, time: bool) -> None:
        super().__init__()
        self.avg_shortcut = RepeatUp(in_channels, out_channels, time=time) if space else None
        self.resnets = res_blocks(in_channels, out_channels, config.num_res_blocks + 1, config.dropout)
        self.upsampler = Upsample(out_channels, out_channels, time=time) if space else None

    def blocks(self) -> list[nn.Module]:
        return [*self.resnets, *([] if self.upsampler is None else [self.upsampler])]


class UpBlock(Level):
    """A level of the decoder of Wan 2.1, whose up-sampling halves the channels."""

    def __init__(self, in_channels: int, out_channels: int, config: WanConfig, *, space: bool, time: bool) -> None:
        super().__init__()
        self.avg_shortcut = None
        self.resnets = res_blocks(in_channels, out_channels, config.num_res_blocks + 1, config.dropout)
        up = [Upsample(out_channels, out_channels // 2, time=time)] if space else []
        self.upsamplers = nn.ModuleList(up)

    def blocks(self) -> list[nn.Module]:
        return [*self.resnets, *self.upsamplers]


def res_blocks(in_channels: int, out_channels: int, count: int, dropout: float) -> nn.ModuleList:
    inputs = [in_channels, *[out_channels] * (count - 1)]
    return nn.ModuleList(ResidualBlock(channels, out_channels, dropout) for channels in inputs)


class Encoder(nn.Module):
    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(config.video_channels, config.base_dim, padding=1)
        self.down_blocks = nn.ModuleList()
        channels = config.base_dim
        for i, width in enumerate(config.encoder_widths):
            space = i < len(config.temperal_downsample)
            time = space and config.temperal_downsample[i]
            if config.has_shortcuts:
                self.down_blocks.append(ShortcutDownBlock(channels, width, config, space=space, time=time))
            else:
                self.down_blocks.extend(res_blocks(channels, width, config.num_res_blocks, config.dropout))
                if space:
                    self.down_blocks.append(Downsample(width, time=time))
            channels = width
        self.mid_block = MidBlock(channels, config.dropout)
        self.norm_out = RMSNorm(channels)
        self.conv_out = CausalConv3d(channels, 2 * config.z_dim, padding=1)

    def segments(self, x: str, y: str) -> list[Segment]:
        return [
            *in_order([self.conv_in, *self.down_blocks, *self.mid_block.blocks()], x, "h"),
            Segment(self.out, "h", y, layer=self.conv_out),
        ]

    def out(self, h: Tensor, context: StreamContext) -> Tensor:
        return self.conv_out(norm_silu(self.norm_out, h, context), context)


class Decoder(nn.Module):
    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = config.decoder_widths
        channels = widths[0]
        self.conv_in = CausalConv3d(config.z_dim, channels, padding=1)
        self.mid_block = MidBlock(channels, config.dropout)
        self.up_blocks = nn.ModuleList()
        kind = ShortcutUpBlock if config.has_shortcuts else UpBlock
        for i, width in enumerate(widths):
            space = i < len(config.temperal_downsample)
            time = space and config.temperal_downsample[-1 - i]
            self.up_blocks.append(kind(channels, width, config, space=space, time=time))
            channels = width if config.has_shortcuts else width // 2
        self.norm_out = RMSNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], config.video_channels, padding=1)

    def segments(self, x: str, y: str) -> list[Segment]:
        return [
            *in_order([self.conv_in, *self.mid_block.blocks()], x, "h"),
            *in_order(self.up_blocks, "h", "h"),
            Segment(self.out, "h", y, layer=self.conv_out),
        ]

    def out(self, h: Tensor, context: StreamContext) -> Tensor:
        return self.conv_out(norm_silu(self.norm_out, h, context), context)


WanFamily = TypeVar("WanFamily", bound=WanConfig)


class WanVAE(VideoVAE[WanFamily]):
    """The network of all these families."""

    def __init__(self, config: WanFamily) -> None:
        super().__init__(config)
        moments, latent = 2 * config.z_dim, config.z_dim
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv3d(moments, moments, 1)
        self.post_quant_conv = CausalConv3d(latent, latent, 1)
        self.decoder = Decoder(config)
        patched = config.patch > 1
        self.patchify = Patchify(config.patch) if patched else None
        self.unpatchify = Unpatchify(config.patch) if patched else None

    def encoder_segments(self) -> list[Segment]:
        return [
            *([] if self.patchify is None else self.patchify.segments("x", "x")),
            *self.encoder.segments("x", "y"),
            *self.quant_conv.segments("y", "y"),
        ]

    def decoder_segments(self) -> list[Segment]:
        return [
            *self.post_quant_conv.segments("x", "x"),
            *self.decoder.segments("x", "y"),
            *([] if self.unpatchify is None else self.unpatchify.segments("y", "y")),
        ]

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder, self.quant_conv]

    def float32_modules(self) -> list[nn.Module]:
        return [self.encoder.conv_out, self.quant_conv, self.decoder.conv_out]

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_out.weight


class AutoencoderKLWan(WanVAE[AutoencoderKLWanConfig]):
    config_class = AutoencoderKLWanConfig


class AutoencoderKLQwenImage(WanVAE[AutoencoderKLQwenImageConfig]):
    config_class = AutoencoderKLQwenImageConfig
