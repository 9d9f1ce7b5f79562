"""A clip through a model in pieces: the same numbers as in one go, with memory that does not grow with its length.

Time state is a value that goes in and out, so clips may be interleaved through one model. Models whose layers look at
the whole clip (`VideoVAE.streams` is false) are given it as one piece, unless their runner knows better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from vaectl.models.config import FamilyConfig
from vaectl.models.context import Piece, TimeState
from vaectl.models.posterior import Posterior
from vaectl.models.vae import AnyVAE, pad_to_fit


class Runner(Protocol):
    """Encodes and decodes the pieces of one clip, in order."""

    def encode(self, x_BCTHW: Tensor, *, last: bool) -> Tensor:
        """Moments of the latent frames that this piece of the clip completes."""

    def decode(self, z_BCTHW: Tensor, *, last: bool) -> Iterable[Tensor]:
        """The frames that can be given once these latent frames are known, in parts."""


class WholeFrames:
    """The `Runner` that gives the model whole frames."""

    def __init__(self, model: AnyVAE) -> None:
        self.model = model
        self.encoder: TimeState | None = None
        self.decoder: TimeState | None = None

    def encode(self, x_BCTHW: Tensor, *, last: bool) -> Tensor:
        piece, self.encoder = Piece(self.encoder, last=last), None
        moments = self.model.encode_piece(self.model.prepare(x_BCTHW), piece)
        self.encoder = piece.after
        return moments

    def decode(self, z_BCTHW: Tensor, *, last: bool) -> Iterable[Tensor]:
        piece, self.decoder = Piece(self.decoder, last=last), None
        video = self.model.decode_piece(self.model.prepare(z_BCTHW), piece)
        self.decoder = piece.after
        return [video]


def reconstruct_pieces(
    model: AnyVAE,
    pieces_BCTHW: Iterable[Tensor],
    runner: Runner | None = None,
    *,
    sample: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The clip that the pieces make up, (B, 3, T, H, W) in [-1, 1] each, through the model and back.

    The pieces may have any lengths of at least one frame, and so have the ones that come back; together they have
    exactly the frames of the input, of the same size. `runner`: how the model is run, whole frames if left out.
    """
    runner = runner or WholeFrames(model)
    at_once = isinstance(runner, WholeFrames) and not model.streams
    pieces = whole(pieces_BCTHW) if at_once else pieces_BCTHW
    frames_in = frames_out = 0
    for piece, last in mark_last(pieces):
        height, width = piece.shape[3:]
        frames_in += piece.shape[2]
        # The last piece is filled up with copies of its last frame to 1 + s·n frames of the clip.
        missing = (1 - frames_in) % model.config.time_compression if last else 0
        with torch.no_grad():
            moments = runner.encode(pad_to_fit(piece, model.config, missing), last=last)
            posterior = Posterior.from_moments(moments)
            videos = runner.decode(posterior.sample(generator) if sample else posterior.mode(), last=last)
        for padded in videos:
            video = padded[:, :, : frames_in - frames_out, :height, :width]
            frames_out += video.shape[2]
            if video.shape[2]:
                yield video
    if frames_out != frames_in:
        raise AssertionError(f"{frames_in} frames went into the model and {frames_out} came out")


PIECE_PIXELS = 1 << 19
"""Pixels in a piece: 8 frames of 256x256. Longer pieces are no faster and take more memory."""


def piece_frames(config: FamilyConfig, height: int, width: int) -> int:
    """How many frames of that size to give a model at a time: a multiple of what its latent frames stand for."""
    return config.time_compression * max(1, PIECE_PIXELS // (config.time_compression * height * width))


def mark_last(items: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each item with whether it is the last."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following is None
        current = following


def whole(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """All pieces as one."""
    collected = list(pieces)
    if collected:
        yield torch.cat(collected, dim=2)
