"""Sizes of latents, from sizes of clips. Imports nothing."""


def latent_frames(num_frames: int, time_compression: int) -> int:
    """Return the number of latent frames of `num_frames` frames (at least 1) in a causal VAE.

    The first frame has its own latent frame, and every `time_compression` frames after it share one. A network takes
    1 + n * `time_compression` frames; further frames do not count.
    """
    return 1 + (num_frames - 1) // time_compression
