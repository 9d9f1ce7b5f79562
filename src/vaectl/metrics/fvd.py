"""Fréchet video distance: compares the distributions of the features of generated clips and of originals.

Unterthiner et al., "Towards Accurate Generative Models of Video" (2018). The features are the logits of I3D, trained on
Kinetics-400, or come from a TorchScript detector.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.errors import DamagedError, UsageError, VaectlError
from vaectl.io.checksum import sha256_of
from vaectl.io.parsing import parsing, size_of
from vaectl.metrics import MetricSettings
from vaectl.metrics.feature_cache import cached_features
from vaectl.metrics.fingerprint import fingerprint, name_of
from vaectl.metrics.frames import exact_float32
from vaectl.metrics.i3d import MIN_FRAMES, SIDE, load_i3d
from vaectl.metrics.i3d_weights import FINGERPRINT, is_i3d, load_weights, published_name
from vaectl.models.statistics import RunningCovariance
from vaectl.progress import Progress, Silent
from vaectl.shortage import is_memory_shortage

FRAMES_AT_ONCE = 4
"""Frames that are scaled at once. The whole clip in float32 can take gigabytes."""
PREPROCESSING = "1"
"""Version of `scale_and_crop`. Cached features of another version are not used."""


@dataclass(frozen=True)
class Detector:
    """A network with the features that are compared."""

    network: Callable[[Tensor], Tensor]
    """Maps a clip (1, 3, T, 224, 224), float32 in [-1, 1], to its features (1, D)."""
    fingerprint: str
    """SHA-256 of its weights or of its file."""
    min_frames: int = 1


class FVD:
    """A `SetMetric`. Keeps the mean and covariance of the features of all sides. Caches the features of originals."""

    unit = ""
    better: Literal["higher", "lower"] = "lower"

    def __init__(self, detector: Detector, device: torch.device, progress: Progress) -> None:
        self.detector = detector
        self.device = device
        self.progress = progress
        self.real = RunningCovariance()
        self.generated: list[RunningCovariance] = []
        """One for each candidate."""

    def empty(self) -> FVD:
        return FVD(self.detector, self.device, self.progress)

    def add(self, real_BTCHW: Tensor, generated: Sequence[Tensor]) -> None:
        """Add originals and the clips of each candidate. Raises UsageError for clips too short for the detector."""
        self.generated = self.generated or [RunningCovariance() for _ in generated]
        check_length(real_BTCHW.shape[1], self.detector.min_frames)
        network = f"{self.detector.fingerprint} {PREPROCESSING} {self.device.type} {torch.__version__}"
        size = None
        for moments, clips in zip(self.generated, generated, strict=True):
            for clip_TCHW in clips:
                features = self._features(clip_TCHW)
                size = features.shape[1]
                moments.add(features)
        for clip_TCHW in real_BTCHW:
            compute = partial(self._features, clip_TCHW)
            self.real.add(cached_features(clip_TCHW, network, size, compute, self.progress))

    def values(self) -> list[float]:
        if self.real.count < 2:
            raise UsageError(f"fvd needs at least 2 clips, not {self.real.count}", "leave it out")
        mean, covariance = self.real.mean, self.real.covariance()
        return [frechet_distance(mean, covariance, each.mean, each.covariance()) for each in self.generated]

    def state(self) -> tuple[RunningCovariance, list[RunningCovariance]]:
        return self.real, self.generated

    def merge(self, state: tuple[RunningCovariance, list[RunningCovariance]]) -> None:
        real, generated = state
        self.real.merge(real)
        self.generated = self.generated or [RunningCovariance() for _ in generated]
        for mine, other in zip(self.generated, generated, strict=False):  # a process without clips has none
            mine.merge(other)

    def _features(self, clip_TCHW: Tensor) -> Tensor:
        """Return the features, (1, D) float64, on the CPU."""
        with torch.inference_mode(), exact_float32():
            video_TCHW = torch.cat([scale_and_crop(part.to(self.device)) for part in clip_TCHW.split(FRAMES_AT_ONCE)])
            try:
                features = self.detector.network(video_TCHW.transpose(0, 1)[None])
            except (RuntimeError, torch.jit.Error) as error:
                if is_memory_shortage(error):
                    raise
                reason = str(error).strip().splitlines()[-1]
                raise UsageError(
                    f"fvd: the detector does not take clips of {len(clip_TCHW)} frames: {reason}", "change `num_frames`"
                ) from None
            if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
                raise VaectlError("fvd: the detector gave no vector of features", "give another `fvd_detector`")
            features = features.cpu().double()
        if not features.isfinite().all():
            raise VaectlError("fvd: the detector gave NaN or infinity", "give another `fvd_detector`")
        return features


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """Return |mean1 - mean2|² + tr(C1 + C2 - 2·(C1·C2)^½) of two Gaussians (Dowson and Landau, 1982).

    Means (D,), covariances (D, D), float64. With C = A·Aᵀ, the trace of the root is the sum of the singular values of
    A1ᵀ·A2. This avoids the root of a product, which may be complex if a covariance is singular, as it is with fewer
    clips than features.
    """
    product = root(covariance1).T @ root(covariance2)
    overlap = torch.linalg.svdvals(product).sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * overlap
    return max(0.0, float(distance))


def root(covariance: Tensor) -> Tensor:
    """Return A with A·Aᵀ = covariance (D, D), symmetric. Eigenvalues below the precision of float64 count as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    values = torch.where(values > values[-1] * len(values) * torch.finfo(values.dtype).eps, values, 0)
    scaled: Tensor = vectors * values.sqrt()
    return scaled


