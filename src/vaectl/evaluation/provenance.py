"""The provenance of an evaluation: everything needed to repeat its numbers, as plain JSON values."""

from __future__ import annotations

import platform
from dataclasses import asdict, fields
from typing import Any

from vaectl.evaluation.frames import Reading
from vaectl.evaluation.manifest import Manifest
from vaectl.evaluation.protocol import ClipProtocol, protocol_of
from vaectl.evaluation.protocols import read_protocol
from vaectl.io.hub import commit_of
from vaectl.io.json_values import plain
from vaectl.memory import Limits
from vaectl.metrics import OF_FFMPEG
from vaectl.metrics.codec import provenance as of_ffmpeg
from vaectl.metrics.fvd import detector_name
from vaectl.metrics.lpips import weights_name
from vaectl.options import EvalOptions, parse
from vaectl.options.candidates import Candidate
from vaectl.options.protocol import ProtocolOptions
from vaectl.versions import versions

PACKAGES = ("vaectl", "torch", "numpy", "av", "lpips")


def provenance(
    options: EvalOptions, candidate: Candidate, reading: Reading, manifest: Manifest | None, device: str
) -> dict[str, Any]:
    """Return how the clips were read, what made those of `candidate`, and how they were compared, on `device`."""
    protocol = reading.protocol
    crop = f"{protocol.crop_size}x{protocol.crop_size} from the middle" if protocol.crop_size else "none"
    resize = f"shorter side to {protocol.resolution}, bilinear, antialiased, rounded to 8 bits"
    if protocol.resolution == "source":
        resize = "size of the source"
    return {
        "real_video_dir": str(options.real_video_dir),
        "generated_video_dir": None if candidate.is_model else str(candidate.path),
        "name": options.protocol,
        "changed": _changed(options, protocol),
        "hash": protocol.hash,
        "clips": {
            "num_frames": protocol.num_frames,
            "sample_rate": protocol.sample_rate,
            "frame_rate": plain(protocol.frame_rate),
            "all_windows": protocol.all_windows,
            "rgb_conversion": protocol.rgb_conversion,
            "resize": resize,
            "crop": crop,
            "originals": "as prepared" if reading.real_is_prepared else _treatment(protocol),
            "generated": _generated(candidate, manifest),
            "subset_size": options.subset_size,
        },
        "model": _model(options, candidate, manifest, device),
        **measurement(options, device),
    }


def _treatment(protocol: ClipProtocol) -> str:
    resized = ["resized"] * (protocol.resolution != "source") + ["cropped"] * (protocol.crop_size is not None)
    return " and ".join(resized) or "as they are"


def _changed(options: EvalOptions, protocol: ClipProtocol) -> list[str]:
    """Return the options in which `protocol` differs from the one that was asked for by name."""
    if options.protocol is None:
        return []
    named = protocol_of(parse(ProtocolOptions, read_protocol(options.protocol)))
    changed = [field.name for field in fields(named) if getattr(named, field.name) != getattr(protocol, field.name)]
    if all(each.crop_size == each.resolution for each in (named, protocol)) and "crop_size" in changed:
        changed.remove("crop_size")  # it follows the resolution
    return changed


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
        from vaectl.models.checkpoint import loaded_weights  # imports the networks

        return {
            "path": str(candidate.path),
            "commit": commit_of(candidate.path),
            "weights": loaded_weights(candidate.path, options.weights),
            "device": device,
            "dtype": options.model_dtype,
            "posterior": _posterior(options.sample, options.model_seed),
            "tiles": Limits.of(options).tiled,
            "compiled": options.compile,
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
        weights = weights_name(options.lpips_net, options.lpips_weights)
        settings["lpips"] = {"net": options.lpips_net, "version": "0.1", "weights": weights}
    if "fvd" in options.metric:
        settings["fvd"] = {"method": options.fvd_method, "detector": detector_name(options.fvd_detector)}
    for name in OF_FFMPEG:
        if name in options.metric:
            settings[name] = of_ffmpeg(name, options.vmaf_model)
    return settings
