"""`vaectl.encode` and `vaectl.decode`: the numbers of the model's methods, in tiles within a memory limit."""

import pytest
import torch

import vaectl
from tests.models.reference import load_reference, synthetic_model
from tests.tiling.models import make_model, video
from vaectl import tensors
from vaectl.engine import HostOverhead
from vaectl.errors import OutOfMemoryError, UsageError
from vaectl.memory import parse_size
from vaectl.models import build_model
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.tiling.executor import Executor

pytestmark = pytest.mark.usefixtures("one_thread")


def wan():
    torch.manual_seed(0)
    return build_model(AutoencoderKLWanConfig(base_dim=8, num_res_blocks=1)).eval()


def causalvae():
    """Make a model that needs the whole clip."""
    return synthetic_model(load_reference("causalvae_v1_2").config)


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch):
    """Count only the network, so that a limit has the same tiles in every process."""
    monkeypatch.setattr(tensors, "held_by_process", lambda *_: HostOverhead(0, 0))


def least(run, *inputs) -> int:
    with pytest.raises(UsageError, match="`memory_limit=1 MiB` is too small") as error:
        run(*inputs, 2**20)
    return parse_size(str(error.value).rpartition("give at least ")[2])


def tiles_of(run, monkeypatch):
    """Return the result of `run` and the number of tiles of the parts that it took."""
    counts, original = set(), Executor.tiles

    def tiles(self, part, cut):
        made = original(self, part, cut)
        counts.add(len(made))
        return made

    with monkeypatch.context() as patched:
        patched.setattr(Executor, "tiles", tiles)
        return run(), max(counts)


@pytest.mark.parametrize(
    ("make", "frames", "clips", "size"),
    [
        (wan, 1, 1, (60, 120)),
        (wan, 11, 1, (60, 120)),
        (lambda: make_model(stride=8), 20, 2, (60, 120)),
        (causalvae, 5, 1, (32, 64)),
    ],
    ids=["image", "Wan", "8 frames to a latent frame", "whole clip"],
)
def test_a_tight_limit_gives_the_numbers_of_the_model(make, frames, clips, size, monkeypatch):
    model, clip = make(), torch.cat([video(frames, *size, seed) for seed in range(clips)])
    with torch.no_grad():
        posterior = model.encode(clip)
        whole = model.decode(posterior.mean)
    made, count = tiles_of(lambda: vaectl.encode(model, clip, least(vaectl.encode, model, clip)), monkeypatch)
    assert count > 1
    torch.testing.assert_close(made.mean, posterior.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(made.logvar, posterior.logvar, rtol=0, atol=1e-4)
    limit = least(vaectl.decode, model, posterior.mean)
    tiled, count = tiles_of(lambda: vaectl.decode(model, posterior.mean, limit), monkeypatch)
    assert count > 1
    assert not tiled.requires_grad
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)


def test_without_a_limit_a_short_clip_is_one_tile(monkeypatch):
    model = make_model()
    latent = model.encode(video(9, 64, 64)).mean.detach()
    made, count = tiles_of(lambda: vaectl.decode(model, latent), monkeypatch)
    assert count == 1
    torch.testing.assert_close(made, model.decode(latent), rtol=0, atol=1e-4)


def test_what_is_no_latent_and_no_limit_is_refused():
    model = make_model()
    with pytest.raises(UsageError, match="a latent must be a float tensor"):
        vaectl.decode(model, torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(UsageError, match="a video must be a float tensor"):
        vaectl.encode(model, torch.zeros(1, 4, 2, 4, 4))
    with pytest.raises(UsageError, match="`memory_limit`: give an amount of memory as 6GiB"):
        vaectl.decode(model, torch.zeros(1, 2, 1, 4, 4), "plenty")


def test_out_of_memory_is_tried_once_more_with_a_warning(monkeypatch):
    def run(self, clip):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        yield

    monkeypatch.setattr(Executor, "run", run)
    with (
        pytest.warns(UserWarning, match="32x32 pixels: out of memory on cpu; retrying within 2.00 GiB"),
        pytest.raises(OutOfMemoryError, match="give a smaller `memory_limit`"),
    ):
        vaectl.decode(make_model(), torch.zeros(1, 2, 1, 4, 4), "4GiB")


def test_the_limit_holds_for_the_whole_process(monkeypatch):
    monkeypatch.undo()
    model, result = make_model(), torch.empty(0)
    held = tensors.held_by_process(model, result)
    assert held.fixed > 100 * 2**20
    large = torch.zeros(2**26)
    assert tensors.held_by_process(model, result).fixed > held.fixed + large.nbytes // 2
    assert tensors.held_by_process(model, torch.empty(2**20)).fixed > tensors.held_by_process(model, result).fixed
