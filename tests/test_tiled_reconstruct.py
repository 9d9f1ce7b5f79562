"""`vaectl reconstruct` tile by tile: the same frames, within a limit, and what is said when that cannot be."""

import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener, files, run, run_one
from tests.models.reference import load_reference, synthetic_model
from tests.video.media import encode
from vaectl import engine
from vaectl.engine import HostOverhead, reconstruct_frames
from vaectl.errors import UsageError, VaectlError
from vaectl.memory import Limits, parse_size
from vaectl.models import load_model, save_model
from vaectl.rng import generator_for
from vaectl.tiling import plan
from vaectl.tiling.executor import Executor
from vaectl.tiling.storage import DiskStateStore
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """21 frames of 88x200: several windows, and several of the smallest tiles."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", 21, size=(200, 88))


def frames(source, target, listener=None, **options):
    run_one(source, target, listener, lossless=True, **options)
    return read_video(target).frames.int()


def least(clip, tmp_path, **options):
    with pytest.raises(UsageError, match="too small") as error:
        run(clip, tmp_path / "least.mkv", memory_limit=2**20, **options)
    return parse_size(str(error.value).rpartition("give at least ")[2])


@pytest.mark.parametrize("options", [{"enable_tiling": True}, {"save_memory": True}, {"memory_limit": "least"}])
def test_tiles_give_the_frames_of_the_whole(clip, tmp_path, options):
    if "memory_limit" in options:
        options = {"memory_limit": least(clip, tmp_path)}
    listener = Listener()
    whole, tiled = frames(clip, tmp_path / "a.mkv"), frames(clip, tmp_path / "b.mkv", listener, **options)
    difference = (whole - tiled).abs()
    # A rounding of 1e-5 in float32 decides between two levels once in a thousand values.
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3
    (note,) = listener.notes
    tiles = r"tiles of \d+ pixels" if "memory_limit" in options else "whole frames"
    assert re.fullmatch(
        rf"{tiles}, windows of \d+ frames, causal caches (in memory|on disk), estimated peak \S+ [MG]iB on cpu", note
    )


def test_a_tight_limit_cuts_the_frame_and_spools_the_state(clip, tmp_path):
    listener = Listener()
    run_one(clip, tmp_path / "a.mkv", listener, memory_limit=least(clip, tmp_path))
    pixels = re.match(r"tiles of (\d+) pixels, windows of 4 frames, causal caches on disk", listener.notes[0])
    assert pixels
    assert int(pixels[1]) < 200


def test_every_error_of_a_folder_run_names_its_clip(clip, tmp_path):
    (tmp_path / "in").mkdir()
    sources = [tmp_path / "in" / name for name in ("a.mp4", "b.mp4")]
    for source in sources:
        shutil.copy(clip, source)
    result = run(tmp_path / "in", tmp_path / "out", memory_limit=2**20)
    for source, made in zip(sources, result.clips, strict=True):
        assert made.error is not None
        assert made.error.startswith(f"{source}: `memory_limit=1 MiB` is too small")


def test_a_limit_above_what_the_machine_has_is_warned_about(clip, tmp_path):
    listener = Listener()
    run_one(clip, tmp_path / "a.mp4", listener, memory_limit=2**50, num_frames=2)
    (warning,) = listener.warnings
    assert re.fullmatch(r"`memory_limit` is 1048576\.00 GiB, but cpu has only .*", warning)


@pytest.fixture(scope="module")
def whole_clip_model(tmp_path_factory):
    """Save a model that needs the whole clip."""
    folder = tmp_path_factory.mktemp("model")
    save_model(synthetic_model(load_reference("causalvae_v1_2").config), folder)
    return folder


@pytest.mark.parametrize("options", [{"enable_tiling": True}, {"save_memory": True}, {"memory_limit": "least"}])
def test_a_model_that_looks_at_the_whole_clip_gives_the_frames_of_the_whole(clip, tmp_path, whole_clip_model, options):
    model = {"model": whole_clip_model, "num_frames": 6, "width": 64}
    if "memory_limit" in options:
        options = {"memory_limit": least(clip, tmp_path, **model)}
    listener = Listener()
    whole, tiled = (
        frames(clip, tmp_path / "a.mkv", **model),
        frames(clip, tmp_path / "b.mkv", listener, **model, **options),
    )
    difference = (whole - tiled).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 2e-3
    (note,) = listener.notes
    place = "in memory" if "enable_tiling" in options else "on disk"
    assert re.fullmatch(
        rf"this model needs the whole clip: 54 groups of layers, with the data between them {place}, .* on cpu", note
    )
    assert listener.warnings == []
    assert listener.clips == [(str(clip), 6, 6)]


def test_a_disk_without_room_is_reported_before_the_first_group(clip, tmp_path, whole_clip_model, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 2**20))
    with pytest.raises(VaectlError, match=r"1 MiB free, but the run needs .*; set TMPDIR to another folder"):
        run(clip, tmp_path / "a.mp4", model=whole_clip_model, num_frames=5, save_memory=True)
    assert files(tmp_path) == {}


def without_memory(self, clip):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
    yield


def test_out_of_memory_is_tried_once_more_within_half(clip, tmp_path, monkeypatch):
    calls = []

    def run(self, clip):
        for made in original(self, clip):
            calls.append(made)
            if len(calls) == 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            yield made

    original = Executor.run
    monkeypatch.setattr(Executor, "run", run)
    listener = Listener()
    result = run_one(clip, tmp_path / "a.mp4", listener, memory_limit=4 * 2**30)
    assert result.num_frames == 21
    (warning,) = listener.warnings
    assert "out of memory on cpu" in warning
    assert warning.endswith("retrying within 2.00 GiB")


def test_out_of_memory_twice_is_an_error(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(Executor, "run", without_memory)
    with pytest.raises(VaectlError, match="out of memory on cpu"):
        run(clip, tmp_path / "a.mp4", enable_tiling=True)
    assert files(tmp_path) == {}


def test_half_that_is_too_little_for_any_plan_is_still_a_lack_of_memory(clip, tmp_path, monkeypatch):
    limit = least(clip, tmp_path)

    monkeypatch.setattr(Executor, "run", without_memory)
    listener = Listener()
    with pytest.raises(engine.OutOfMemoryError, match=r"clip\.mp4: out of memory on cpu; use `enable"):
        run(clip, tmp_path / "a.mp4", listener, memory_limit=limit)
    assert len(listener.warnings) == 1


def test_half_is_of_what_the_machine_has_where_more_was_asked_for(monkeypatch):
    monkeypatch.setattr(engine, "obtainable", lambda device: 2**30)
    tried = []

    def attempt(limits):
        tried.append(limits.memory_limit)
        raise engine.OutOfMemoryError("clip.mp4: out of memory")

    for asked in (2**40, None):
        with pytest.raises(engine.OutOfMemoryError):
            engine.retry_on_oom(attempt, load_model(device="cpu"), Limits(True, asked), Listener())
    assert tried == [2**40, 2**29, None, round(0.9 * 2**30) // 2]


def test_a_second_attempt_draws_the_same_noise(monkeypatch):
    clip = torch.randint(0, 255, (1, 13, 3, 16, 32), dtype=torch.uint8)
    beside, model = HostOverhead.of(stored=512, frame=512, shown=512), load_model(device="cpu")

    def made():
        noise = generator_for(0, "clip")
        return reconstruct_frames(model, clip, Path("clip"), Limits(True, 2**31), beside, Listener(), noise)

    def run(self, windows):
        for y in original(self, windows):
            calls.append(y)
            if len(calls) == 4:  # of the encoder and the decoder in turn
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            yield y

    calls, original = [], Executor.run
    monkeypatch.setattr(engine, "make_plan", lambda *_, **__: plan.uniform_plan(model, 13, 16, 32, tile=2, window=4))
    wanted = made()
    monkeypatch.setattr(Executor, "run", run)
    assert torch.equal(made(), wanted)
    assert len(calls) > 8


def test_on_a_gpu_what_goes_beyond_the_limit_is_refused(monkeypatch):
    """1000 bytes of others stay out of the count."""
    model, given = load_model(device="cpu"), []
    weights = sum(weight.nbytes for weight in model.parameters())
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: weights + 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 10_000_000_000))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: given.append(share))
    for limit in (2_000_000_000, 20_000_000_000):
        engine.keep_within(model, limit)
    assert given == [pytest.approx(0.2 + 1e-7), 1.0]


def test_a_spool_leaves_nothing_when_it_is_interrupted(clip, tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setenv("TMPDIR", str(spool))
    limit = least(clip, tmp_path)
    seen = []

    def put(self, key, state):
        original(self, key, state)
        seen.append(key)
        if len(seen) > 5:
            raise KeyboardInterrupt

    original = DiskStateStore.put
    monkeypatch.setattr(DiskStateStore, "put", put)
    with pytest.raises(KeyboardInterrupt):
        run(clip, tmp_path / "a.mp4", memory_limit=limit)
    assert files(tmp_path) == {"spool": None}


def test_a_plan_depends_on_limit_and_shapes_alone():
    model = synthetic_model(load_reference("wfvae_4x8x8").config)
    budget = plan.Budget(2**28, 2**26, 2**20, ("device", "disk"))
    plans = {plan.make_plan(model, 33, 256, 256, budget) for _ in range(2)}
    assert len(plans) == 1
    longer = plan.make_plan(model, 257, 256, 256, budget)
    assert plans == {replace(longer, size=(33, 256, 256))}  # nor on the length
