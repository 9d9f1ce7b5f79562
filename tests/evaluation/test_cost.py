"""What a model costs: the size of its latent by hand, and a measurement that is bounded and warm."""

from dataclasses import replace
from time import sleep
from types import SimpleNamespace

import pytest
import torch

from tests.jobs import Listener
from tests.models.reference import load_reference, synthetic_model
from vaectl.evaluation import cost
from vaectl.evaluation.cost import known_cost, known_costs, measure_cost, measure_costs, model_cost
from vaectl.evaluation.manifest import Manifest, ManifestModel
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.evaluation.results import Cost
from vaectl.memory import Limits
from vaectl.models import build_model, load_model
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.progress import Silent
from vaectl.tiling.executor import Executor

pytestmark = pytest.mark.usefixtures("one_thread")
MEASURED = (
    *("encode_frames_per_second", "decode_frames_per_second"),
    *("encode_peak_memory", "decode_peak_memory", "warm"),
)
MADE_BY = ManifestModel("m", "AutoencoderKLWan", "", "cpu", "bfloat16", None, None, 4, 8, 16, 1234)


@pytest.fixture(scope="module")
def wan():
    torch.manual_seed(0)
    return build_model(AutoencoderKLWanConfig(base_dim=8, num_res_blocks=1)).eval()


