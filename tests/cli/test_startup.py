"""What a run imports, and what the garbage collector does meanwhile: both decide how soon a command starts."""

import gc
import os
import subprocess
import sys

import pytest

from tests.video.media import encode
from vaectl.cli import garbage

PROGRAM = """
import atexit, gc, sys
from vaectl.__main__ import main
import vaectl.cli.interruption as interruption
atexit.register(lambda: print("MODULES", *sys.modules, file=sys.stderr))
def check(before=interruption.check):
    before()
    print("COLLECTS before the work:", gc.isenabled(), file=sys.stderr)
interruption.check = check
atexit.register(lambda: print("COLLECTS at the end:", gc.isenabled(), len(gc.get_objects()) < 1000, file=sys.stderr))
sys.exit(main())
"""
NEVER = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "lpips", "skimage", "tensorboard")
NETWORKS = ("vaectl.engine", "vaectl.models.build", "vaectl.models.vae", "vaectl.tiling.plan", "einops")
OF_OPTIONS = ("vaectl.evaluation.report", "vaectl.evaluation.cost", "scipy")


def modules(*arguments: str) -> set[str]:
    """Run a command, and return the modules that it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "COLLECTS before the work: False" in done.stderr
    assert "COLLECTS at the end: True True" in done.stderr
    return set(done.stderr.partition("MODULES ")[2].splitlines()[0].split())


@pytest.fixture
def clip(tmp_path):
    return str(encode(tmp_path / "clip.mp4", 3, size=(64, 64)))


def test_eval_of_a_pair_imports_no_network_and_nothing_for_options_that_are_not_given(clip):
    arguments = ("--real-video-dir", clip, "--generated-video-dir", clip, "--num-frames", "3", "--resolution", "64")
    imported = modules("eval", *arguments, "--crop-size", "64")
    assert {"torch", "vaectl.metrics.lpips"} <= imported
    assert not imported & {*NEVER, *NETWORKS, *OF_OPTIONS}


def test_the_options_of_other_commands_are_not_imported():
    code = "import sys; from vaectl.cli.app import main; main(['reconstruct', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    imported = {name.rpartition(".")[2] for name in done.stdout.split() if name.startswith("vaectl.options.")}
    assert imported == {"common", "file", "option", "reconstruct"}


def test_reconstruct_without_a_limit_imports_nothing_for_plans(clip, tmp_path):
    imported = modules("reconstruct", clip, str(tmp_path / "out.mp4"))
    assert {"torch", "vaectl.engine"} <= imported
    assert not imported & {*NEVER, "scipy"}


def test_the_collector_of_a_caller_stays_as_it_is():
    before = gc.get_freeze_count()
    garbage.collect()
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_the_collector_is_off_until_the_work_begins():
    with pytest.MonkeyPatch.context() as patch:
        frozen = []
        patch.setattr(gc, "freeze", lambda: frozen.append(1))
        with garbage.without_garbage():
            assert not gc.isenabled()
            garbage.collect()
            assert gc.isenabled()
            assert len(frozen) == 1
        assert len(frozen) == 2
