"""Export a training checkpoint as a model to publish.

    python tools/builtin_model/export.py CHECKPOINT TARGET --video-path VIDEOS [--video-path MORE]

Measures the latents on clips and writes their mean and standard deviation into config.json, for models that train on
latents. Stores the weights in half precision, except the wavelet filters. Leaves out the training state.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from vaectl.data import Sampling, Source, open_dataset
from vaectl.errors import UsageError, VaectlError
from vaectl.models import load_model, save_model
from vaectl.models.checkpoint import check_finite
from vaectl.models.vae import AnyVAE
from vaectl.progress import Silent
from vaectl.video.clip import batch_to_video


@torch.no_grad()
def measure_latents(model: AnyVAE, clips: Iterable[Tensor]) -> tuple[list[float], list[float]]:
    """Measure mean and standard deviation of each latent channel over clips, (T, 3, H, W) uint8 each.

    These are statistics of samples: the variance of the posterior is added to that of its mean. Raises ValueError
    without clips, VaectlError for a constant channel.
    """
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for frames in clips:
        posterior = model.encode(batch_to_video(frames[None]).to(model.device))
        mean, variance = (x.double().cpu().transpose(0, 1).flatten(1) for x in (posterior.mean, posterior.logvar.exp()))
        count += mean.shape[1]
        total, squares = total + mean.sum(1), squares + (mean**2 + variance).sum(1)
    if count == 0:
        raise ValueError("no clips")
    means = total / count
    deviations = (squares / count - means**2).clamp(min=0).sqrt()
    if not (deviations > 1e-6).all():
        raise VaectlError(f"channel {int(deviations.argmin())} of the latent is always the same", "train for longer")
    return means.tolist(), deviations.tolist()


def export(checkpoint: Path, target: Path, clips: Iterable[Tensor]) -> None:
    """Write the model in `checkpoint` to the new directory `target`, with the latent statistics of these clips.

    Raises UsageError if `target` exists, and as `load_model` and `measure_latents` do.
    """
    if target.exists():
        raise UsageError(f"{target}: exists already", "give another directory")
    model = load_model(checkpoint)
    means, deviations = measure_latents(model, clips)
    values = {"shift": tuple(rounded(mean) for mean in means), "scale": tuple(rounded(1 / d) for d in deviations)}
    model.config = model.config.model_copy(update=values)
    notes = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    half = {name: tensor if "wavelet" in name else tensor.half() for name, tensor in model.state_dict().items()}
    check_finite(half, checkpoint)
    kept = {name[1:]: notes[name] for name in ("_weights", "_step") if name in notes}
    save_model(model, target, weights=half, metadata=kept)


def rounded(value: float) -> float:
    """Round to four significant digits, more than a sample of clips determines."""
    return float(f"{value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/builtin_model/export.py")
    parser.add_argument("checkpoint", type=Path, help="a model directory")
    parser.add_argument("target", type=Path, help="the new directory")
    parser.add_argument("--video-path", type=Path, action="append", required=True, help="videos and images")
    parser.add_argument("--clips", type=int, default=128, help="how many clips to measure (default: 128)")
    parser.add_argument("--num-frames", type=int, default=17)
    parser.add_argument("--resolution", type=int, default=256)
    given = parser.parse_args()
    sampling = Sampling(given.num_frames, given.resolution, random_crop=True, animate_images=True)
    sources = [Source(path, 1.0) for path in given.video_path]
    try:
        data = open_dataset(sources, sampling, strict=True, progress=Silent())
        export(given.checkpoint, given.target, (data.clip(number).frames for number in range(given.clips)))
    except VaectlError as error:
        sys.exit(f"error: {error}")
    print(f"{given.target}: written, with mean and deviation of the latents of {given.clips} clips")


if __name__ == "__main__":
    main()
