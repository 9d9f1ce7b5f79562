"""Evaluations made of numbers, for tests of what is shown and written of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaectl.evaluation.results import ClipScores, Evaluation
from vaectl.metrics import FACTS

PROTOCOL: dict[str, Any] = {
    "real_video_dir": "/home/me/clips",
    "generated_video_dir": "/home/me/out",
    "clips": {
        "num_frames": 2,
        "sample_rate": 1,
        "resize": "shorter side to 64",
        "crop": "64x64 from the middle",
        "originals": "resized and cropped",
        "generated": "as prepared",
        "subset_size": 0,
    },
    "model": {"path": None, "device": "cpu", "dtype": "float32", "posterior": "mean"},
    "metrics": {"of": "8-bit RGB", "dtype": "float32", "device": "cpu", "lpips": {"net": "alex"}},
    "versions": {"vaectl": "0.1.0", "torch": "2.13.0"},
}


def evaluation(name: str = "", sets: Mapping[str, float] | None = None, **values: Sequence[Any]) -> Evaluation:
    """Return an evaluation: metric -> a number for each clip, or a tuple with one for each of its frames."""
    frames = {
        metric: [each if isinstance(each, tuple) else (each, each) for each in of] for metric, of in values.items()
    }
    clips = [
        ClipScores(f"clip{number}", Path(f"clips/{number}.mp4"), Path(f"{name}/{number}.mkv"), 2, 64, 64, {**of})
        for number, of in enumerate(dict(zip(frames, each, strict=True)) for each in zip(*frames.values(), strict=True))
    ]
    return Evaluation(
        metrics=tuple(FACTS[metric] for metric in [*values, *(sets or {})]),
        clips=tuple(clips),
        set_values=dict(sets or {}),
        protocol=PROTOCOL,
        left_out={},
        seconds=1.5,
        decode_seconds=0.5,
        peak_memory=2**30,
        name=name,
    )
