"""The provenance of an evaluation: everything needed to repeat its numbers, as plain JSON values."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vaectl.engine import Limits
from vaectl.evaluation.frames import Reading
from vaectl.evaluation.manifest import Manifest
from vaectl.io.checksum import sha256_of
from vaectl.io.hub import commit_of
from vaectl.models.checkpoint import loaded_weights
from vaectl.options import EvalOptions
from vaectl.options.candidates import Candidate
from vaectl.versions import versions

PACKAGES = ("vaectl", "torch", "numpy", "av", "lpips")


def provenance(
    options: EvalOptions, candidate: Candidate, reading: Reading, manifest: Manifest | None, device: str
) -> dict[str, Any]:
    """Return how the clips were read, what made those of `candidate`, and how they were compared, on `device`."""
    protocol = reading.protocol
    crop = f"{protocol.crop_size}x{protocol.crop_size} from the middle" if protocol.crop_size else "none"
    return {
        "real_video_dir": str(options.real_video_dir),
        "generated_video_dir": None if candidate.is_model else str(candidate.path),
        "clips": {
            "num_frames": protocol.num_frames,
            "sample_rate": protocol.sample_rate,
            "rgb_conversion": protocol.rgb_conversion,
            "resize": f"shorter side to {protocol.resolution}, bilinear, antialiased, rounded to 8 bits",
            "crop": crop,
            "originals": "as prepared" if reading.real_is_prepared else "resized and cropped",
            "generated": _generated(candidate, manifest),
            "subset_size": options.subset_size,
        },
        "model": _model(options, candidate, manifest, device),
        **measurement(options, device),
    }


def measurement(options: EvalOptions, device: str) -> dict[str, Any]:
    """Return how the clips were compared, and by which versions."""
    return {
        "metrics": {"of": "8-bit RGB", "dtype": "float32", "device": device, **_settings(options)},
        "versions": {"python": platform.python_version()} | versions(*PACKAGES),
    }


def _generated(candidate: Candidate, manifest: Manifest | None) -> str:
    if candidate.is_model:
        return "by the model, in memory"
    return "as prepared" if manifest else "as they are, or resized and cropped as the originals"


def _model(options: EvalOptions, candidate: Candidate, manifest: Manifest | None, device: str) -> dict[str, Any] | None:
    """Return what made the generated clips; None if that is unknown."""
    if candidate.is_model:
        return {
            "path": str(candidate.path),
            "commit": commit_of(candidate.path),
            "weights": loaded_weights(candidate.path, options.weights),
            "device": device,
            "dtype": options.model_dtype,
            "posterior": _posterior(options.sample, options.model_seed),
            "tiles": Limits.of(options).tiled,
        }
    if manifest is None:
        return None
    made = manifest.options
    return {
        **asdict(manifest.model),
        "posterior": _posterior(bool(made.get("sample")), made.get("seed")),
        "batch_size": made.get("batch_size"),
        "format": made.get("format"),
        "versions": manifest.versions,
    }


def _posterior(sample: bool, seed: Any) -> str:
    return f"sample, seed {seed}" if sample else "mean"


def _settings(options: EvalOptions) -> dict[str, Any]:
    """Return the settings of metrics that have any."""
    settings: dict[str, Any] = {}
    if "lpips" in options.metric:
        settings["lpips"] = {"net": options.lpips_net, "version": "0.1", "weights": _file(options.lpips_weights)}
    if "fvd" in options.metric:
        i3d = "I3D of DeepMind, trained on Kinetics-400"
        settings["fvd"] = {"method": options.fvd_method, "detector": _file(options.fvd_detector, i3d)}
    return settings


def _file(path: Path | None, default: str = "the published ones") -> str:
    if path is None:
        return default
    return f"{path}, SHA-256 {sha256_of(path)}"
