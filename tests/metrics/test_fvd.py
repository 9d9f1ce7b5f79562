"""FVD: the distance of two Gaussians, moments of a stream, and what the detector is given. For I3D see test_i3d.py."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.reference import CPU, noise, smooth
from vaectl.errors import UsageError, VaectlError
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.fvd import FVD, frechet_distance, scale_and_crop
from vaectl.metrics.fvd import Detector as Detected
from vaectl.metrics.metric import SetMetric
from vaectl.models.statistics import RunningCovariance
from vaectl.progress import Silent

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
]


class Detector(torch.nn.Module):
    """A TorchScript detector: means over parts of the clip. Takes clips of two frames or more."""

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> torch.Tensor:
        assert not rescale
        assert not resize
        assert return_features
        assert x.shape[1] == 3
        assert x.shape[3] == 224
        assert x.shape[4] == 224
        x = torch.nn.functional.avg_pool3d(x, [2, 112, 112], stride=[1, 112, 112])
        return x.mean(dim=2).flatten(1)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    file = tmp_path_factory.mktemp("detector") / "detector.pt"
    torch.jit.script(Detector()).save(str(file))
    return file


def fvd(detector):
    metric = build(["fvd"], MetricSettings(fvd_detector=detector), CPU)["fvd"]
    assert isinstance(metric, SetMetric)
    return metric


def covariance(size, rank, seed):
    factor = torch.randn(size, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.T


def normal(size, seed):
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31))
def test_of_gaussians_with_common_axes_it_is_the_closed_form(size, seed):
    """Commuting covariances: |m1 - m2|² + sum of (standard deviation - standard deviation)² along each axis."""
    axes = torch.linalg.qr(
        torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ).Q
    a, b, m1, m2 = (normal(size, seed + k) for k in range(4))
    a[0] = 0  # one axis without any spread
    expected = (m1 - m2).square().sum() + (a.abs() - b.abs()).square().sum()
    result = frechet_distance(m1, (axes * a.square()) @ axes.T, m2, (axes * b.square()) @ axes.T)
    assert result == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_of_any_gaussians_it_is_what_the_matrix_root_gives(seed):
    c1, c2, m1, m2 = covariance(20, 40, seed), covariance(20, 30, seed + 9), normal(20, seed), normal(20, seed + 9)
    product_root = np.real(scipy.linalg.sqrtm((c1 @ c2).numpy()))
    expected = (m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * np.trace(product_root)
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(m2, c2, m1, c1) == pytest.approx(float(expected), rel=1e-9)


def test_singular_covariances_are_no_problem():
    """As with few clips: rank 5 among 400 features, of all sizes."""
    mean = normal(400, 0)
    for scale in (1e-9, 1.0, 1e9):
        c1, c2 = covariance(400, 5, 1) * scale, covariance(400, 5, 2) * scale
        assert frechet_distance(mean, c1, mean, c1) <= 1e-10 * float(c1.trace())
        # With C = A·Aᵀ and thin A, the trace of the root is the sum of the singular values of a 5x5 matrix.
        a1, a2 = (
            torch.randn(400, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
        )
        overlap = torch.linalg.svdvals(a1.T @ a2).sum() * scale
        expected = c1.trace() + c2.trace() - 2 * overlap
        assert frechet_distance(mean, c1, mean, c2) == pytest.approx(float(expected), rel=1e-9)
    nothing = torch.zeros(400, 400, dtype=torch.float64)
    assert frechet_distance(mean, nothing, mean + 1, nothing) == pytest.approx(400)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=6), st.sampled_from([0.0, 1.0, 1e8]), st.integers(0, 2**31))
def test_moments_of_a_stream_are_those_of_the_whole(parts, offset, seed):
    vectors = torch.randn(sum(parts), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + offset
    moments = RunningCovariance()
    for part in vectors.split(parts):
        moments.add(part)
    assert moments.count == len(vectors)
    torch.testing.assert_close(moments.mean, vectors.mean(dim=0), rtol=1e-12, atol=1e-12)
    expected = torch.from_numpy(np.cov(vectors.numpy() - offset, rowvar=False))
    torch.testing.assert_close(moments.covariance(), expected, rtol=1e-6, atol=1e-6)


def test_the_value_is_the_distance_of_the_detectors_features(detector):
    real, generated = smooth(6, 3, 3, 50, 40), smooth(6, 3, 3, 50, 40, seed=7)
    metric = fvd(detector)
    metric.add(real[:4], [generated[:4], real[:4]])
    metric.add(real[4:], [generated[4:], real[4:]])
    features = [
        Detector()(torch.stack([scale_and_crop(clip).transpose(0, 1) for clip in clips]), False, False, True).double()
        for clips in (real, generated)
    ]
    (m1, c1), (m2, c2) = ((f.mean(dim=0), f.T.cov()) for f in features)
    root = np.real(scipy.linalg.sqrtm((c1 @ c2).numpy()))
    expected = float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * np.trace(root))
    value, of_equal = metric.values()
    assert value == pytest.approx(expected, rel=1e-4)
    assert of_equal == pytest.approx(0, abs=1e-9)
    same = fvd(detector)
    same.add(real, [real])
    assert same.values() == pytest.approx([0], abs=1e-9)


def test_frames_are_scaled_to_224_cropped_and_brought_to_plus_minus_one():
    frames = noise(2, 3, 224, 300)
    assert torch.equal(scale_and_crop(frames), frames[..., 38:262] / 127.5 - 1)
    ramp = torch.arange(0, 200, dtype=torch.uint8).view(1, 1, 200, 1).expand(1, 3, 200, 100)
    scaled = scale_and_crop(ramp)
    assert scaled.shape == (1, 3, 224, 224)
    middle = scaled[0, 0, :, 0]
    torch.testing.assert_close((middle[111] + middle[112]) / 2, torch.tensor(99.5 / 127.5 - 1))
    torch.testing.assert_close(middle.diff(), torch.full((223,), 100 / 224 / 127.5), rtol=0, atol=1e-5)


def test_fewer_than_two_clips_and_clips_that_are_too_short_are_refused(detector):
    metric = fvd(detector)
    with pytest.raises(UsageError, match="fvd needs at least 2 clips, not 0"):
        metric.values()
    metric.add(noise(1, 2, 3, 8, 8), [noise(1, 2, 3, 8, 8)])
    with pytest.raises(UsageError, match="fvd needs at least 2 clips, not 1"):
        metric.values()
    with pytest.raises(UsageError, match=r"fvd: the detector does not take clips of 1 frames: .*kernel size") as caught:
        metric.add(noise(1, 1, 3, 8, 8), [noise(1, 1, 3, 8, 8)])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_detector_costs_one_line(tmp_path, detector):
    (tmp_path / "text.pt").write_text("nothing")
    (tmp_path / "torn.pt").write_bytes(detector.read_bytes()[:1000])
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    for name in ("text.pt", "torn.pt", "state.pt"):
        with pytest.raises(VaectlError, match=rf"{name}: is not a TorchScript file, or is damaged"):
            fvd(tmp_path / name)
    with pytest.raises(UsageError, match=r"nowhere.pt: no such file; give a TorchScript detector"):
        fvd(tmp_path / "nowhere.pt")


def test_a_network_with_another_interface_is_named_at_once(tmp_path):
    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor, resize: bool = True) -> torch.Tensor:
            return x

    torch.jit.script(Other()).save(str(tmp_path / "other.pt"))
    with pytest.raises(UsageError, match=r"other\.pt: its network does not take rescale and return_features; give"):
        fvd(tmp_path / "other.pt")


@pytest.mark.parametrize("features", [(torch.zeros(1, 4),), torch.zeros(4), torch.zeros(2, 4), torch.zeros(1, 4, 1, 1)])
def test_features_that_are_no_vector_are_an_error(features):
    with pytest.raises(VaectlError, match="the detector gave no vector of features"):
        FVD(Detected(lambda _: features, "a"), CPU, Silent()).add(noise(1, 2, 3, 8, 8), [noise(1, 2, 3, 8, 8)])


def test_features_that_are_not_finite_are_an_error(tmp_path):
    class Broken(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
        ) -> torch.Tensor:
            return x.mean(dim=(2, 3, 4)) / 0

    torch.jit.script(Broken()).save(str(tmp_path / "broken.pt"))
    with pytest.raises(VaectlError, match="the detector gave NaN or infinity"):
        fvd(tmp_path / "broken.pt").add(noise(1, 2, 3, 8, 8), [noise(1, 2, 3, 8, 8)])


def test_running_out_of_memory_is_not_blamed_on_the_clips():
    def network(_video):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    metric = FVD(Detected(network, "a"), CPU, Silent())
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        metric.add(noise(1, 2, 3, 8, 8), [noise(1, 2, 3, 8, 8)])


def test_users_see_no_warning_that_torchscript_is_old(detector):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fvd(detector)


def test_a_pytorch_without_torchscript_is_one_clear_line(detector, monkeypatch):
    monkeypatch.delattr(torch.jit, "load")
    with pytest.raises(VaectlError, match=r"detector\.pt: PyTorch .* no longer reads TorchScript; install"):
        fvd(detector)