def scale_and_crop(frames_TCHW: Tensor) -> Tensor:
    """Convert 8-bit frames to the input of the detector in the published tables: (T, C, 224, 224) float32 in [-1, 1].

    Resizes the shorter side to 224 and rounds the longer one up (bilinear, no antialiasing), then crops the centre.
    """
    height, width = frames_TCHW.shape[-2:]
    height, width = (math.ceil(side * SIDE / min(height, width)) for side in (height, width))
    scaled: Tensor = F.interpolate(frames_TCHW / 127.5 - 1, (height, width), mode="bilinear")
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return scaled[..., top : top + SIDE, left : left + SIDE]


def check_length(num_frames: int, min_frames: int) -> None:
    """Raise UsageError for clips with too few frames."""
    if num_frames < min_frames:
        raise UsageError(f"fvd needs clips of at least {min_frames} frames, not {num_frames}", "raise `num_frames`")


def i3d(file: Path | None, device: torch.device, progress: Progress) -> Detector:
    """Load I3D with its weights in `file` (safetensors, or the archive of the package), or else from the cache.

    Raises VaectlError if the weights are missing, cannot be fetched, or are not those of I3D.
    """
    weights = load_weights(file, progress)
    try:
        network = load_i3d(weights, device)
    except ValueError as error:
        raise DamagedError(f"{file}: {error}", "give another `fvd_detector`") from None
    digest = fingerprint(weights)
    if digest != FINGERPRINT:
        progress.note(f"{file}: has other weights than DeepMind's, so its FVD is not that of published tables")

    def features(video_BCTHW: Tensor) -> Tensor:
        logits: Tensor = network(video_BCTHW.contiguous(memory_format=torch.channels_last_3d))
        return logits

    return Detector(features, digest, MIN_FRAMES)


def detector_name(file: Path | None) -> str:
    """Return the name of the detector in results: the same for equal weights of I3D, whatever file has them."""
    return published_name(file) if file is None or is_i3d(file) else name_of(file, sha256_of(file))


def torchscript(file: Path, device: torch.device) -> Detector:
    """Load the TorchScript network in `file`, which has the interface of the detector in the published code.

    The deprecation warning of PyTorch is hidden. Raises VaectlError if this PyTorch no longer reads TorchScript, or if
    the file is not TorchScript.
    """
    size_of(file, "give a TorchScript detector, or the weights of I3D, as `fvd_detector`")
    load = getattr(torch.jit, "load", None)
    if load is None:
        raise VaectlError(
            f"{file}: PyTorch {torch.__version__} no longer reads TorchScript",
            "install PyTorch 2.15 or older, or leave out `fvd_detector` to use I3D",
        )
    with (
        parsing(file, "is not a TorchScript file, or is damaged; get it again"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=r"`?torch\.jit\.load")
        network: torch.jit.ScriptModule = load(str(file), map_location=device)
        network.eval()
        takes = {argument.name for argument in cast(Any, network.forward).schema.arguments}
    if missing := [name for name in ("rescale", "resize", "return_features") if name not in takes]:
        raise UsageError(
            f"{file}: its network does not take {' and '.join(missing)}",
            "give a detector for FVD, or the weights of I3D",
        )

    def features(video_BCTHW: Tensor) -> Tensor:
        logits: Tensor = network(video_BCTHW.contiguous(), rescale=False, resize=False, return_features=True)
        return logits

    return Detector(features, sha256_of(file))


def build(settings: MetricSettings, device: torch.device) -> FVD:
    file, progress = settings.fvd_detector, settings.progress or Silent()
    if file is not None and not is_i3d(file):
        return FVD(torchscript(file, device), device, progress)
    if settings.num_frames is not None:  # before a download
        check_length(settings.num_frames, MIN_FRAMES)
    return FVD(i3d(file, device, progress), device, progress)
