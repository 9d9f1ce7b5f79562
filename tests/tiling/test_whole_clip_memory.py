"""Models that need the whole clip stay within the memory that was planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import video
from tests.video.media import encode
from vaectl.errors import UsageError, VaectlError
from vaectl.io import spill_file
from vaectl.memory import parse_size
from vaectl.models import save_model
from vaectl.models.vae import AnyVAE
from vaectl.tiling import plan as planning
from vaectl.tiling.plan import MEMORY_RESERVE, Budget, Plan, both_sides, make_plan
from vaectl.tiling.storage import Place
from vaectl.tiling.stream import reconstruct_windows

ROOT = Path(__file__).parents[2]
MiB = 2**20
CLIP = (33, 128, 128)
"""Frames, height, width."""


@pytest.fixture(scope="module")
def model() -> AnyVAE:
    return synthetic_model(load_reference("causalvae_class_defaults_narrow").config)


def plan(model: AnyVAE, limit: int, places: tuple[Place, ...] = ("device", "disk"), **options: object) -> Plan:
    low_memory = bool(options.pop("low_memory", False))
    return make_plan(model, *CLIP, Budget(limit, 0, 0, places, **options), low_memory=low_memory)  # type: ignore[arg-type]


def costliest(model: AnyVAE, plan: Plan) -> int:
    """Return the peak bytes of the costliest group."""
    sides = zip(both_sides(model, *plan.size), (plan.encoder, plan.decoder), strict=True)
    return max(side.estimate(number, cut).peak for side, cuts in sides for number, cut in enumerate(cuts))


def least(model: AnyVAE) -> int:
    with pytest.raises(UsageError, match=r"`memory_limit=1 MiB` is too small for 128x128 pixels; give at") as error:
        plan(model, MiB)
    return parse_size(str(error.value).rpartition(" at least ")[2])


def test_the_least_limit_that_is_named_does(model):
    named = least(model)
    assert plan(model, named + MiB).place == "disk"  # a MiB, because sizes are rounded where they are told
    with pytest.raises(UsageError, match="too small"):
        plan(model, named - MiB)


def test_the_least_limit_does_not_depend_on_the_length(model):
    def at(num_frames: int) -> str:
        with pytest.raises(UsageError) as error:
            make_plan(model, num_frames, 128, 128, Budget(MiB, 0, 0, ("device", "disk")))
        return str(error.value)

    assert at(33) == at(257)


@pytest.mark.parametrize("limit", [100 * MiB, 200 * MiB, 2**30, 2**32])
def test_plans_stay_within_the_limit_and_say_what_they_take(model, limit):
    made = plan(model, limit)
    assert made.peak <= limit
    assert costliest(model, made) <= planning.TILE_BYTES
    assert made.place == ("device" if limit >= 2**30 else "disk")
    assert plan(model, limit) == made


def test_on_a_gpu_clips_wait_on_the_host_if_it_has_room(model):
    gpu: tuple[Place, ...] = ("device", "host", "disk")
    assert plan(model, 2**32, gpu, host=2**32).place == "device"
    assert plan(model, 100 * MiB, gpu, host=2**32).place == "host"
    assert plan(model, 100 * MiB, gpu, host=MiB).place == "disk"
    assert plan(model, 2**32, gpu, host=2**32, low_memory=True).place == "host"


def test_low_memory_takes_less(model):
    low, generous = plan(model, 2**32, low_memory=True), plan(model, 2**32)
    assert low.place == "disk"
    assert low.peak < generous.peak / 2
    assert costliest(model, low) <= planning.SMALL_TILE_BYTES


@pytest.mark.parametrize("limit", [100 * MiB, 150 * MiB])
def test_a_run_writes_no_more_to_disk_than_was_planned(model, monkeypatch, limit):
    made, budget = plan(model, limit), Budget(limit, 0, 0, ("device", "disk"))
    assert made.place == "disk"
    files, most = weakref.WeakSet[spill_file.SpillFile](), 0
    allocate = spill_file.SpillFile.allocate

    def counted(file: spill_file.SpillFile, size: int) -> int:
        nonlocal most
        start = allocate(file, size)
        files.add(file)
        most = max(most, sum(each._end for each in files))
        return start

    monkeypatch.setattr(spill_file.SpillFile, "allocate", counted)
    for _ in reconstruct_windows(model, video(*CLIP).split(made.window, dim=2), made):
        pass
    needed = planning.needed(model, made, budget).waiting
    assert 0.5 * needed < most <= needed


def test_with_the_device_alone_the_smallest_plan_is_named(model):
    with pytest.raises(UsageError, match=r"too small .*; give at least"):
        plan(model, MiB, ("device",))


def test_a_disk_without_room_is_told_before_the_clip_is_read(model, monkeypatch):
    monkeypatch.setattr(spill_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * MiB))
    with pytest.raises(VaectlError, match=r"10 MiB free, but the run needs .*; set TMPDIR .* or raise `memory_limit`"):
        plan(model, 100 * MiB)


PEAK = """
import sys, torch
from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import video
from tests.tiling.plans import plan_of, within
from vaectl.memory import peak
from tests.tiling.test_whole_clip_memory import costliest
from vaectl.tiling.plan import both_sides
from vaectl.tiling.stream import reconstruct_windows

torch.set_num_threads(1)
name, place, most = sys.argv[1:]
model = synthetic_model(load_reference(name).config)
clip = video(5, 256, 192)
plan = plan_of(model, clip, within(int(most), place, 5), place)
model.reconstruct(clip[:, :, :1, :32, :32])
before = peak(model.device)
for _ in reconstruct_windows(model, clip.split(3, dim=2), plan):
    pass
kept = max(side.kept() for side in both_sides(model, *plan.size))
print(peak(model.device) - before, costliest(model, plan), kept)
"""


@pytest.mark.parametrize(
    ("name", "place", "most"),
    [("causalvae_v1_2", "disk", 32 * MiB), ("wfvae_class_defaults_narrow", "device", 12 * MiB)],
)
def test_a_process_takes_what_was_planned(name, place, most):
    """Next to the weights of one layer, and of the clip; both are some MiB here."""
    line = [sys.executable, "-c", PEAK, name, place, str(most)]
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}  # what is freed goes back: plans have no gaps
    ran = subprocess.run(line, cwd=ROOT, env=at_once, capture_output=True, text=True, check=True)
    taken, pieces, kept = map(int, ran.stdout.split())
    planned = MEMORY_RESERVE * pieces + (kept if place == "device" else 0)
    assert pieces <= most
    assert 0.5 * planned < taken < 1.1 * planned + 12 * MiB


def test_a_run_stays_within_its_limit(model, tmp_path):
    clip = encode(tmp_path / "clip.mp4", 5, size=(96, 96))
    save_model(model, tmp_path / "model")
    line = f"-m vaectl reconstruct --video-path {clip} --rec-path out.mp4 --model model --device cpu --json"

    def vaectl(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *line.split(), "--memory-limit", str(limit)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    refused = vaectl(MiB)
    assert refused.returncode == 2
    limit = parse_size(refused.stderr.strip().rpartition(" at least ")[2])
    limit += 33 * MiB  # what a process takes by itself is counted in steps of 32 MiB, and may differ by one
    ran = vaectl(limit)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["peak_memory"] <= 1.1 * limit
