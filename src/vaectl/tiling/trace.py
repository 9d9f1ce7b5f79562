"""What a network takes and makes, found by running the executor on tensors that have shapes and no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaectl.models.config import FamilyConfig
from vaectl.models.context import CausalCache, StreamContext
from vaectl.models.convolution import workspace
from vaectl.models.statistics import Statistics, mean_and_variance
from vaectl.models.vae import AnyVAE
from vaectl.tiling.executor import Cut, Executor, GroupRun
from vaectl.tiling.fusion import FusedSegment, Group, Shapes, fuse
from vaectl.tiling.grid import Slices, Tile
from vaectl.tiling.storage import MemoryStore, OffloadedTensor

META = torch.device("meta")


@dataclass(frozen=True)
class Network:
    """One side of a model, without its weights."""

    family: type[AnyVAE]
    config: FamilyConfig
    dtype: torch.dtype
    side: Literal["encoder", "decoder"]
    cpu: bool
    """Whether it runs on the CPU, whose kernels take memory of their own."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a group takes."""

    peak: int
    """Bytes at the costliest moment, of all tensors on the device that live then."""
    state: int
    """Bytes of the causal caches of all tiles between two windows."""
    largest: int
    """Values in a tensor, at most."""


@lru_cache(maxsize=8)
def meta_model(family: type[AnyVAE], config: FamilyConfig, dtype: torch.dtype) -> AnyVAE:
    """The model without weights."""
    with torch.device("meta"):
        model = family(config)
    return model.to(dtype).eval().requires_grad_(False)


def weight_bytes(network: Network) -> int:
    """Of both sides, and once more of the largest tensor: kernels want the weights of a layer in their own order."""
    sizes = [
        tensor.nbytes for tensor in meta_model(network.family, network.config, network.dtype).state_dict().values()
    ]
    return int(sum(sizes) + max(sizes))


def segments_of(model: AnyVAE, side: str) -> list[Any]:
    return model.encoder_segments() if side == "encoder" else model.decoder_segments()


@lru_cache(maxsize=64)  # clips of one folder often have one size
def value_shapes(network: Network, x: torch.Size) -> Shapes:
    """The shapes of what each segment gives, for a whole clip `x`."""
    segments = segments_of(meta_model(network.family, network.config, network.dtype), network.side)
    values, shapes = {"x": torch.empty(x, dtype=network.dtype, device=META)}, []
    with torch.no_grad(), FusedKernels(cpu=False):
        for segment in segments:
            made = segment([values[name] for name in segment.inputs.split()], StreamContext())
            values.update(zip(segment.outputs.split(), made, strict=True))
            shapes.append(tuple(y.shape for y in made))
    return shapes


@lru_cache(maxsize=64)
def meta_groups(network: Network, x: torch.Size) -> list[Group]:
    segments = segments_of(meta_model(network.family, network.config, network.dtype), network.side)
    return fuse(segments, value_shapes(network, x), x)


def latent_size(network: Network, x: torch.Size) -> tuple[int, int]:
    """Height and width of the latent of an encoder's or decoder's clip `x`."""
    height, width = (value_shapes(network, x)[-1][0] if network.side == "encoder" else x)[3:]
    return height, width


@lru_cache(maxsize=4096)
def estimate(network: Network, x: torch.Size, number: int, cut: Cut, lengths: tuple[int, ...]) -> MemoryEstimate:
    """Of the group with that number, for a clip `x` and windows of these lengths; of those alike, one will do."""
    groups = meta_groups(network, x)
    group = groups[number]
    executor = TracingExecutor(network, group, latent_size(network, x))
    kept: dict[str, OffloadedTensor] = {
        name: TracedTensor(shape, network.dtype) for each in groups[:number] for name, shape in each.kept.items()
    }
    inputs: list[Tensor | int] = [*lengths]
    if number == 0:
        given = [torch.empty((*x[:2], frames, *x[3:]), dtype=network.dtype, device=META) for frames in lengths]
        for window in given:  # they are not the network's
            executor.memory.ignore(window)
        inputs = [*given]
    with torch.no_grad(), FusedKernels(cpu=network.cpu), executor.memory:
        if group.first.sees == "clip":
            executor.see_clip(group, cut, kept)
        else:
            clip = [(x, i == len(inputs)) for i, x in enumerate(inputs, 1)]
            for _ in GroupRun(executor, group, cut, kept).run(clip):
                pass
    return MemoryEstimate(executor.memory.peak, executor.caches.total(executor.shares), executor.memory.largest)


def no_buffer(count: int, dtype: torch.dtype) -> Any:
    raise AssertionError("a trace keeps no values")


