"""Find the shapes and the memory of a network: run the executor on tensors that have shapes and no data."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
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
from vaectl.tiling.fusion import FusedSegment, Group, Outputs, fuse
from vaectl.tiling.grid import Tile, windows
from vaectl.tiling.storage import Index, OffloadedTensor, StateStore, bounds
from vaectl.video.clip import batch_to_frames

META = torch.device("meta")


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a group."""

    peak: int
    """Peak bytes of all tensors on the device."""
    state: int
    """Bytes of the causal caches of all tiles between two windows."""
    largest: int
    """Values in the largest tensor."""


@lru_cache(maxsize=8)
def meta_model(family: type[AnyVAE], config: FamilyConfig, dtype: torch.dtype) -> AnyVAE:
    """Create the model without weights."""
    with torch.device("meta"):
        model = family(config)
    return model.to(dtype).eval().requires_grad_(False)


@dataclass(frozen=True)
class Side:
    """One network of a model, without its weights, and its input: a clip, padded to what the network takes."""

    family: type[AnyVAE]
    config: FamilyConfig
    dtype: torch.dtype
    name: Literal["encoder", "decoder"]
    cpu: bool
    """Whether it runs on the CPU, whose kernels take memory of their own."""
    x: torch.Size
    """Shape of the input."""
    given: tuple[int, ...] = ()
    """Lengths of the windows of the first group, if they are known; of equal ones, the first few."""

    @property
    def model(self) -> AnyVAE:
        """The model without weights."""
        return meta_model(self.family, self.config, self.dtype)

    @property
    def outputs(self) -> Outputs:
        """The outputs of each segment for the whole clip, without data."""
        return traced(replace(self, given=()))[0]

    @property
    def groups(self) -> list[Group]:
        """The groups of the network."""
        return traced(replace(self, given=()))[1]

    @property
    def latent(self) -> tuple[int, int]:
        """Height and width of the latent."""
        height, width = (self.outputs[-1][0].shape if self.name == "encoder" else self.x)[3:]
        return height, width

    @property
    def weight_bytes(self) -> int:
        """Bytes of both networks, plus the largest tensor: kernels copy the weights of a layer in another order."""
        sizes: list[int] = [tensor.nbytes for tensor in self.model.state_dict().values()]
        return sum(sizes) + max(sizes)

    def input(self, number: int) -> Tensor:
        """Return the input of a group for the whole clip, without data."""
        if number == 0:
            return torch.empty(self.x, dtype=self.dtype, device=META)
        return self.kept_before(number)[self.groups[number].first.inputs.split()[0]]

    def kept_before(self, number: int) -> dict[str, Tensor]:
        """Return the values that earlier groups have kept, without data."""
        return {name: value for group in self.groups[:number] for name, value in group.kept.items()}

    def bytes_per_frame(self, number: int) -> float:
        """Return the bytes of the input of a group and of the values it keeps, per frame of the input."""
        given = self.input(number)
        values = [given, *self.groups[number].kept.values()]
        return sum(value.nbytes for value in values) / given.shape[2]

    def estimate(self, number: int, cut: Cut) -> MemoryEstimate:
        """Estimate the memory of a group with this cut."""
        lengths = self.given if number == 0 else ()
        if not lengths:
            lengths = tuple(windows(self.input(number).shape[2], cut.window))
            # The first windows make fewer frames than others, the last may make more; those in between are alike.
            lengths = (*lengths[:3], *lengths[3:][-1:])
        return estimate(replace(self, given=()), number, cut, lengths)

    def kept(self) -> int:
        """Return the peak bytes of the values that wait between groups."""
        waiting: dict[str, Tensor] = {}
        most = 0
        for group in self.groups:
            planes = [waiting[name] for name in group.first.inputs.split()] if group.first.sees == "clip" else []
            most = max(most, sum(value.nbytes for value in (*waiting.values(), *group.kept.values(), *planes)))
            waiting = {name: value for name, value in (waiting | group.kept).items() if name in group.live}
        return most


@lru_cache(maxsize=64)  # clips of one folder often have one size
def traced(side: Side) -> tuple[Outputs, list[Group]]:
    """Run a network on a clip without data: the outputs of each segment, and the groups."""
    segments = side.model.encoder_segments() if side.name == "encoder" else side.model.decoder_segments()
    values, outputs = {"x": side.input(0)}, list[tuple[Tensor, ...]]()
    with torch.no_grad(), FusedKernels(cpu=False):
        for segment in segments:
            made = segment([values[name] for name in segment.inputs.split()], StreamContext())
            values.update(zip(segment.outputs.split(), made, strict=True))
            outputs.append(made)
    return outputs, fuse(segments, outputs, side.input(0))


@lru_cache(maxsize=4096)
def estimate(side: Side, number: int, cut: Cut, lengths: tuple[int, ...]) -> MemoryEstimate:
    """Estimate the memory of the group with that number, for windows of these lengths."""
    executor = TracingExecutor(side, number)
    kept: dict[str, OffloadedTensor] = {
        name: TracedTensor(value.shape, value.dtype, MetaRoom) for name, value in side.kept_before(number).items()
    }
    clip: Sequence[Tensor | int] = lengths
    if number == 0:
        b, c, _, h, w = side.x
        dtype = torch.uint8 if side.name == "encoder" and not side.cpu else side.dtype  # on the CPU: the caller's
        given = [torch.empty((b, c, num_frames, h, w), dtype=dtype, device=META) for num_frames in lengths]
        executor.memory.ignore(*given)  # the caller's
        clip = given
    with torch.no_grad(), FusedKernels(cpu=side.cpu), executor.memory:
        if executor.group.first.sees == "clip":
            executor.see_clip(executor.group, cut, kept)
        else:
            windows = [(x, i == len(clip)) for i, x in enumerate(clip, 1)]
            for _ in GroupRun(executor, executor.group, cut, kept).run(windows):
                pass
    return MemoryEstimate(executor.memory.peak, executor.state, executor.memory.largest)


