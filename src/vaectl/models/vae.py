"""A causal video VAE, whatever its family: encode, decode, and a clip of any length and size there and back.

Knows tensors only. The families (`families/`) give the two networks as lists of segments; how they run within a memory
limit is in `tiling/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaectl.errors import UsageError
from vaectl.models.compiled import compiled
from vaectl.models.config import FamilyConfig
from vaectl.models.context import StreamContext
from vaectl.models.inputs import VideoClip, check_latent, check_video
from vaectl.models.posterior import Posterior
from vaectl.models.segments import Segment, by_block, run_segments

Outputs = tuple[Tensor, tuple[Tensor, ...]]
Config = TypeVar("Config", bound=FamilyConfig)
Video = TypeVar("Video", bound=Tensor | VideoClip)
"""A tensor, or a clip."""


class VideoVAE(nn.Module, ABC, Generic[Config]):
    """Video (B, 3, T, H, W) in [-1, 1], to latents (B, C, 1 + n, h, w) and back."""

    config_class: ClassVar[type[FamilyConfig]]
    in_channels: ClassVar[int] = 3
    features: ClassVar[tuple[str, ...]] = ()
    """Values of both networks that a training objective may ask for, by their names in the segments."""

    compiled: tuple[Callable[..., Outputs], Callable[..., Outputs]] | None = None
    """Both networks, once `compile` was called: they take and return what `run_encoder` does."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def encoder_segments(self) -> list[Segment]:
        """From the video "x" to moments "y" (B, 2C, t, h, w)."""

    @abstractmethod
    def decoder_segments(self) -> list[Segment]:
        """From the latent "x" to the video "y"."""

    @abstractmethod
    def encoder_modules(self) -> list[nn.Module]:
        """Return the modules that encode, which training can freeze."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight of the decoder's last convolution, which sets the adaptive weight of the adversarial term."""

    def float32_modules(self) -> list[nn.Module]:
        """Return the modules that stay in float32 in a model of half precision: their rounding would dominate."""
        return []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VideoVAE[Config]:
        """Move or convert the model, as all methods of `nn.Module` do. `float32_modules` become no half precision."""
        weights = [x for module in self.float32_modules() for x in (*module.parameters(), *module.buffers())]
        exact = {id(x) for x in (*weights, *(weight.grad for weight in weights))}

        def converted(x: Tensor) -> Tensor:
            y = fn(x)
            half = id(x) in exact and y.dtype in (torch.bfloat16, torch.float16)
            return torch.empty_like(y, dtype=torch.float32).copy_(x) if half else y

        super()._apply(converted, recurse)  # type: ignore[no-untyped-call]  # untyped in PyTorch
        return self

    @property
    def streams(self) -> bool:
        """Whether a clip may be given in windows: false if a layer's statistics or attention span the clip."""
        return all(segment.streams for segment in (*self.encoder_segments(), *self.decoder_segments()))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def prepare(self, x_BCTHW: Tensor) -> Tensor:
        """On the model's device, in its type, channels-last in memory."""
        return x_BCTHW.to(self.device, self.dtype, memory_format=torch.channels_last_3d)

    def run_encoder(self, x_BCTHW: Tensor, context: StreamContext, keep: tuple[str, ...] = ()) -> Outputs:
        """Moments of the latent frames that this window completes, and the values to `keep`; sizes must fit exactly."""
        run = self.compiled[0] if self.compiled else partial(_run, self.encoder_segments())
        return run(x_BCTHW, context, keep)

    def run_decoder(self, z_BCTHW: Tensor, context: StreamContext, keep: tuple[str, ...] = ()) -> Outputs:
        """The frames that can be given once these latent frames are known, and the values to `keep`."""
        run = self.compiled[1] if self.compiled else partial(_run, self.decoder_segments())
        return run(z_BCTHW, context, keep)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both networks in place with `torch.compile`, which takes the arguments. For GPUs.

        All methods then use them, and so do windows of whole frames; tiles cannot. Each network is compiled in its
        first call, and again for each other shape: of the first, a middle and the last window of a clip. The weights
        are not copied. Those calls raise VaectlError if compiling fails. A copy of the model is not compiled.
        """
        run = compiled(_run, *args, **kwargs)
        # The same segments in each call: PyTorch 2.4 compiles again for others.
        self.compiled = partial(run, self.encoder_segments()), partial(run, self.decoder_segments())

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]  # untyped in PyTorch
        state.pop("compiled", None)  # as `nn.Module.compile` does: it cannot be stored
        return state

    def encode(self, video: Tensor | VideoClip) -> Posterior:
        """Return the posterior of a video, float (B, 3, T, H, W) in [-1, 1], or of a clip.

        Any T, H and W of at least 1: the last frame and the right and bottom edges are repeated up to the sizes that
        the network takes (1 + s·n frames, s = `config.time_compression`; multiples of `config.space_compression`).
        Any device and float type. Raises UsageError, with the line that converts it, for anything else.
        """
        video_BCTHW = check_video(video, self.in_channels)
        missing = (1 - video_BCTHW.shape[2]) % self.config.time_compression
        x = self.prepare(pad_to_fit(video_BCTHW, self.config, missing))
        return Posterior.from_moments(self.run_encoder(x, StreamContext())[0])

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Return the video (B, 3, 1 + s·(t - 1), 8H, 8W) of a latent, float (B, C, t, H, W).

        Values are about [-1, 1], not clamped. Raises UsageError for anything but a latent.
        """
        latent_BCTHW = check_latent(latent_BCTHW, self.config.latent_channels)
        return self.run_decoder(self.prepare(latent_BCTHW), StreamContext())[0]

    def forward(self, video: Video, *, sample: bool = False, generator: torch.Generator | None = None) -> Video:
        """Encode and decode a video or a clip. Returns the same shape and type. Gradients flow through.

        Uses the posterior's mean, or with `sample` a latent drawn from it. Raises as `encode` does.
        """
        x_BCTHW = check_video(video, self.in_channels)
        posterior = self.encode(x_BCTHW)
        y_BCTHW = self.decode(posterior.sample(generator) if sample else posterior.mode())
        _, _, frames, height, width = x_BCTHW.shape
        y_BCTHW = y_BCTHW[:, :, :frames, :height, :width]
        return cast(Video, video.with_video(y_BCTHW.clamp(-1, 1)) if isinstance(video, VideoClip) else y_BCTHW)

    @torch.no_grad()
    def reconstruct(self, video: Video, *, sample: bool = False, generator: torch.Generator | None = None) -> Video:
        """Encode and decode a video or a clip, without gradients. See `forward`."""
        return self.forward(video, sample=sample, generator=generator)

    def __repr__(self) -> str:
        """Describe the model in one line. `print(model.encoder)` shows layers, as PyTorch does."""
        config = self.config
        count = sum(parameter.numel() for parameter in self.parameters())
        sizes = f"{config.time_compression}x{config.space_compression}x{config.space_compression}"
        return (
            f"{config.class_name}({count / 1e6:.1f}M parameters, compression {sizes}, "
            f"{config.latent_channels} latent channels, {str(self.dtype).removeprefix('torch.')} on {self.device})"
        )

    def check_pca_init(self) -> None:
        """Raise UsageError if `pca_init` does not support this model. A family that has it overrides both methods."""
        raise UsageError(f"PCA initialization is not available for {self.config.a_model}")

    def pca_init(self, videos_BCTHW: Sequence[Tensor]) -> None:
        """Set the weights by principal component analysis of videos, each (B, 3, T, H, W) in [-1, 1].

        Raises UsageError as `check_pca_init` does, VaectlError for videos without variation.
        """
        self.check_pca_init()


def _run(segments: list[Segment], x: Tensor, context: StreamContext, keep: tuple[str, ...]) -> Outputs:
    values = run_segments(by_block(segments) if context.recompute else segments, x, context, keep)
    return values["y"], tuple(values[name] for name in keep)


def pad_to_fit(x_BCTHW: Tensor, config: FamilyConfig, frames: int) -> Tensor:
    """Repeat the last frame `frames` times, and the right and bottom edges up to the sizes that the network takes."""
    height, width = x_BCTHW.shape[3:]
    right, bottom = -width % config.space_compression, -height % config.space_compression
    if not (right or bottom or frames):
        return x_BCTHW
    if not x_BCTHW.is_floating_point():  # PyTorch replicates no 8-bit values on a GPU
        for axis, count in ((2, frames), (3, bottom), (4, right)):
            last = x_BCTHW.narrow(axis, x_BCTHW.shape[axis] - 1, 1)
            x_BCTHW = torch.cat([x_BCTHW, *[last] * count], dim=axis)
        return x_BCTHW
    return F.pad(x_BCTHW, (0, right, 0, bottom, 0, frames), mode="replicate")


AnyVAE = VideoVAE[Any]
