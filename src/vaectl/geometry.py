"""Sizes of latents as functions of the sizes of clips. Imports nothing."""


def latent_frames(num_frames: int, time_compression: int) -> int:
    """Return how many latent frames a causal VAE makes of `num_frames` frames, at least 1.

    The first frame has a latent of its own, and each `time_compression` frames after it have one together. Frames that
    are left over at the end do not count; a network takes 1 + n * `time_compression`.
    """
    return 1 + (num_frames - 1) // time_compression
