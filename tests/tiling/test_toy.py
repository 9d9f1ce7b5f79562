"""A family of another kind gives the same result in tiles and windows: the executor knows only its network."""

from __future__ import annotations

import gc
import math
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tiling.plans import plan_of, through
from tests.tiling.toy import make_toy, toy_video
from vaectl.engine import HostOverhead, reconstruct_frames
from vaectl.errors import UsageError
from vaectl.memory import Limits
from vaectl.models import vae
from vaectl.progress import Silent
from vaectl.tiling.executor import Cut
from vaectl.tiling.plan import Budget, Plan, make_plan
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import reconstruct_windows
from vaectl.tiling.trace import Side

PLACES: list[Place] = ["device", "host", "disk"]
SIZES = {"height": st.integers(1, 40), "width": st.integers(1, 40)}
LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def test_one_of_them_streams():
    assert not make_toy(over_clip=True).streams
    assert make_toy(over_clip=False).streams


@settings(deadline=None, max_examples=40)
@given(**SIZES, lengths=LENGTHS, over_clip=st.booleans(), place=st.sampled_from(PLACES), data=st.data())
def test_tiles_and_windows_give_the_whole(height, width, lengths, over_clip, place, data):
    model, clip = make_toy(over_clip=over_clip), toy_video(sum(lengths), height, width)

    def choose(side: Side, number: int) -> Cut:
        return Cut(data.draw(st.integers(1, max(side.latent))), data.draw(st.integers(1, sum(lengths))))

    expected = model.reconstruct(clip)
    assert expected.shape == (1, 2, sum(lengths), height, width)
    made = through(model, clip, lengths, plan_of(model, clip, choose, place))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(**SIZES, lengths=LENGTHS, over_clip=st.booleans())
def test_windows_without_tiles_give_the_whole(height, width, lengths, over_clip):
    model, clip = make_toy(over_clip=over_clip), toy_video(sum(lengths), height, width)
    torch.testing.assert_close(through(model, clip, lengths, None), model.reconstruct(clip), rtol=0, atol=1e-12)


@pytest.mark.parametrize("over_clip", [False, True])
def test_frames_of_the_past_only_and_one_more_for_each_layer_that_looks_ahead(over_clip):
    """Otherwise the tests above would show little."""
    model, clip = make_toy(over_clip=over_clip), toy_video(13, 6, 6)
    changed = clip.clone()
    changed[:, :, 7:] += 0.1
    differs = (model.encode(changed).mean != model.encode(clip).mean).flatten(3).any(3).flatten(0, 1).any(0)
    assert differs.tolist() == [over_clip, over_clip, True, True, True]


@pytest.mark.parametrize("over_clip", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_windows_of_one_frame_tiles_of_one_position_and_two_clips(over_clip, dtype, bound):
    model, clip = make_toy(over_clip=over_clip, dtype=dtype), toy_video(8, 20, 15, batch=2, dtype=dtype)
    plan = plan_of(model, clip, lambda side, number: Cut(1, 1), "disk")
    made = through(model, clip, [1] * 8, plan)
    torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=bound)


@pytest.mark.parametrize("over_clip", [False, True])
def test_half_precision_loses_no_more_in_tiles(over_clip):
    model, clip = make_toy(over_clip=over_clip, dtype=torch.bfloat16), toy_video(7, 30, 30)
    exact = make_toy(over_clip=over_clip).reconstruct(clip)
    plan = plan_of(model, clip, lambda side, number: Cut(2, 2), "disk")
    made, whole = (video.double() - exact for video in (through(model, clip, [3, 4], plan), model.reconstruct(clip)))
    assert made.square().mean() < 2 * whole.square().mean()


@pytest.mark.parametrize("over_clip", [False, True])
def test_nan_spreads_as_it_does_without_tiles(monkeypatch, over_clip):
    model, clip = make_toy(over_clip=over_clip), toy_video(19, 30, 36)
    clip[0, 2, 15, 8, 9] = torch.nan
    plan = plan_of(model, clip, lambda side, number: Cut(2, 2))
    for check in ("check_video", "check_latent"):  # which refuse NaN from users
        monkeypatch.setattr(vae, check, lambda values, _channels: values)
    expected = model.reconstruct(clip)
    assert expected.isnan().any()
    assert over_clip == bool(expected.isnan().all())
    made = through(model, clip, [4, 6, 9], plan)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12, equal_nan=True)


def bytes_of(text: str) -> int:
    number, unit = text.split()
    return math.ceil(float(number) * {"B": 1, "MiB": 2**20}[unit])


