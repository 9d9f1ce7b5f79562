"""How far clips come back: one file for each metric. Knows tensors only: no video files, no models, no console.

A new metric is one file with a function `build`, and one line below. No torch is imported here: the options need the
names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
}
"""Name -> module:function. The function takes (`MetricSettings`, device) and gives a `FrameMetric` or `SetMetric`."""

DEFAULT = ("psnr", "ssim", "lpips")


@dataclass(frozen=True)
class MetricSettings:
    """What some metrics have to be told."""

    lpips_net: Literal["alex", "vgg"] = "alex"
    lpips_weights: Path | None = None
    """Convolutional features of that network; None: the package's own AlexNet, VGG16 from the cache of torch hub."""
    fvd_detector: Path | None = None
    """The TorchScript detector; None: from the cache of torch hub."""
    progress: Progress | None = None
    """Hears of downloads."""


def known(name: str) -> None:
    """Raises UsageError, with the nearest name, for a metric that does not exist."""
    if name in METRICS:
        return
    from difflib import get_close_matches

    nearest = get_close_matches(name.lower(), METRICS, n=1, cutoff=0.5)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(METRICS)}"
    raise UsageError(f"there is no metric {name!r}", remedy)


def build(names: Iterable[str], settings: MetricSettings, device: torch.device) -> dict[str, FrameMetric | SetMetric]:
    """The metrics of these names, ready to measure on `device`, in the given order.

    Raises UsageError for an unknown name, VaectlError where weights are missing or unreadable.
    """
    from importlib import import_module

    metrics: dict[str, FrameMetric | SetMetric] = {}
    for name in names:
        known(name)
        module, _, function = METRICS[name].partition(":")
        metrics[name] = getattr(import_module(module), function)(settings, device)
    return metrics
