"""PSNR of 8-bit frames is what scikit-image computes, per frame, and exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from tests.metrics.reference import CPU, noise
from vaectl.metrics.psnr import PSNR, mean_psnr, mean_squared_errors


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_it_is_scikit_images_averaged_over_frames(frames, channels, height, width, seed):
    a, b = noise(frames, channels, height, width, seed=seed), noise(frames, channels, height, width, seed=seed + 1)
    b[:, 0, 0, 0] = a[:, 0, 0, 0] ^ 1  # no frame is exact
    expected = [peak_signal_noise_ratio(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)]
    assert mean_psnr(mean_squared_errors(a, b)) == pytest.approx(sum(expected) / frames, abs=1e-9)


def test_errors_are_exact_and_do_not_overflow():
    black, white = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    assert mean_squared_errors(black, white) == mean_squared_errors(white, black) == [65025.0, 65025.0]
    assert mean_psnr([65025.0]) == 0
    large = torch.zeros(1, 3, 1080, 1920, dtype=torch.uint8)
    assert mean_squared_errors(large, 255 - large) == [65025.0]
    one = black.clone()
    one[1, 2, 3, 4] = 1
    assert mean_squared_errors(black, one) == [0.0, 1 / (3 * 64 * 64)]


def test_each_frame_counts_the_same():
    assert mean_psnr([1.0, 100.0]) == pytest.approx((20 * math.log10(255) + 20 * math.log10(25.5)) / 2)


def test_an_exact_frame_is_infinite_and_no_frame_is_nothing():
    frames = noise(2, 3, 8, 8)
    assert mean_psnr(mean_squared_errors(frames, frames)) == math.inf
    assert math.isnan(mean_psnr([]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(0, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_the_metric_gives_the_psnr_of_each_frame(batch, frames, height, width, seed):
    real, generated = (noise(batch, frames, 3, height, width, seed=seed + side) for side in (0, 1))
    result = PSNR(CPU).measure(real, generated)
    assert result.shape == (batch, frames)
    assert result.dtype == torch.float64
    for clip, one, other in zip(result, real, generated, strict=True):
        assert clip.tolist() == pytest.approx([mean_psnr([e]) for e in mean_squared_errors(one, other)], abs=1e-9)
    assert torch.equal(result, PSNR(CPU).measure(generated, real))
    assert torch.equal(PSNR(CPU).measure(real, real), torch.full((batch, frames), math.inf, dtype=torch.float64))


@pytest.mark.parametrize(
    ("real", "generated"),
    [
        (noise(1, 2, 3, 8, 8), noise(1, 1, 3, 8, 8)),
        (noise(1, 2, 3, 8, 8), noise(1, 2, 3, 8, 9)),
        (noise(1, 2, 3, 8, 8), noise(1, 2, 3, 8, 8).float()),
        (noise(2, 3, 8, 8), noise(2, 3, 8, 8)),
    ],
)
def test_what_is_no_pair_of_8_bit_clips_is_refused(real, generated):
    with pytest.raises(ValueError, match=r"no pair|8-bit"):
        PSNR(CPU).measure(real, generated)
