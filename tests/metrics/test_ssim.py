"""SSIM is what scikit-image computes with the published settings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from tests.metrics.reference import CPU, disturbed, noise, smooth
from vaectl.errors import UsageError
from vaectl.metrics.ssim import SSIM
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")


def expected(real, generated):
    """Of each frame of (B, T, C, H, W), by scikit-image: on 8-bit values in float64."""
    return torch.tensor(
        [
            [
                structural_similarity(
                    a.numpy(),
                    b.numpy(),
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                    data_range=255,
                    channel_axis=0,
                )
                for a, b in zip(one, other, strict=True)
            ]
            for one, other in zip(real, generated, strict=True)
        ],
        dtype=torch.float64,
    )


def check(real, generated, within=1e-5):
    result = SSIM(CPU).measure(real, generated)
    torch.testing.assert_close(result, expected(real, generated), rtol=0, atol=within)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(11, 60),
    st.integers(11, 60),
    st.floats(0, 100),
    st.integers(0, 2**31),
)
def test_it_is_scikit_images_at_any_size(batch, frames, height, width, amount, seed):
    real = smooth(batch, frames, 3, height, width, seed=seed)
    check(real, disturbed(real, amount, seed))


def test_it_is_scikit_images_on_a_real_pair(samples):
    real, generated = (
        read_video(samples / f"carphone_{name}.mp4", num_frames=3).frames[None] for name in ("pristine", "distorted")
    )
    check(real, generated, within=1e-6)
    assert 0.5 < SSIM(CPU).measure(real, generated).mean() < 0.99


@pytest.mark.parametrize("level", [0, 10, 128, 250, 255])
def test_flat_frames_lose_no_precision(level):
    flat = torch.full((1, 1, 3, 40, 50), level, dtype=torch.uint8)
    for other in (flat, 255 - flat, flat // 2, disturbed(flat, 1), disturbed(flat, 6), noise(1, 1, 3, 40, 50)):
        check(flat, other)
    parts = flat.clone()
    parts[..., 25:] = 255 - level
    for amount in (0.5, 2, 8, 30):
        check(disturbed(parts, amount), disturbed(parts, amount, seed=2))


def test_equal_frames_give_one_and_the_order_does_not_matter():
    real = noise(1, 2, 3, 33, 47)
    generated = disturbed(real, 30)
    metric = SSIM(CPU)
    assert torch.equal(metric.measure(real, real), torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(metric.measure(real, generated), metric.measure(generated, real), rtol=0, atol=1e-7)


def test_it_does_not_depend_on_what_is_measured_together():
    real = noise(2, 3, 3, 20, 31)
    generated = disturbed(real, 20)
    metric = SSIM(CPU)
    together = metric.measure(real, generated)
    metric.pixels = 1
    torch.testing.assert_close(metric.measure(real, generated), together, rtol=0, atol=1e-6)
    single = torch.stack(
        [
            torch.cat([metric.measure(real[b, t][None, None], generated[b, t][None, None])[0] for t in range(3)])
            for b in range(2)
        ]
    )
    torch.testing.assert_close(single, together, rtol=0, atol=1e-6)


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(UsageError, match=r"^ssim needs frames of at least 11x11 pixels, not 30x10"):
        SSIM(CPU).measure(noise(1, 1, 3, 10, 30), noise(1, 1, 3, 10, 30))
