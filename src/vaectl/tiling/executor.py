"""A WF-VAE over tiles: the local parts of the network tile by tile, attention over the whole frame at 1/8 resolution.

Windows of time outside, tiles inside; the time state of each tile waits in a store until the next window. The result is
that of whole frames, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from vaectl.models.context import Piece, TimeState
from vaectl.models.families.wfvae import WFVAE
from vaectl.tiling.grid import Tile, grid
from vaectl.tiling.store import Store


class Tiles:
    """Runs the pieces of one clip through a model, each tile by tile. A `Runner` of `models.streaming`.

    Whole frames stay in host memory; a tile goes to the model's device and comes back.
    """

    def __init__(self, model: WFVAE, tile: int, store: Store) -> None:
        """Tiles have at most that many latent positions each way; `store` keeps their state."""
        self.model = model
        self.tile = tile
        self.store = store
        self.encoder: TimeState | None = None
        self.decoder: TimeState | None = None

    def encode(self, x_BCTHW: Tensor, *, last: bool) -> Tensor:
        """Moments of the latent frames that this piece of the clip completes."""
        encoder, scale = self.model.encoder, self.model.config.space_compression

        def features(tile: Tile, before: TimeState | None) -> tuple[Tensor, TimeState]:
            x, inner = tile.read(x_BCTHW, encoder.margin, scale)
            piece = Piece(before, last=last, inner=inner)
            del before  # what a layer has used of it is freed at once
            made, _ = encoder.features(self.model.prepare(x), piece)
            return tile.cut(made, inner, 1), piece.after

        height, width = x_BCTHW.shape[3] // scale, x_BCTHW.shape[4] // scale
        together = self._over_tiles("encoder", features, height, width, 1, self.model.device)
        piece, self.encoder = Piece(self.encoder, last=last), None
        moments = encoder.moments(together, piece)
        self.encoder = piece.after
        return moments

    def decode(self, z_BCTHW: Tensor, *, last: bool) -> Iterable[Tensor]:
        """The frames that can be given once these latent frames are known, in host memory."""
        decoder, scale = self.model.decoder, self.model.config.space_compression
        piece, self.decoder = Piece(self.decoder, last=last), None
        features = decoder.features(self.model.prepare(z_BCTHW), piece)
        self.decoder = piece.after

        def pixels(tile: Tile, before: TimeState | None) -> tuple[Tensor, TimeState]:
            h, inner = tile.read(features, decoder.margin, 1)
            piece = Piece(before, last=last, inner=inner)
            del before
            made, _ = decoder.video(h, piece)
            return tile.cut(made, inner, scale), piece.after

        height, width = z_BCTHW.shape[3:]
        return [self._over_tiles("decoder", pixels, height, width, scale, torch.device("cpu"))]

    def _over_tiles(
        self,
        side: str,
        run: Callable[[Tile, TimeState | None], tuple[Tensor, TimeState]],
        height: int,
        width: int,
        scale: int,
        device: torch.device,
    ) -> Tensor:
        """What `run` makes of every tile, put together on `device`: `scale` positions to a latent one."""
        whole: Tensor | None = None
        for index, tile in enumerate(grid(height, width, self.tile)):
            made, after = run(tile, self.store.get((side, index)))
            self.store.put((side, index), after)
            del after  # not to be there beside the state of the next tile
            if whole is None:
                shape = (*made.shape[:3], scale * height, scale * width)
                whole = torch.empty(shape, dtype=made.dtype, device=device, memory_format=torch.channels_last_3d)
            rows, columns = tile.core(scale)
            whole[..., rows, columns] = made
        assert whole is not None
        return whole
