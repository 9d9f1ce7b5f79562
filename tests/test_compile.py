"""`--compile`: the frames of the plain network, a bounded number of graphs, and clear errors."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor

import vaectl
from tests.jobs import run_one
from tests.models.reference import synthetic_model
from tests.training.runs import WAN
from tests.video.media import encode
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.cost import measure_cost
from vaectl.evaluation.evaluate import evaluate
from vaectl.evaluation.prepare import prepare
from vaectl.memory import Limits
from vaectl.models import save_model
from vaectl.models.compiled import compiled
from vaectl.models.vae import AnyVAE
from vaectl.options import EvalOptions, PrepareEvalOptions, parse
from vaectl.progress import Silent
from vaectl.tiling.stream import reconstruct_windows
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = {**WAN, "dim_mult": [1, 1], "temperal_downsample": [True]}
"""The config of a Wan 2.1 with few layers, which are traced in a second: 2x2x2."""
CLOSE = 1e-5
"""Sums in another order, for outputs of order 1."""


@pytest.fixture
def graphs() -> list[Any]:
    return []


@pytest.fixture
def model() -> AnyVAE:
    return synthetic_model(SHORT)


@pytest.fixture
def calls(monkeypatch) -> list[torch.Size]:
    """Stand in for `torch.compile`, and return the shapes of what it runs: tracing takes seconds each time."""
    shapes: list[torch.Size] = []

    def compile(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            shapes.extend(each.shape for each in inputs if isinstance(each, Tensor))
            return function(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    return shapes


def traced(graphs: list[Any]) -> Callable[..., Any]:
    """Make a backend that keeps the graphs, and runs them as they are."""

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


def broken(graph: Any, inputs: Any) -> Any:
    raise OSError("no compiler\nand some advice")


def in_windows(model: AnyVAE, video: Tensor) -> Tensor:
    return torch.cat([*reconstruct_windows(model, video.split(4, dim=2))], dim=2)


def test_windows_are_a_graph_each_for_the_first_those_between_and_the_last(model, graphs):
    """Changed weights, and more windows, compile nothing."""
    video = torch.rand(1, 3, 17, 16, 16) * 2 - 1
    expected = in_windows(model, video)
    model.compile(backend=traced(graphs))
    torch.testing.assert_close(in_windows(model, video), expected, rtol=0, atol=CLOSE)
    assert len(graphs) == 6
    model.last_layer.mul_(-1)
    longer = torch.cat([video[:, :, :4], video], dim=2)
    compiled = in_windows(model, longer)
    assert len(graphs) == 6
    model.compiled = None
    torch.testing.assert_close(compiled, in_windows(model, longer), rtol=0, atol=CLOSE)


def test_any_number_of_sizes_is_compiled(graphs):
    """PyTorch alone stops after eight."""
    double = compiled(lambda x: 2 * x, backend=traced(graphs))
    for length in range(2, 12):
        assert torch.equal(double(torch.ones(length)), torch.full((length,), 2.0))
    assert len(graphs) == 10


def test_encode_and_decode_are_compiled_in_place_and_copies_are_not(model, calls):
    video = torch.rand(1, 3, 3, 8, 8) * 2 - 1
    expected = model.reconstruct(video)
    model.compile()
    assert torch.equal(model.reconstruct(video), expected)
    assert calls == [(1, 3, 3, 8, 8), (1, 16, 2, 4, 4)]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.reconstruct(video), expected)
    assert len(calls) == 2


def test_what_does_not_compile_never_runs_uncompiled():
    with pytest.raises(VaectlError) as caught:
        compiled(torch.neg, backend=broken)(torch.ones(2))
    assert str(caught.value) == "torch.compile failed: no compiler; leave out `compile`"


def test_an_error_of_the_run_is_not_one_of_the_compiler():
    """The engine reports a lack of memory by its message."""

    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        compiled(torch.neg, backend=lambda graph, inputs: full)(torch.ones(2))


def test_half_precision_with_layers_in_float32_is_one_graph(model, graphs):
    video = torch.rand(1, 3, 1, 8, 8) * 2 - 1
    expected = model.to(torch.bfloat16).encode(video).mean
    model.compile(backend=traced(graphs))
    torch.testing.assert_close(model.encode(video).mean, expected, rtol=0, atol=CLOSE)
    assert len(graphs) == 1


def test_tiles_and_limits_need_a_model_that_is_not_compiled(model):
    model.compile(backend="eager")
    with pytest.raises(UsageError, match="tiles and memory limits need a model that is not compiled"):
        vaectl.decode(model, torch.zeros(1, 16, 1, 4, 4), memory_limit="6GiB")


@pytest.mark.parametrize("memory", ["--enable-tiling", "--save-memory", "--memory-limit=6GiB"])
@pytest.mark.parametrize(
    "command",
    [
        ["reconstruct", "a.mp4", "b.mp4"],
        ["prepare-eval", "--real-video-dir", "a", "--generated-video-dir", "b"],
        ["eval", "--real-video-dir", "a", "--model", "builtin"],
    ],
    ids=lambda command: command[0],
)
def test_compile_excludes_tiles(command, memory, capsys):
    assert main([*command, "--compile", memory]) == 2
    assert "--compile excludes --enable-tiling, --memory-limit and --save-memory" in capsys.readouterr().err


def test_eval_compiles_models_only(capsys):
    assert main(["eval", "--real-video-dir", "a", "--generated-video-dir", "b", "--compile"]) == 2
    assert "--compile is for the networks of --model" in capsys.readouterr().err


# The commands


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    encode(folder / "clip.mp4", 5, size=(32, 16))
    return folder


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(synthetic_model(WAN), folder)
    return folder


def test_reconstruct_runs_the_compiled_model_and_records_it(clips, stored, tmp_path, calls):
    source = clips / "clip.mp4"
    run_one(source, tmp_path / "plain.mkv", model=stored, lossless=True)
    assert not calls
    run_one(source, tmp_path / "compiled.mkv", model=stored, lossless=True, compile=True)
    assert [each[2] for each in calls if len(each) == 5] == [5, 3]
    plain, made = (read_video(tmp_path / f"{name}.mkv").frames for name in ("plain", "compiled"))
    assert torch.equal(plain, made)
    assert json.loads((tmp_path / "compiled.mkv.vaectl.json").read_text())["options"]["compile"] is True


def test_prepare_eval_runs_the_compiled_model_and_records_it(clips, stored, tmp_path, calls):
    given = {"real_video_dir": clips, "generated_video_dir": tmp_path / "out", "model": stored, "compile": True}
    options = parse(PrepareEvalOptions, {**given, "num_frames": 5, "resolution": 16})
    prepare(options, Silent())
    assert [each[2] for each in calls if len(each) == 5] == [5, 3]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]["compile"] is True


def test_eval_runs_the_compiled_model_and_states_it(clips, stored, calls):
    given = {"real_video_dir": clips, "model": str(stored), "compile": True, "metric": "psnr"}
    result = evaluate(parse(EvalOptions, {**given, "num_frames": 5, "resolution": 16}), Silent())
    assert [each[2] for each in calls if len(each) == 5] == [5, 3]
    assert result.evaluations[0].protocol["model"]["compiled"] is True


def test_the_speed_of_a_compiled_model_has_no_compiling_in_it(model, monkeypatch):
    """The windows after the first are compiled before the measurement, which stops after `SECONDS`."""
    seen: list[int] = []

    def compile(run: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def watched(segments: Any, x: Tensor, *others: Any) -> Any:
            seen.append(x.shape[2])
            return run(segments, x, *others)

        return watched

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr("vaectl.tiling.plan.WINDOW_PIXELS", 4 * 16 * 16)
    monkeypatch.setattr("vaectl.evaluation.cost.SECONDS", 0.0)
    model.compile()
    measure_cost(model, 13, 16, 16, Limits(), Silent())
    assert seen[:5] == [4, 4, 4, 1, 4]


# The compiler


def test_a_missing_compiler_is_found_before_the_clips_are_read(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    assert main(["reconstruct", str(clips / "clip.mp4"), str(tmp_path / "out.mp4"), "--compile"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: --compile: torch.compile does not work on cpu: no compiler; ")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


ONE_LAYER = """
import torch
from vaectl.models.compiled import compiled
from vaectl.models.context import StreamContext
from vaectl.models.families.wan_layers import CausalConv3d

torch.set_num_threads(1)
layer = CausalConv3d(3, 4, 3, padding=1).requires_grad_(False)
run, x = compiled(layer.forward), torch.rand(1, 3, 6, 8, 8).contiguous(memory_format=torch.channels_last_3d)
first = StreamContext(last=False)
made = [run(x[:, :, :4], first), run(x[:, :, 4:], StreamContext(first.after))]
print((torch.cat(made, dim=2) - layer(x, StreamContext())).abs().max().item())
"""


@pytest.mark.skipif(which("g++") is None, reason="no C++ compiler")
def test_windows_with_the_inductor():
    """The compiler that the commands use, on one layer: a network takes minutes on a CPU.

    In a process of its own: it imports setuptools, which refused the distutils that was there after other tests.
    """
    done = subprocess.run([sys.executable, "-c", ONE_LAYER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < CLOSE