class TracingExecutor(Executor):
    """Runs the costliest tile alone, and holds of what waits no more than its size."""

    def __init__(self, network: Network, group: Group, latent: tuple[int, int]) -> None:
        self.caches = CountingStore()
        super().__init__(
            [group],
            [],
            latent,
            device=META,
            dtype=network.dtype,
            store=self.caches,
            make_buffer=no_buffer,
        )
        self.memory = PeakMemoryMode()
        self.result_on_host = network.side == "decoder"
        self.shares: dict[int, float] = {}
        """How often the area of the costliest tile goes into those of all, for each part."""

    def tiles(self, part: FusedSegment, cut: Cut) -> list[Tile]:
        def area(tile: Tile) -> int:
            halo, scale = max(part.inputs.values(), key=lambda each: each[0] / each[1])
            rows, columns = tile.read(halo, scale, tile.halo_sides(part.inputs.values()))
            return int((rows.stop - rows.start) * (columns.stop - columns.start))

        tiles = super().tiles(part, cut)
        largest = max(tiles, key=area)
        self.shares[self.groups[0].parts.index(part)] = sum(map(area, tiles)) / area(largest)
        return [largest]

    def keep(self, group: Group, name: str, batch: int) -> OffloadedTensor:
        return TracedTensor(group.kept[name], self.dtype, statistics=name in group.normalised)

    def gather(self, x_BCTHW: Tensor) -> Statistics:
        mean_and_variance(x_BCTHW[:, :, :1].permute(0, 2, 3, 4, 1))  # goes frame by frame
        return unknown(x_BCTHW.shape)

    def window(self, frames: torch.Size, scale: int, *, result: bool) -> Tensor:
        room = super().window(frames, scale, result=result)
        if result and self.result_on_host:
            self.memory.ignore(room)
        return room

    def see_clip(self, group: Group, cut: Cut, kept: dict[str, OffloadedTensor]) -> dict[str, OffloadedTensor]:
        segment, clip = group.first, kept[group.first.inputs.split()[0]]
        b, c, _, h, w = clip.shape
        _, *view = segment.view(*clip.shape) if segment.view else clip.shape
        segment.run(
            *(torch.empty((1, *view), dtype=self.dtype, device=META) for _ in segment.inputs.split()), StreamContext()
        )
        # Frames as they are read, one plane of them after the other, and as they are written.
        torch.empty((3, b, cut.window, h, w, c), dtype=self.dtype, device=META)
        return {}


class TracedTensor(OffloadedTensor):
    """A value of the clip that is nowhere: to read it makes a tensor of that size."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, *, statistics: bool = False) -> None:
        self.shape, self.dtype, self._gather = torch.Size(shape), dtype, statistics

    @property
    def statistics(self) -> Statistics:
        return unknown(self.shape)

    def write(self, frame: int, place: Slices, x_BCTHW: Tensor) -> None:
        dense = x_BCTHW.permute(0, 2, 3, 4, 1).contiguous()
        if self._gather and dense.shape[1]:
            mean_and_variance(dense[:, :1])  # goes frame by frame

    def read(self, frames: slice, place: Slices | None = None) -> Tensor:
        b, c, _, h, w = self.shape
        rows, columns = place or (slice(0, h), slice(0, w))
        size = (b, frames.stop - frames.start, rows.stop - rows.start, columns.stop - columns.start, c)
        return torch.empty(size, dtype=self.dtype, device=META).permute(0, 4, 1, 2, 3)


def unknown(shape: torch.Size) -> Statistics:
    nothing = torch.empty(shape[:3], dtype=torch.float64, device=META)
    return Statistics(1, nothing, nothing)


class CountingStore(MemoryStore):
    """Adds up what the causal caches take."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes: dict[int, int] = {}

    def put(self, key: Hashable, cache: CausalCache) -> None:
        super().put(key, cache)
        _, part, _ = cast(tuple[int, int, int], key)
        self._bytes[part] = max(self._bytes.get(part, 0), sum(frames.nbytes for frames in cache.values()))

    def total(self, shares: Mapping[int, float]) -> int:
        """Of all tiles."""
        return round(sum(size * shares[part] for part, size in self._bytes.items()))


class FusedKernels(TorchFunctionMode):
    """Attention, norms and convolutions as their kernels allocate, which also is quickly known."""

    def __init__(self, *, cpu: bool) -> None:
        super().__init__()
        self._cpu = cpu

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (F.scaled_dot_product_attention, F.layer_norm):
            return torch.empty_like(args[0])
        made = function(*args, **(kwargs or {}))
        if self._cpu and function in (F.conv2d, F.conv3d) and args[0].dtype == torch.float32:
            x, weight, _, stride, padding = args
            if function is F.conv2d:
                x, weight, stride, padding = (
                    x[:, :, None],
                    weight[:, :, None],
                    (1, stride, stride),
                    (0, padding, padding),
                )
            x.new_empty(workspace(x, weight, stride, padding))
        return made


class PeakMemoryMode(TorchDispatchMode):
    """Adds up the memory of the tensors that live, and keeps the most that there was at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.largest = 0
        """Values in one of them, at most."""
        self._living: dict[int, int] = {}

    def watch(self, made: Any) -> None:
        """Count the tensors in `made` from now on until they are gone, but for weights."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and not isinstance(tensor._base, nn.Parameter):
                self.largest = max(self.largest, tensor.numel())
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._living:
                    self._living[key] = storage.nbytes()
                    weakref.finalize(storage, self._living.pop, key)
        self.peak = max(self.peak, sum(self._living.values()))

    def ignore(self, tensor: Tensor) -> None:
        """Do not count this tensor any longer."""
        self._living[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.watch(made)
        return made
