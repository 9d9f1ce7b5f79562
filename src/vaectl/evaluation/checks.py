"""Checks of an evaluation before anything is decoded, and the reasons why clips are left out, in few lines."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from vaectl.errors import UsageError
from vaectl.evaluation import outputs
from vaectl.evaluation.pairs import Grouping
from vaectl.evaluation.pipeline import Metrics
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.io.output_paths import identity
from vaectl.metrics import FACTS
from vaectl.metrics.codec import FilterMetric
from vaectl.metrics.frames import at_least
from vaectl.options import EvalOptions
from vaectl.progress import Progress
from vaectl.video.sequence import files_of

REASONS = 10
"""Maximum number of further reasons shown where no clip can be compared."""


def check_partners(grouping: Grouping, options: EvalOptions, progress: Progress) -> None:
    """Raise UsageError for clips without a partner, unless `allow_missing` is set."""
    if grouping.missing and not options.allow_missing:
        raise UsageError(
            first_reason(grouping.missing, progress), "pass `allow_missing` to leave out clips without a partner"
        )


def check_set_sizes(grouping: Grouping, options: EvalOptions) -> None:
    """Raise UsageError if a metric of sets has fewer than 2 clips."""
    sets = [name for name in options.metric if FACTS[name].of_set]
    if sets and len(grouping.groups) < 2:
        raise UsageError(
            f"{options.real_video_dir}: {', '.join(sets)} needs at least 2 clips, not 1", "give more, or leave it out"
        )


def check_frame_size(metrics: Metrics, protocol: ClipProtocol) -> None:
    """Raise UsageError if a metric does not take the frames, as far as the protocol says how large they are."""
    side = protocol.crop_size or protocol.resolution
    if side == "source":
        return
    square = torch.empty(side, side, device="meta")
    for name, metric in metrics.items():
        at_least(getattr(metric, "smallest", 1), square, name)
        if protocol.crop_size and isinstance(metric, FilterMetric):
            metric.check_size(square)


def first_reason(reasons: Mapping[str, str], progress: Progress) -> str:
    """Return the first kind of reason, in one line with the names of its clips; warn of the other kinds."""
    first, *others = [_one_line(kind) for kind in by_kind(reasons)]
    for line in others[:REASONS]:
        progress.warn(line)
    if len(others) > REASONS:
        progress.warn(f"{len(others) - REASONS} more reasons like these")
    return first


def by_kind(reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """Group reasons, which begin with a path, by what they say without paths and numbers."""
    kinds: dict[str, dict[str, str]] = {}
    for name, reason in reasons.items():
        kinds.setdefault(re.sub(r"\S*/\S*|\d+", "", reason.partition(": ")[2]), {})[name] = reason
    return list(kinds.values())


def kinds_first(reasons: Mapping[str, str]) -> list[str]:
    """Return the reasons, one of each kind first, because the command line shows only some of them."""
    kinds = [list(kind.values()) for kind in by_kind(reasons)]
    return [kind[0] for kind in kinds] + [reason for kind in kinds for reason in kind[1:]]


def _one_line(reasons: Mapping[str, str]) -> str:
    first, *others = reasons
    if not others:
        return reasons[first]
    more = "" if len(others) <= 3 else f" and {len(others) - 3} more"
    return f"{reasons[first]}; also affected: {', '.join(others[:3])}{more}"


def check_outputs(grouping: Grouping, options: EvalOptions) -> None:
    """Raise UsageError if an output file is an input, exists without `overwrite`, or cannot be written."""
    paths = [
        file for group in grouping.groups for path in (group.real, *group.generated) if path for file in files_of(path)
    ]
    outputs.check_outputs(
        outputs.outputs_of(options), {identity(path) for path in paths if path.exists()}, options.overwrite
    )


def warn_of_same_files(grouping: Grouping, progress: Progress) -> None:
    """Warn if a reconstruction is the same file as its original, through links or not."""
    for paths in zip(*(group.generated for group in grouping.groups), strict=True):
        pairs = [(group.real, path) for group, path in zip(grouping.groups, paths, strict=True) if path]
        same = [path for real, path in pairs if real.exists() and path.exists() and real.samefile(path)]
        if same:
            progress.warn(
                f"{same[0]}: is the same file as its original; this holds for {len(same)} of {len(pairs)} pairs, and"
                " their numbers say nothing"
            )