def test_the_built_in_model():
    bits = 16 * (1 + 32 // 4) * (256 // 8) * (256 // 8) * 32 / (33 * 256 * 256)
    assert model_cost(load_model(), (33, 256, 256)) == Cost(5_451_204, (4, 8), 16, bits)


def test_frames_and_pixels_that_are_padded_have_a_latent(wan):
    """6 frames are padded to 9, and 20x36 pixels to 24x40."""
    bits = 16 * 3 * (3 * 5) * 16 / (6 * 20 * 36)
    found = model_cost(wan.to(torch.bfloat16), (6, 20, 36))
    wan.float()
    assert (found.compression, found.latent_channels, found.bits_per_pixel) == ((4, 8), 16, bits)
    assert known_cost(MADE_BY, (6, 20, 36)) == Cost(1234, (4, 8), 16, bits)


def test_a_folder_has_what_its_manifest_has():
    earlier = ManifestModel(None, "WFVAEModel", "", "cpu", "float32")
    now, before = (Manifest({}, model, ClipProtocol(9, 1, 32, 32), {}, "", ()) for model in (MADE_BY, earlier))
    found = known_costs({}, [None, now, before], (9, 32, 32))
    assert found == [None, known_cost(MADE_BY, (9, 32, 32)), None]


def causalvae():
    """Make a model that needs the whole clip."""
    return synthetic_model(load_reference("causalvae_v1_2").config)


def runs_of(monkeypatch, model, limits: Limits) -> tuple[Cost, list[list[torch.Size]]]:
    """Measure 13 frames of 24x32, in windows of 8, and return the shapes of the windows that each run took."""
    runs: list[list[torch.Size]] = []

    def run(self, clip):
        runs.append([])

        def watched():
            for x, last in clip:
                runs[-1].append(x.shape)
                yield x, last

        yield from original(self, watched())

    original = Executor.run
    monkeypatch.setattr(Executor, "run", run)
    monkeypatch.setattr("vaectl.tiling.plan.WINDOW_PIXELS", 8 * 24 * 32)
    monkeypatch.setattr(cost, "SECONDS", 1000.0)
    return measure_cost(model, 13, 24, 32, limits, Silent()), runs


@pytest.mark.parametrize("limits", [Limits(), Limits(tiled=True)], ids=["whole", "tiled"])
@pytest.mark.parametrize("make", [None, causalvae], ids=["streams", "whole clip"])
def test_both_networks_run_the_whole_clip_once_for_warm_up_and_three_times_more(monkeypatch, wan, make, limits):
    model = make() if make else wan
    found, runs = runs_of(monkeypatch, model, limits)
    assert len(runs) == 8
    channels = model.config.latent_channels
    for encoded, decoded in zip(runs[:4], runs[4:], strict=True):
        assert (encoded, decoded) == (runs[0], runs[4])
        assert (sum(shape[2] for shape in encoded), sum(shape[2] for shape in decoded)) == (13, 4)
        assert {(shape[1], *shape[3:]) for shape in encoded} == {(3, 24, 32)}
        assert {(shape[1], *shape[3:]) for shape in decoded} == {(channels, 3, 4)}
    if not limits.tiled:
        windows = [[shape[2] for shape in run] for run in (runs[0], runs[4])]
        assert windows == ([[13], [4]] if make else [[8, 5], [2, 2]])
    assert replace(found, **dict.fromkeys(MEASURED)) == model_cost(model, (13, 24, 32))
    weights = sum(weight.nbytes for weight in model.parameters())
    assert min(found.encode_peak_memory, found.decode_peak_memory) >= weights
    assert min(found.encode_frames_per_second, found.decode_frames_per_second) > 0
    assert found.warm


@pytest.mark.parametrize(
    ("seconds", "runs", "rates", "warm"),
    [
        ((0.01, 0.05), [21] * 4 + [21] * 4, (100, 20), True),
        ((0.4, 0.05), [21] * 3 + [21] * 4, (2.5, 20), True),  # 8.4 s a run
        ((0.05, 4.0), [21] * 4 + [5], (20, 0.25), False),
        ((1.0, 0.01), [16] + [21] * 4, (1, 100), False),
    ],
    ids=["fast", "few runs", "one window", "two windows"],
)
def test_a_slow_network_is_measured_for_a_bounded_time(monkeypatch, wan, seconds, runs, rates, warm):
    """Time passes only in the networks: so many seconds for each frame. 21 frames are 6 latent frames."""
    now, done = 0.0, []

    def network(number):
        def run(clip):
            nonlocal now
            done.append(0)
            for x, _ in clip:
                frames = x.shape[2] if number == 0 else 4 * x.shape[2] - 3 * (done[-1] == 0)
                now, done[-1] = now + frames * seconds[number], done[-1] + frames
                yield x

        return SimpleNamespace(run=run)

    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(cost, "executors", lambda *_: (network(0), network(1)))
    monkeypatch.setattr("vaectl.tiling.plan.WINDOW_PIXELS", 8 * 32 * 32)
    found = measure_cost(wan, 21, 32, 32, Limits(), Silent())
    assert done == runs
    assert (found.encode_frames_per_second, found.decode_frames_per_second) == pytest.approx(rates)
    assert found.warm is warm


def test_frames_that_pad_the_clip_do_not_count(monkeypatch, wan):
    monkeypatch.setattr(cost, "run_network", lambda *_: 9)
    ticks = iter(range(1000))
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert measure_cost(wan, 6, 32, 32, Limits(), Silent()).encode_frames_per_second == 6


def test_freed_memory_is_returned_before_the_next_model_is_measured(monkeypatch, wan):
    """Otherwise what the allocator keeps for one model counts against the limit of the next one."""
    done = []
    monkeypatch.setattr(cost, "run_network", lambda *_: done.append("run") or 5)
    monkeypatch.setattr(cost, "return_freed", lambda: done.append("returned"))
    measure_cost(wan, 5, 32, 32, Limits(), Silent())
    assert done.count("run") == 8
    assert done[-2:] == ["run", "returned"]


def test_a_model_that_does_not_fit_has_no_speed_and_the_evaluation_continues(monkeypatch, wan):
    def run(self, clip):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Executor, "run", run)
    listener = Listener()
    known = known_costs({1: wan}, [None, None], (5, 32, 48))
    found = measure_costs({1: wan}, ["a", "wan"], known, (5, 32, 48), Limits(), listener)
    assert found == [None, model_cost(wan, (5, 32, 48))]
    said = "wan: speed and memory are not measured: 5 frames of 48x32 pixels: out of memory"
    assert listener.warnings[0].startswith(said)
    assert listener.clips == [("measuring speed and memory of wan", 2, 0)]


def test_memory_that_a_run_frees_again_is_its_peak(wan):
    """In pages that are written, because others are not resident."""
    added, weights = 2**26, sum(weight.nbytes for weight in wan.parameters())

    def run() -> float:
        block = torch.ones(added, dtype=torch.uint8)
        sleep(0.05)
        return float(block[0])

    result, peak = cost.peak_of(wan, run)
    assert result == 1
    assert weights + added <= peak < weights + added + 2**23


def test_on_a_gpu_the_peak_is_what_pytorch_allocates(monkeypatch):
    weights = [torch.zeros(25)]
    model = SimpleNamespace(device=torch.device("cuda"), parameters=lambda: iter(weights))
    stats = {"reset_peak_memory_stats": None, "memory_allocated": 1000, "max_memory_allocated": 1700}
    for name, value in stats.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    assert cost.peak_of(model, lambda: 2.5) == (2.5, 4 * 25 + 700)
