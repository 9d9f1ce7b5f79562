"""LPIPS is what the `lpips` package computes, in both networks, without torchvision; and it can be trained against."""

import shutil
import subprocess
import sys
from hashlib import sha256

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.metrics.reference import CPU, disturbed, noise, package_lpips, smooth
from vaectl.errors import UsageError, VaectlError
from vaectl.metrics import MetricSettings, build, lpips
from vaectl.metrics.lpips import ALEXNET, LPIPS, LPIPSMetric, load_lpips, vgg16_features, weights_name

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning:torchvision"),  # the package calls it in an old way
]


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    return load_lpips("alex")


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """VGG16's own weights are too large for a repository; any will do where both sides have the same."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    save_file({f"features.{name}": tensor for name, tensor in vgg16_features().state_dict().items()}, file)
    return file


def as_input(frames):
    return frames / 127.5 - 1


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("net", ["alex", "vgg"])
@pytest.mark.parametrize("size", [(64, 64), (47, 90), (33, 32)])
def test_it_is_the_packages(net, spatial, size, vgg_file):
    model = load_lpips(net, vgg_file if net == "vgg" else None)
    x = smooth(3, 3, *size)
    y = torch.cat([disturbed(x[:1], 30), 255 - x[1:2], noise(1, 3, *size)])
    x, y = as_input(x), as_input(y)
    with torch.no_grad():
        expected = package_lpips(net, model.features, spatial)(x, y).mean(dim=(1, 2, 3))
        result = model(x, y, spatial)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    assert result.max() > 0.01


def test_the_metric_is_the_packages_spatial_mean_over_frames(alex, samples):
    from vaectl.video import read_video

    real, generated = (
        read_video(samples / f"carphone_{name}.mp4", num_frames=2).frames[None] for name in ("pristine", "distorted")
    )
    package = package_lpips("alex", alex.features, spatial=True)
    with torch.no_grad():
        expected = package(as_input(real[0]), as_input(generated[0])).mean(dim=(1, 2, 3))
    result = LPIPSMetric(alex, CPU).measure(real, generated)
    torch.testing.assert_close(result, expected[None].double(), rtol=0, atol=1e-6)
    assert 0.005 < result.min() < result.max() < 0.5


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(31, 70), st.integers(31, 70), st.integers(0, 2**31))
def test_it_is_symmetric_and_zero_for_equal_frames_whatever_their_size(alex, batch, frames, height, width, seed):
    real = noise(batch, frames, 3, height, width, seed=seed)
    generated = disturbed(real, 20, seed)
    metric = LPIPSMetric(alex, CPU)
    result = metric.measure(real, generated)
    assert result.shape == (batch, frames)
    assert (result > 0).all()
    torch.testing.assert_close(result, metric.measure(generated, real), rtol=1e-5, atol=1e-7)
    assert torch.equal(metric.measure(real, real), torch.zeros(batch, frames, dtype=torch.float64))
    both = metric.measure_all(real, [generated, real])
    assert torch.equal(torch.stack(both), torch.stack([result, torch.zeros(batch, frames, dtype=torch.float64)]))


def test_it_does_not_depend_on_what_is_measured_together(alex, monkeypatch):
    real = smooth(2, 3, 3, 40, 50)
    generated = disturbed(real, 20)
    metric = LPIPSMetric(alex, CPU)
    together = metric.measure(real, generated)
    monkeypatch.setitem(vars(sys.modules["vaectl.metrics.lpips"])["PIXELS"], "alex", 1)
    torch.testing.assert_close(metric.measure(real, generated), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("net", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_frames_that_a_network_takes(net, smallest, vgg_file):
    model = load_lpips(net, vgg_file if net == "vgg" else None)
    assert model(torch.ones(1, 3, smallest, smallest), -torch.ones(1, 3, smallest, smallest), True).isfinite().all()
    small = torch.zeros(1, 3, 40, smallest - 1)
    with pytest.raises(
        UsageError, match=rf"needs frames of at least {smallest}x{smallest} pixels, not {smallest - 1}x40"
    ):
        model(small, small)


def test_gradients_reach_both_images_and_no_parameter(alex):
    x, y = (as_input(smooth(2, 3, 48, 48, seed=seed)).requires_grad_() for seed in (0, 1))
    alex(x, y).sum().backward()
    assert x.grad.abs().sum() > 0
    assert y.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in alex.parameters())
    assert not alex.training


def test_neither_torchvision_nor_the_lpips_package_is_imported():
    program = """
import sys, torch
from vaectl.metrics import MetricSettings, build
metric = build(["lpips"], MetricSettings(), torch.device("cpu"))["lpips"]
frames = torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)
assert metric.measure(frames, frames).item() == 0
print([name for name in sys.modules if name.split(".")[0] in ("torchvision", "lpips")])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_weights_may_be_torchvisions_own_file(tmp_path, vgg_file):
    whole = load_file(vgg_file) | {"classifier.0.weight": torch.zeros(4, 4)}
    torch.save(whole, tmp_path / "vgg16-397923af.pth", _use_new_zipfile_serialization=False)
    given, known = load_lpips("vgg", tmp_path / "vgg16-397923af.pth"), load_lpips("vgg", vgg_file)
    assert all(torch.equal(a, b) for a, b in zip(given.parameters(), known.parameters(), strict=True))


def test_vggs_weights_are_found_in_the_cache_of_torch_hub(tmp_path, monkeypatch, vgg_file):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    torch.save(load_file(vgg_file), file)
    name, url, _, option = lpips.VGG16
    monkeypatch.setattr(lpips, "VGG16", (name, url, sha256(file.read_bytes()).hexdigest(), option))
    metric = build(["lpips"], MetricSettings(lpips_net="vgg"), CPU)["lpips"]
    known = load_lpips("vgg", vgg_file)
    assert torch.equal(metric.model.features[0].weight, known.features[0].weight)


def test_bad_weights_cost_one_line(tmp_path, vgg_file):
    (tmp_path / "torn.safetensors").write_bytes(ALEXNET.read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("no weights\n" * 9)
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"code": print}, tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    shutil.copy(vgg_file, tmp_path / "vgg.safetensors")
    for name in ("torn.safetensors", "text.pth", "empty.pth", "code.pth", "other.pth", "list.pth"):
        with pytest.raises(VaectlError, match=rf"{name}: is not a file of weights, or is damaged") as caught:
            load_lpips("alex", tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(VaectlError, match=r"vgg.safetensors: holds other tensors than the features of AlexNet"):
        load_lpips("alex", tmp_path / "vgg.safetensors")
    with pytest.raises(UsageError, match=r"nowhere.pth: no such file; give"):
        load_lpips("vgg", tmp_path / "nowhere.pth")
    with pytest.raises(UsageError, match=r": is not an ordinary file; give"):
        load_lpips("vgg", tmp_path)


def test_published_features_have_one_name_in_results(tmp_path, vgg_file):
    (tmp_path / "copy.safetensors").write_bytes(ALEXNET.read_bytes())
    torch.save(load_file(ALEXNET), tmp_path / "alexnet.pth")
    for file in (None, ALEXNET, tmp_path / "copy.safetensors", tmp_path / "alexnet.pth"):
        assert weights_name("alex", file) == "the published ones"
    assert weights_name("vgg", vgg_file).startswith(f"{vgg_file}, SHA-256 ")
    assert weights_name("vgg", ALEXNET) != weights_name("alex", ALEXNET)
