"""I3D gives the features of DeepMind's network, and FVD is what they give in a plain computation."""

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tests.conftest import ROOT
from tests.jobs import Listener
from tests.metrics.reference import CPU, noise
from tests.models.synthetic_weights import synthetic_video
from vaectl.errors import DamagedError, UsageError
from vaectl.metrics import MetricSettings, build
from vaectl.metrics.fingerprint import fingerprint
from vaectl.metrics.fvd import detector_name, scale_and_crop
from vaectl.metrics.i3d import Convolution, MaxPool, fold, load_i3d
from vaectl.metrics.i3d_weights import FINGERPRINT, load_weights
from vaectl.progress import Silent
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights_file(i3d_archive, tmp_path_factory):
    weights = load_weights(i3d_archive, Silent())
    assert fingerprint(weights) == FINGERPRINT
    file = tmp_path_factory.mktemp("weights") / "i3d.safetensors"
    save_file(weights, file)
    return file


@pytest.fixture(scope="module")
def network(weights_file):
    return load_i3d(load_file(weights_file), CPU)


def swscale(file, num_frames):
    """Return the first frames as PyAV converts them: (T, 3, H, W) uint8. The reference was made so."""
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(num_frames))]  # noqa: B905
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["synthetic_9", "synthetic_16", "bikes_16"])
def test_the_features_are_those_of_the_original_network(name, network, samples):
    if name == "bikes_16":
        video = scale_and_crop(swscale(samples / "bikes.mp4", 16)).transpose(0, 1)[None]
    else:
        num_frames = int(name.removeprefix("synthetic_"))
        video = torch.from_numpy(synthetic_video(f"i3d_{num_frames}", (1, 3, num_frames, 224, 224)))
    expected = load_file(ROOT / "tests/data/i3d_features.safetensors")[name]
    with torch.inference_mode():
        (features,) = network(video)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4 * float(expected.abs().mean()))


def test_fvd_is_that_of_the_original_tensorflow_code(network):
    """151.39244: clips of 30 black and of 30 white frames, in the README of common_metrics_on_video_quality."""
    with torch.inference_mode():
        black, white = (network(torch.full((1, 3, 30, 224, 224), value))[0].double() for value in (-1.0, 1.0))
    assert float((black - white).square().sum()) == pytest.approx(151.39244, rel=1e-5)


def test_fvd_of_real_clips_is_that_of_their_features(network, samples, weights_file):
    def clips(name):
        return read_video(samples / f"carphone_{name}.mp4", num_frames=18).frames.unflatten(0, (2, 9))

    def moments(clips):
        features = []
        for clip in clips:  # 176x144: the shorter side to 224, the longer one to 274
            scaled = F.interpolate(clip.float() / 127.5 - 1, (224, 274), mode="bilinear")[..., 25:249]
            features.append(network(scaled.transpose(0, 1)[None])[0].double().numpy())
        mean = np.mean(features, axis=0)
        return mean, (features - mean) / np.sqrt(len(features) - 1)  # the covariance is the product of it with itself

    (m1, a1), (m2, a2) = moments(clips("pristine")), moments(clips("distorted"))
    overlap = np.linalg.svd(a1 @ a2.T, compute_uv=False).sum()
    expected = ((m1 - m2) ** 2).sum() + (a1**2).sum() + (a2**2).sum() - 2 * overlap
    metric = build(["fvd"], MetricSettings(fvd_detector=weights_file), CPU)["fvd"]
    metric.add(clips("pristine"), [clips("distorted")])
    assert metric.values() == [pytest.approx(expected, rel=1e-4)]
    assert expected > 10


def test_weights_in_half_precision_are_computed_with_in_float32(weights_file):
    halves = {name: tensor.half() for name, tensor in load_file(weights_file).items()}
    assert {parameter.dtype for parameter in load_i3d(halves, CPU).parameters()} == {torch.float32}


