"""Fréchet video distance: compares the distributions of the features of generated clips and of originals.

Unterthiner et al., "Towards Accurate Generative Models of Video" (2018). The features come from a TorchScript detector:
in the published tables, I3D trained on Kinetics-400.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vaectl.errors import UsageError, VaectlError
from vaectl.io.parsing import parsing, size_of
from vaectl.metrics import MetricSettings
from vaectl.metrics.download import cached
from vaectl.metrics.frames import exact_float32
from vaectl.models.statistics import RunningCovariance

DETECTOR = (
    "i3d_torchscript.pt",
    "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    "fvd_detector",
)
SIDE = 224


class FVD:
    """A `SetMetric`. Keeps the mean and covariance of the features of all sides, not the features."""

    unit = ""
    better: Literal["higher", "lower"] = "lower"

    def __init__(self, detector: Callable[..., Tensor], device: torch.device) -> None:
        self.detector = detector
        self.device = device
        self.real = RunningCovariance()
        self.generated: list[RunningCovariance] = []
        """One for each candidate."""

    def empty(self) -> FVD:
        return FVD(self.detector, self.device)

    def add(self, real_BTCHW: Tensor, generated: Sequence[Tensor]) -> None:
        """Add originals and the clips of each candidate. Raises UsageError for clips too short for the detector."""
        self.generated = self.generated or [RunningCovariance() for _ in generated]
        for moments, clips in zip((self.real, *self.generated), (real_BTCHW, *generated), strict=True):
            for clip_TCHW in clips:
                moments.add(self._features(clip_TCHW))

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
            video_BCTHW = scale_and_crop(clip_TCHW.to(self.device)).transpose(0, 1)[None].contiguous()
            try:
                features: Tensor = self.detector(video_BCTHW, rescale=False, resize=False, return_features=True)
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, torch.jit.Error) as error:
                reason = str(error).strip().splitlines()[-1]
                raise UsageError(
                    f"fvd: the detector does not take clips of {len(clip_TCHW)} frames: {reason}", "change `num_frames`"
                ) from None
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


def open_detector(file: Path, device: torch.device) -> Callable[..., Tensor]:
    """Load the TorchScript network in `file` on `device`.

    The published detector exists only as TorchScript, so the deprecation warning of PyTorch is hidden. Raises
    VaectlError if this PyTorch no longer reads TorchScript, RuntimeError for a file that is not TorchScript.
    """
    load = getattr(torch.jit, "load", None)
    if load is None:
        raise VaectlError(
            f"{file}: PyTorch {torch.__version__} no longer reads TorchScript",
            "install PyTorch 2.15 or older for fvd, or leave it out",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`?torch\.jit\.load")
        detector: torch.jit.ScriptModule = load(str(file), map_location=device)
    return detector.eval()


def build(settings: MetricSettings, device: torch.device) -> FVD:
    file = settings.fvd_detector or cached(*DETECTOR, settings.progress)
    size_of(file, "give a TorchScript detector as `fvd_detector`")
    with parsing(file, "is not a TorchScript file, or is damaged; get it again"):
        return FVD(open_detector(file, device), device)
