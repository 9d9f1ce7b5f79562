"""PCA initialization of a new model: reads clips of the training data, and gives all ranks the same weights.

The model computes the weights (`VideoVAE.pca_init`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor

from vaectl import distributed
from vaectl.data import ClipDataset, ClipLoader, Sampling, Source, open_dataset
from vaectl.errors import VaectlError
from vaectl.models.build import build_model
from vaectl.models.vae import AnyVAE
from vaectl.options.train import TrainOptions
from vaectl.progress import Progress, Silent
from vaectl.video.clip import batch_to_video

CLIPS = 480
"""Clips for the principal components: enough for the 102 numbers of a block, read in about a minute."""
CLIPS_AT_ONCE = 16
CROP = 64
"""Side in pixels of the square that is cut from the frames, unless the run has a smaller one."""
NUM_FRAMES = 17
"""Frames of a clip, unless the run has more: five latents in time. With three, the oldest latent that a causal
convolution sees is always that of the first frame, and the initial weights fail after 9 frames of a longer clip."""
SAMPLE_RATE = 4
"""Largest distance in frames between neighbouring frames of a clip. Each clip draws its own, from 1."""


@contextmanager
def pca_remedy(before: str = "") -> Iterator[None]:
    """Add the remedy to errors of PCA initialization, and words before them."""
    try:
        yield
    except VaectlError as error:
        raise type(error)(f"{before}{error.problem}", "use `init=random`") from None


def check_pca_init(model: AnyVAE) -> None:
    """Raise UsageError if PCA initialization does not fit the model."""
    with pca_remedy():
        model.check_pca_init()


def init_from_clips(model: AnyVAE, sources: Sequence[Source], options: TrainOptions, progress: Progress) -> None:
    """Set the weights of a new model by PCA of clips of the training data. All ranks get the same weights.

    Runs on the CPU, so the result does not depend on the device. Raises as `VideoVAE.pca_init` and `open_dataset` do.
    """
    if distributed.is_main():
        side = options.crop_size or options.resolution
        sampling = clip_sampling(options.num_frames, options.resolution, side, options.seed)
        # Silent: the run reports unreadable videos when it opens the same data.
        with pca_remedy(f"`init=pca` reads clips of {sampling.num_frames} frames: "):
            data = open_dataset(sources, sampling, strict=options.strict, progress=Silent())
        clips = read_clips(data, CLIPS, options.num_workers, progress)
        progress.note(f"computing the initial weights from {len(clips)} clips")
        network = build_model(model.config)
        network.load_state_dict(model.state_dict())
        with pca_remedy():
            network.pca_init([batch_to_video(batch) for batch in torch.split(clips, CLIPS_AT_ONCE)])
        model.load_state_dict(network.state_dict())
    distributed.wait_for_others()
    distributed.broadcast(model.state_dict().values())


def clip_sampling(num_frames: int, resolution: int, side: int, seed: int) -> Sampling:
    """Return how to cut the clips from the training data: as varied as possible, whatever the run itself uses.

    `num_frames` (at least `NUM_FRAMES` are cut), `resolution` and `seed` are those of the run; `side` is the side of
    its square in pixels.
    """
    return Sampling(
        num_frames=max(NUM_FRAMES, num_frames),
        resolution=resolution,
        crop_size=min(CROP, side),
        sample_rate=SAMPLE_RATE,
        dynamic_sample=True,
        random_crop=True,
        flip=True,
        animate_images=True,
        seed=seed,
    )


def read_clips(data: ClipDataset, count: int, workers: int, progress: Progress) -> Tensor:
    """Return the first `count` clips of the data, (count, T, 3, H, W) uint8."""
    size = CLIPS_AT_ONCE
    batches = [range(first, min(first + size, count)) for first in range(0, count, size)]
    frames = []
    progress.start("clips for PCA initialization", count, "clips")
    try:
        with ClipLoader(data, lambda number: batches[number % len(batches)], first=0, workers=workers) as loader:
            for batch in islice(loader, len(batches)):
                for note in batch.notes:
                    progress.warn(note)
                frames.append(batch.frames)
                progress.advance(len(batch.numbers))
    finally:
        progress.finish()
    return torch.cat(frames)
