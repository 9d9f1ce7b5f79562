"""Random networks give the same result in fused segments, tiles and windows as in a single pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tiling.plans import by_windows
from tests.tiling.toy import ClipNormed, Enlarge, FrameNormed, LookAhead, Shrink, ToyConfig, ZeroConv3d, attention
from vaectl.models.context import StreamContext
from vaectl.models.layers import CausalConv3d, Layer
from vaectl.models.segments import Segment, run_segments
from vaectl.tiling.executor import Cut, Executor
from vaectl.tiling.fusion import Group, fuse, unfused
from vaectl.tiling.storage import DiskTensor, StateStore

CPU = torch.device("cpu")
NORMED = ToyConfig(width=4)
NAMES = "abcx"


class Join(Layer):
    """The sum of two values, either of which may be delayed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ZeroConv3d(4, 4)
        self.waiting = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, a: Tensor, b: Tensor, context: StreamContext) -> Tensor:  # type: ignore[override]
        a = self.conv.forward(a, context)
        held = [context.get(each) for each in self.waiting]
        both = [x if h is None else torch.cat([h, x], dim=2) for x, h in zip((a, b), held, strict=True)]
        num_frames = min(x.shape[2] for x in both)
        for each, x in zip(self.waiting, both, strict=True):
            context.put(each, x[:, :, num_frames:])
        return both[0][:, :, :num_frames] + both[1][:, :, :num_frames]

    def input_halo(self, halo: int) -> int:
        return self.conv.input_halo(halo)


@dataclass
class Network:
    """Segments from "x" to "y"; values have four channels."""

    segments: list[Segment] = field(default_factory=list)
    finer: int = 1
    """Positions of "x" to one of the coarsest value."""


def backwards(x: Tensor, context: StreamContext) -> Tensor:
    """Sees the clip."""
    return x.flip(2)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    scales = {"x": draw(st.sampled_from([1, 2, 4]))}
    made = Network(finer=scales["x"])
    kinds = ["conv", "causal", "look ahead", "shrink", "enlarge", "frame", "frame norm", "clip norm", "clip", "join"]
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=9))
    if draw(st.booleans()):
        chosen = [kind for kind in chosen if kind not in ("clip", "clip norm")]
    for kind in [*chosen, "last"]:
        x, y = draw(st.sampled_from(sorted(scales))), draw(st.sampled_from(NAMES))
        others = [name for name, scale in scales.items() if scale == scales[x] and name != x]
        scale, layer = scales[x], ZeroConv3d(4, 4)
        if kind == "look ahead":
            segments = LookAhead(4).segments(x, y)
        elif kind == "causal":
            segments = CausalConv3d(4, 4, 3, padding=1).segments(x, y)
        elif kind == "shrink" and scale > 1:
            segments, scale = Shrink(2).segments(x, y), scale // 2
        elif kind == "enlarge" and scale < 4:
            segments, scale = Enlarge(2).segments(x, y), scale * 2
        elif kind == "frame":
            segments = [Segment(attention, x, y, sees="frame")]
        elif kind == "frame norm":
            segments = FrameNormed(NORMED).segments(x, y)
        elif kind == "clip norm":
            segments = ClipNormed(NORMED).segments(x, y)
        elif kind == "clip":
            segments = [Segment(backwards, x, y, sees="clip")]
        elif kind == "join" and others:
            join = Join()
            segments = [Segment(join, f"{x} {draw(st.sampled_from(others))}", y, layer=join)]
        elif kind == "last":
            segments = layer.segments(x, "y")
        else:
            segments = layer.segments(x, y)
        made.segments += segments
        scales[y] = scale
    return made


def executor(groups: list[Group], cuts: list[Cut], latent: tuple[int, int]) -> Executor:
    parts = {"device": CPU, "dtype": torch.float64, "store": StateStore(), "make_room": DiskTensor}
    return Executor(groups, cuts, latent, **parts)  # type: ignore[arg-type]


@torch.no_grad()
@settings(deadline=None, max_examples=100)
@given(
    network=networks(),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    data=st.data(),
)
def test_any_network_in_tiles_and_windows_gives_the_whole(network, rows, columns, lengths, data):
    segments = network.segments
    for segment in segments:
        for layer in (segment.run, segment.layer):
            if isinstance(layer, nn.Module):
                layer.double()
    x = torch.rand(1, 4, sum(lengths), network.finer * rows, network.finer * columns, dtype=torch.float64)
    outputs, values = [], {"x": x}
    for segment in segments:
        made = segment([values[name] for name in segment.inputs.split()], StreamContext())
        values.update(zip(segment.outputs.split(), made, strict=True))
        outputs.append(made)
    expected = run_segments(segments, x, StreamContext())["y"]
    if all(segment.streams for segment in segments):
        streamed = by_windows(executor(unfused(segments), [Cut(1, 0)], (1, 1)), x, lengths)
        torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-11)

    coarsest = min((x.shape, *(y.shape for made in outputs for y in made)), key=lambda shape: shape[3])
    latent = (coarsest[3], coarsest[4])
    groups = fuse(segments, outputs, x)
    cuts = [Cut(data.draw(st.integers(1, max(latent))), data.draw(st.integers(1, 4))) for _ in groups]
    tiled = by_windows(executor(groups, cuts, latent), x, lengths)
    torch.testing.assert_close(tiled, expected, rtol=0, atol=1e-11)


@torch.no_grad()
def test_a_causal_layer_behind_one_that_looks_ahead_repeats_the_first_frame_that_comes():
    """It gets no frame with the first window."""
    ahead, causal = LookAhead(4).double(), CausalConv3d(4, 4, 3, padding=1).double()
    segments, x = [*ahead.segments("x", "h"), *causal.segments("h", "y")], torch.rand(1, 4, 5, 3, 3).double()
    expected = run_segments(segments, x, StreamContext())["y"]
    made = by_windows(executor(unfused(segments), [Cut(1, 0)], (1, 1)), x, [1] * 5)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