@pytest.mark.parametrize("over_clip", [False, True])
def test_a_plan_within_a_limit_gives_the_whole(over_clip):
    """Within the smallest sufficient limit, with waiting values on disk, and with all in memory."""
    model, clip = make_toy(over_clip=over_clip), toy_video(19, 60, 78)
    places: tuple[Place, ...] = ("device", "disk")

    def plan(limit: int) -> Plan:
        return make_plan(model, 19, 60, 78, Budget(limit, 0, 0, places))

    with pytest.raises(UsageError, match="too small for 78x60 pixels; give at least") as error:
        plan(2**10)
    tight, wide = plan(bytes_of(str(error.value).rpartition(" at least ")[2])), plan(2**32)
    assert tight.peak < wide.peak
    assert min(cut.tile for cut in tight.decoder) < 13 == min(cut.tile for cut in wide.decoder)
    assert (tight.place, wide.place) == ("disk", "device")
    for each in (tight, wide):
        lengths = [each.window] * (19 // each.window)
        made = through(model, clip, [*lengths, 19 - sum(lengths)] if sum(lengths) < 19 else lengths, each)
        torch.testing.assert_close(made, model.reconstruct(clip), rtol=0, atol=1e-12)


@pytest.mark.parametrize("over_clip", [False, True])
def test_the_engine_takes_its_frames(over_clip):
    model = make_toy(over_clip=over_clip, dtype=torch.float32)
    frames = torch.randint(0, 255, (2, 8, 5, 50, 44), dtype=torch.uint8)
    overhead = HostOverhead.of(stored=50 * 44, frame=54 * 48, shown=50 * 44)

    def made(limits: Limits) -> Tensor:
        return reconstruct_frames(model, frames, Path("clip"), limits, overhead, Silent())

    whole = made(Limits())
    assert whole.shape == (2, 8, 2, 50, 44)
    for limits in (Limits(tiled=True), Limits(tiled=True, low_memory=True)):
        difference = (made(limits).int() - whole.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 2e-3


@pytest.mark.parametrize("over_clip", [False, True])
def test_clips_that_are_interleaved_do_not_disturb_each_other(over_clip):
    model = make_toy(over_clip=over_clip)
    clips = [toy_video(9, 30, 36), 1 - toy_video(9, 30, 36)]
    places: tuple[Place, Place] = ("device", "disk")
    streams = [
        reconstruct_windows(model, clip.split(2, dim=2), plan_of(model, clip, lambda side, number: Cut(2, 2), place))
        for clip, place in zip(clips, places, strict=True)
    ]
    made = [*zip_longest(*streams)]
    for clip, parts in zip(clips, zip(*made, strict=True), strict=True):
        video = torch.cat([part for part in parts if part is not None], dim=2)
        torch.testing.assert_close(video, model.reconstruct(clip), rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("over_clip", [False, True])
def test_nothing_is_left_of_a_run_that_is_closed_half_way(over_clip, place, tmp_path, monkeypatch):
    """Neither tensors nor open files, without the help of the garbage collector."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model, clip = make_toy(over_clip=over_clip), toy_video(19, 30, 36)
    plan = plan_of(model, clip, lambda side, number: Cut(2, 2), place)
    gc.collect()
    gc.disable()
    try:
        before = tensors(), open_files()
        stream = reconstruct_windows(model, clip.split(3, dim=2), plan)
        next(stream)
        if place == "disk":
            assert open_files() > before[1]
        stream.close()  # type: ignore[attr-defined]
        del stream
        assert (tensors(), open_files()) == before
    finally:
        gc.enable()
    assert list(tmp_path.iterdir()) == []


def tensors() -> int:
    return sum(issubclass(type(each), Tensor) and each.device.type == "cpu" for each in gc.get_objects())


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.parametrize("over_clip", [False, True])
def test_a_clip_that_was_not_planned_is_refused(over_clip):
    """Otherwise it would run with values that were never written. A streamed clip may have any length."""
    model, clip = make_toy(over_clip=over_clip), toy_video(10, 30, 36)
    plan = plan_of(model, clip, lambda side, number: Cut(2, 2))
    for other in (toy_video(10, 30, 42), toy_video(10, 18, 36)):
        with pytest.raises(ValueError, match="a plan for 36x30 pixels, and a clip of"):
            through(model, other, [10], plan)
    for num_frames in (4, 16):
        other = toy_video(num_frames, 30, 36)
        if over_clip:
            with pytest.raises(ValueError, match="frames was planned"):
                through(model, other, [num_frames], plan)
        else:
            torch.testing.assert_close(through(model, other, [num_frames], plan), model.reconstruct(other))


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("over_clip", [False, True])
def test_no_windows_give_none(over_clip, tiled):
    model = make_toy(over_clip=over_clip)
    plan = plan_of(model, toy_video(4, 6, 6), lambda side, number: Cut(1, 1)) if tiled else None
    assert [*reconstruct_windows(model, [], plan)] == []