class TracingExecutor(Executor):
    """Runs one group, with only the largest tile of each part, and stores nothing."""

    def __init__(self, side: Side, number: int) -> None:
        self.group, self.memory, self.caches = side.groups[number], PeakMemoryMode(), CountingStore()
        super().__init__(
            [self.group], [], side.latent, device=META, dtype=side.dtype, store=self.caches, make_room=MetaRoom
        )
        if side.name == "decoder" and not side.cpu:
            self.finish = checked_frames
        self.result_elsewhere = side.name == "decoder" and side.cpu
        """Whether the result is counted elsewhere: on the CPU, with the memory of the host."""
        self.shares: dict[int, float] = {}
        """For each part, the area of all tiles as a ratio to the largest."""

    @property
    def state(self) -> int:
        """Bytes of the caches of all tiles."""
        return round(sum(size * self.shares[part] for part, size in self.caches.largest.items()))

    def tiles(self, part: FusedSegment, cut: Cut) -> list[Tile]:
        def area(tile: Tile) -> int:
            halo, scale = max(part.inputs.values(), key=lambda each: each[0] / each[1])
            rows, columns = tile.read(halo, scale, tile.halo_sides(part.inputs.values()))
            return int((rows.stop - rows.start) * (columns.stop - columns.start))

        tiles = super().tiles(part, cut)
        largest = max(tiles, key=area)
        self.shares[self.group.parts.index(part)] = sum(map(area, tiles)) / area(largest)
        return [largest]

    def gather(self, x_BTHWC: Tensor) -> Statistics:
        mean_and_variance(x_BTHWC[:, :1])  # it takes one frame after the other
        return unknown(x_BTHWC.permute(0, 4, 1, 2, 3).shape)

    def empty_frames(self, tile: Tensor, scale: int, *, result: bool) -> Tensor:
        room = super().empty_frames(tile, scale, result=result)
        if result and self.result_elsewhere:
            self.memory.ignore(room)
        return room


def checked_frames(y_BCTHW: Tensor) -> Tensor:
    """Allocate what the engine allocates to check a tile of the result and to convert it to 8-bit frames."""
    y_BCTHW.isfinite().all()
    return batch_to_frames(y_BCTHW).transpose(1, 2)


class MetaRoom:
    """Storage that stores nothing: reading from it makes a new tensor without data."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._shape, self._dtype = shape, dtype

    def __setitem__(self, region: Index, values: Tensor) -> None:
        values.contiguous()

    def __getitem__(self, region: Index) -> Tensor:
        return torch.empty([len(each) for each in bounds(self._shape, region)], dtype=self._dtype, device=META)

    def view(self, shape: Sequence[int]) -> MetaRoom:
        return MetaRoom(shape, self._dtype)


class TracedTensor(OffloadedTensor):
    """A value of the whole clip without data."""

    @property
    def statistics(self) -> Statistics:
        return unknown(self.shape)


def unknown(shape: torch.Size) -> Statistics:
    """Return statistics without data for frames of `shape`, (B, C, T, ...)."""
    nothing = torch.empty(shape[:3], dtype=torch.float64, device=META)
    return Statistics(1, nothing, nothing)


class CountingStore(StateStore):
    """Records the bytes of the largest cache of each part."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: Counter[int] = Counter()

    def put(self, key: Hashable, cache: CausalCache) -> None:
        super().put(key, cache)
        _, part, _ = cast(tuple[int, int, int], key)
        self.largest[part] = max(self.largest[part], sum(frames.nbytes for frames in cache.values()))


class FusedKernels(TorchFunctionMode):
    """Makes attention, norms and convolutions allocate as their kernels do. This also makes a trace faster."""

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
                x, weight = x[:, :, None], weight[:, :, None]
                stride, padding = (1, stride, stride), (0, padding, padding)
            x.new_empty(workspace(x, weight, stride, padding))
        return made


class PeakMemoryMode(TorchDispatchMode):
    """Adds up the memory of all tensors in use, and records the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.largest = 0
        """Values in the largest tensor."""
        self._living: dict[int, int] = {}

    def watch(self, made: Any) -> None:
        """Count the tensors in `made` until they are freed, except weights, and those in a format of oneDNN."""
        for tensor in tree_leaves(made):
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
                continue
            if not isinstance(tensor._base, nn.Parameter):
                self.largest = max(self.largest, tensor.numel())
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._living:
                    self._living[key] = storage.nbytes()
                    weakref.finalize(storage, self._living.pop, key)
        self.peak = max(self.peak, sum(self._living.values()))

    def ignore(self, *tensors: Tensor) -> None:
        """Do not count these tensors."""
        for tensor in tensors:
            self._living[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.watch(made)
        return made
