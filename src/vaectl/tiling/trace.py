"""What memory a piece of a clip takes in a network, found by running it on tensors that have shapes and no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaectl.models.checkpoint import build_model
from vaectl.models.config import CausalVAEConfig, WFVAEConfig
from vaectl.models.context import WHOLE_FRAME, Piece, Sides, TimeState
from vaectl.models.vae import AnyVAE


@dataclass(frozen=True)
class Cost:
    """Bytes, the most in any piece."""

    peak: int
    """Of all tensors that live at a time, the piece's input among them."""
    given: int
    result: int
    state: int
    """Left for the next piece."""
    largest: int
    """Not bytes: values in a tensor."""


Pieces = tuple[int, ...]
"""Frames of the pieces of a clip, in order; of pieces that are all alike some may be left out."""


@dataclass(frozen=True)
class Region:
    """What one call sees: pixels or latent positions, and the sides with a margin."""

    height: int
    width: int
    inner: Sides = WHOLE_FRAME

    def area(self) -> int:
        return self.height * self.width


def encoder_tile(config: WFVAEConfig, dtype: torch.dtype, pieces: Pieces, pixels: Region) -> Cost:
    """A tile from the image to features."""
    return _cost(config, dtype, "encoder.features", 3, pieces, pixels)


def encoder_frame(config: WFVAEConfig, dtype: torch.dtype, pieces: Pieces, positions: Region) -> Cost:
    """A frame's features to moments."""
    channels = 2 * config.base_channels + config.encoder_energy_flow_hidden_size
    return _cost(config, dtype, "encoder.moments", channels, pieces, positions)


def decoder_frame(config: WFVAEConfig, dtype: torch.dtype, pieces: Pieces, positions: Region) -> Cost:
    """A frame's latent to features."""
    return _cost(config, dtype, "decoder.features", config.latent_dim, pieces, positions)


def decoder_tile(config: WFVAEConfig, dtype: torch.dtype, pieces: Pieces, positions: Region) -> Cost:
    """A tile from features to the image."""
    channels = 4 * config.base_channels + config.decoder_energy_flow_hidden_size
    return _cost(config, dtype, "decoder.video", channels, pieces, positions)


@cache
def _cost(config: WFVAEConfig, dtype: torch.dtype, part: str, channels: int, pieces: Pieces, region: Region) -> Cost:
    """The most of each amount in any of the pieces."""
    network = getattr(twin(config, dtype).get_submodule(part.split(".")[0]), part.split(".")[1])
    before: TimeState | None = None
    costs = []
    for i, frames in enumerate(pieces, 1):
        with torch.no_grad(), Fused(), Living() as living:
            living.watch(list((before or {}).values()))
            x = torch.empty((1, channels, frames, region.height, region.width), dtype=dtype, device="meta")
            piece, before = Piece(before, last=i == len(pieces), inner=region.inner), None
            made = network(x.contiguous(memory_format=torch.channels_last_3d), piece)
            result = made if isinstance(made, Tensor) else made[0]
        before = piece.after
        left = sum(state.nbytes for state in before.values())
        costs.append((living.peak, x.nbytes, result.nbytes, left, living.largest))
    return Cost(*map(max, zip(*costs, strict=True)))


@lru_cache(maxsize=4)
def twin(config: WFVAEConfig | CausalVAEConfig, dtype: torch.dtype) -> AnyVAE:
    """The model without weights."""
    with torch.device("meta"):
        model = build_model(config)
    return model.to(dtype).eval().requires_grad_(False)


def weight_bytes(config: WFVAEConfig | CausalVAEConfig, dtype: torch.dtype) -> int:
    return sum(tensor.nbytes for tensor in twin(config, dtype).state_dict().values())


class Fused(TorchFunctionMode):
    """Attention and norms as their kernels allocate: the result alone, which also is quickly told."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (F.scaled_dot_product_attention, F.layer_norm):
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


class Living(TorchDispatchMode):
    """Adds up the memory of the tensors that live, and keeps the most that there was at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.largest = 0
        """Values in one of them, at most."""
        self._living: dict[int, int] = {}

    def watch(self, made: Any) -> None:
        """Count the tensors in `made` from now on until they are gone."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._living:
                    self._living[key] = storage.nbytes()
                    weakref.finalize(storage, self._living.pop, key)
        self.peak = max(self.peak, sum(self._living.values()))

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.watch(made)
        return made
