"""MS-SSIM is that of pytorch-msssim, and of the published code at odd sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_msssim import ms_ssim
from scipy.ndimage import correlate
from skimage.metrics import structural_similarity

from tests.metrics.reference import CPU, disturbed, noise, smooth
from vaectl.errors import UsageError
from vaectl.metrics.ms_ssim import MultiScaleSSIM

pytestmark = pytest.mark.usefixtures("one_thread")


def measured(real, generated):
    return MultiScaleSSIM(CPU).measure(real, generated)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 2), st.integers(11, 14), st.integers(11, 14), st.floats(0, 100), st.integers(0, 2**31))
def test_it_is_that_of_the_package_where_all_scales_are_even(batch, height, width, amount, seed):
    real = smooth(batch, 2, 3, 16 * height, 16 * width, seed=seed)
    generated = disturbed(real, amount, seed)
    expected = [
        ms_ssim(a.double(), b.double(), data_range=255, size_average=False)
        for a, b in zip(real, generated, strict=True)
    ]
    torch.testing.assert_close(measured(real, generated), torch.stack(expected), rtol=0, atol=2e-5)


def published(real, generated):
    """The published formula on one channel (H, W), with SciPy's filters and scikit-image, in float64."""
    a, b = real.double().numpy(), generated.double().numpy()
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale < 4:
            similarity = contrast_and_structure(a, b)
        else:
            window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
            similarity = structural_similarity(a, b, data_range=255, **window)
        product *= similarity**weight
        a, b = (correlate(x, np.full((2, 2), 0.25), mode="reflect", origin=-1)[::2, ::2] for x in (a, b))
    return product


def contrast_and_structure(a, b):
    offsets = np.arange(11) - 5
    window = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2

    def mean(x):
        return correlate(x, window)[5:-5, 5:-5]

    covariance = mean(a * b) - mean(a) * mean(b)
    variances = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
    c2 = (0.03 * 255) ** 2
    return float(((2 * covariance + c2) / (variances + c2)).mean())


@pytest.mark.parametrize(("height", "width"), [(161, 161), (163, 201), (177, 305)])
def test_odd_sides_are_mirrored_as_published(height, width):
    real = smooth(1, 1, 3, height, width)
    generated = disturbed(real, 20)
    expected = sum(published(real[0, 0, c], generated[0, 0, c]) for c in range(3)) / 3
    assert measured(real, generated).item() == pytest.approx(expected, abs=2e-5)


def test_equal_frames_give_one_and_opposite_ones_zero():
    real = noise(1, 2, 3, 161, 170)
    assert torch.equal(measured(real, real), torch.ones(1, 2, dtype=torch.float64))
    assert torch.equal(measured(real, 255 - real), torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize(("height", "width"), [(160, 300), (300, 160)])
def test_frames_smaller_than_the_window_at_the_last_scale_are_refused(height, width):
    with pytest.raises(UsageError, match=rf"^ms_ssim needs frames of at least 161x161 pixels, not {width}x{height}"):
        measured(noise(1, 1, 3, height, width), noise(1, 1, 3, height, width))
