"""A clip in windows gives the same numbers as the whole clip, for any windows, length and size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaectl.models.context import StreamContext
from vaectl.models.posterior import Posterior
from vaectl.tiling.plan import window_frames
from vaectl.tiling.stream import reconstruct_windows

from .reference import CASES, load_reference, synthetic_model

MODELS = {name: synthetic_model(load_reference(name).config) for name in CASES}
STREAMING = [name for name in CASES if MODELS[name].streams]
# Float32 rounding of convolutions with other shapes; measured up to 8e-6.
TOLERANCE = 5e-5


def video(frames: int, height: int = 24, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, frames, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_only_models_with_norms_of_positions_and_attention_in_frames_stream():
    assert STREAMING == ["qwen_image", "wan_2_1", "wan_2_2", "wfvae_4x8x8", "wfvae_8x8x8", "wfvae_image"]


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(STREAMING),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    height=st.integers(9, 26),
    width=st.integers(9, 26),
)
def test_windows_of_any_length_equal_the_whole_clip(name, cuts, height, width):
    clip = video(sum(cuts), height, width)
    windows = list(reconstruct_windows(MODELS[name], clip.split(cuts, dim=2)))
    expected = MODELS[name].reconstruct(clip)
    assert expected.shape == clip.shape
    torch.testing.assert_close(torch.cat(windows, dim=2), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["wfvae_class_defaults_narrow", "causalvae_v1_2"])
def test_models_that_look_at_the_whole_clip_get_it_whole(name):
    clip = video(6)
    (result,) = reconstruct_windows(MODELS[name], clip.split([2, 3, 1], dim=2))
    assert torch.equal(result, MODELS[name].reconstruct(clip))


def test_nearest_interpolation_in_time_streams_too():
    config = {**load_reference("wfvae_8x8x8").config, "t_interpolation": "nearest"}
    model = synthetic_model(config)
    clip = video(11)
    windows = torch.cat(list(reconstruct_windows(model, clip.split([1, 4, 6], dim=2))), dim=2)
    torch.testing.assert_close(windows, model.reconstruct(clip), rtol=0, atol=TOLERANCE)


def test_interleaved_clips_do_not_disturb_each_other():
    model = MODELS["wfvae_4x8x8"]
    clips = [video(9, seed=1), video(9, seed=2)]
    streams = [reconstruct_windows(model, clip.split(3, dim=2)) for clip in clips]
    parts = [[], []]
    for first, second in zip(*streams, strict=True):
        parts[0].append(first)
        parts[1].append(second)
    for clip, windows in zip(clips, parts, strict=True):
        torch.testing.assert_close(torch.cat(windows, dim=2), model.reconstruct(clip), rtol=0, atol=TOLERANCE)


def test_the_cache_does_not_grow_with_the_clip():
    model = MODELS["wfvae_8x8x8"]

    def cache_size(windows: int) -> int:
        cache = None
        for _ in range(windows):
            context = StreamContext(cache, last=False)
            model.run_encoder(video(8), context)
            cache = context.after
        return sum(tensor.untyped_storage().nbytes() for tensor in cache.values())

    assert cache_size(2) == cache_size(5)


def test_a_seed_gives_the_same_sample_for_any_cutting():
    model = MODELS["wfvae_4x8x8"]
    clip = video(9)
    whole = model.reconstruct(clip, sample=True, generator=torch.Generator().manual_seed(7))
    stream = reconstruct_windows(
        model, clip.split([2, 7], dim=2), sample=True, generator=torch.Generator().manual_seed(7)
    )
    torch.testing.assert_close(torch.cat(list(stream), dim=2), whole, rtol=0, atol=TOLERANCE)
    assert (whole - model.reconstruct(clip)).abs().max() > 0.01


def test_batch_entries_are_independent():
    model = MODELS["wfvae_4x8x8"]
    clips = [video(5, seed=1), video(5, seed=2)]
    together = model.reconstruct(torch.cat(clips))
    for alone, clip in zip(together.split(1), clips, strict=True):
        torch.testing.assert_close(alone, model.reconstruct(clip), rtol=0, atol=TOLERANCE)


def test_posterior_kl_and_clamping():
    moments = torch.tensor([1.0, -2.0, 100.0, -100.0]).reshape(1, 4, 1, 1, 1)
    posterior = Posterior.from_moments(moments)
    assert posterior.logvar.flatten().tolist() == [20.0, -30.0]
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean.double(), (posterior.logvar.double() / 2).exp()),
        torch.distributions.Normal(0.0, 1.0),
    ).sum()
    torch.testing.assert_close(posterior.kl()[0].double(), exact, rtol=1e-6, atol=0)


@given(stride=st.sampled_from([4, 8]), height=st.integers(16, 2160), width=st.integers(16, 3840))
def test_window_length_is_a_whole_number_of_latent_frames(stride, height, width):
    config = MODELS["wfvae_4x8x8" if stride == 4 else "wfvae_8x8x8"].config
    for device in ("cpu", "cuda"):
        frames = window_frames(config, height, width, torch.device(device))
        assert frames >= stride
        assert frames % stride == 0