def test_clips_that_are_too_short_are_refused(weights_file, tmp_path, monkeypatch):
    """I3D halves time three times and needs two frames then. A download comes after the check."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("vaectl.io.pip.download", pytest.fail)
    with pytest.raises(UsageError, match="fvd needs clips of at least 9 frames, not 8; raise `num_frames`"):
        build(["fvd"], MetricSettings(num_frames=8), CPU)
    metric = build(["fvd"], MetricSettings(fvd_detector=weights_file), CPU)["fvd"]
    with pytest.raises(UsageError, match="fvd needs clips of at least 9 frames, not 8; raise `num_frames`"):
        metric.add(noise(1, 8, 3, 16, 16), [noise(1, 8, 3, 16, 16)])
    with pytest.raises(RuntimeError):
        metric.detector.network(torch.zeros(1, 3, 8, 224, 224))


def test_equal_weights_have_one_name_in_results(weights_file, i3d_archive, tmp_path):
    assert detector_name(weights_file) == detector_name(i3d_archive) == detector_name(None)
    weights = load_file(weights_file)
    name = "Logits.Conv3d_0c_1x1.conv.bias"
    save_file(weights | {name: weights[name] + 1}, tmp_path / "other.safetensors")
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes())
    other, copy = (detector_name(tmp_path / f"{each}.safetensors").split(", SHA-256 ") for each in ("other", "copy"))
    assert (other[0], other[1]) == (str(tmp_path / "other.safetensors"), copy[1])
    listener = Listener()
    build(["fvd"], MetricSettings(fvd_detector=tmp_path / "other.safetensors", progress=listener), CPU)
    note = "has other weights than DeepMind's, so its FVD is not that of published tables"
    assert listener.notes == [f"{tmp_path}/other.safetensors: {note}"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda bias: bias[0], r"float32 \(\)"),
        (lambda bias: bias.long(), r"int64 \(64,\)"),
        (lambda bias: bias[None].clone(), r"float32 \(1, 64\)"),
    ],
)
def test_weights_of_other_shapes_or_types_are_refused(change, found, weights_file, tmp_path):
    weights, name = load_file(weights_file), "Conv3d_1a_7x7.bn.bias"
    save_file(weights | {name: change(weights[name])}, tmp_path / "a.safetensors")
    message = rf"a\.safetensors: {name} is {found}, not floating-point \(64,\); give another `fvd_detector`"
    with pytest.raises(DamagedError, match=message):
        build(["fvd"], MetricSettings(fvd_detector=tmp_path / "a.safetensors"), CPU)


# What the layers compute


def padded(x, kernel, stride, value):
    """Pad as TensorFlow does for "SAME": as much as `stride` needs for all inputs, and the odd one after the last."""
    for axis, (size, taps, step) in enumerate(zip(x.shape[2:], kernel, stride, strict=True), start=2):
        total = max(0, (size - 1) // step * step + taps - size)
        shape = list(x.shape)
        for side, count in ((0, total // 2), (1, total - total // 2)):
            shape[axis] = count
            edge = torch.full(shape, value)
            x = torch.cat([x, edge] if side else [edge, x], dim=axis)
    return x


SIZES = st.tuples(*[st.integers(3, 12)] * 3)


@settings(max_examples=25, deadline=None)
@given(
    SIZES,
    st.sampled_from([((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3,) * 3, (1,) * 3)]),
)
def test_max_pools_pad_as_tensorflow_does_and_pads_never_win(size, kind):
    kernel, stride = kind
    x = torch.randn(2, 3, *size) - 10
    expected = F.max_pool3d(padded(x, kernel, stride, -torch.inf), kernel, stride)
    assert torch.equal(MaxPool(kernel, stride)(x), expected)


@settings(max_examples=25, deadline=None)
@given(SIZES, st.sampled_from([(7, 2), (3, 1), (1, 1)]))
def test_convolutions_pad_as_tensorflow_does_and_contain_their_batch_norm(size, kind):
    taps, step = kind
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, taps, taps, taps, generator=generator)
    bias, mean = torch.randn(2, 4, generator=generator)
    variance = torch.tensor([1e-4, 0.1, 1.0, 9.0])
    x = torch.randn(1, 3, *size, generator=generator)
    plain = F.conv3d(padded(x, (taps,) * 3, (step,) * 3, 0.0), weight, stride=step)
    expected = F.relu(F.batch_norm(plain, mean, variance, bias=bias, eps=1e-3))
    stored = {"a.conv.weight": weight, "a.bn.bias": bias, "a.bn.running_mean": mean, "a.bn.running_var": variance}
    layer = Convolution(3, 4, taps, step).requires_grad_(False)
    layer.load_state_dict({name.removeprefix("a."): tensor for name, tensor in fold(stored).items()})
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-3)
