"""The table of metrics: names, lazily imported modules, files that are fetched, float32 that is float32."""

import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module

import pytest
import torch

from tests.jobs import Listener
from tests.metrics.reference import CPU, noise
from vaectl.errors import UsageError, VaectlError
from vaectl.metrics import DEFAULT, FACTS, METRICS, MetricSettings, build, known
from vaectl.metrics.download import cached
from vaectl.metrics.frames import exact_float32, per_frame
from vaectl.metrics.metric import FrameMetric


def test_every_name_leads_to_a_function():
    assert set(DEFAULT) <= set(METRICS)
    for target in METRICS.values():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function))


def test_every_metric_states_what_it_can_be():
    assert FACTS.keys() == METRICS.keys()
    assert all(facts.bounds[0] < facts.bounds[1] for facts in FACTS.values())


def test_metrics_come_in_the_order_asked_for_and_measure_frames():
    metrics = build(["flicker", "psnr", "ssim", "lpips"], MetricSettings(), CPU)
    assert list(metrics) == ["flicker", "psnr", "ssim", "lpips"]
    real, generated = noise(2, 3, 3, 32, 40), noise(2, 3, 3, 32, 40, seed=1)
    for name, metric in metrics.items():
        assert isinstance(metric, FrameMetric)
        numbers = metric.measure(real, generated)
        assert numbers.shape == (2, 2 if name == "flicker" else 3)
        assert numbers.dtype == torch.float64
        assert metric.better == ("higher" if name in ("psnr", "ssim") else "lower")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("pnsr", "did you mean psnr?"), ("LPIPS", "did you mean lpips?"), ("niqe", "there are psnr, ssim")],
)
def test_an_unknown_metric_is_answered_with_the_nearest(name, hint):
    with pytest.raises(UsageError) as caught:
        known(name)
    assert str(caught.value).startswith(f"there is no metric {name!r}; {hint}")
    with pytest.raises(UsageError):
        build([name], MetricSettings(), CPU)


def test_names_are_known_without_torch():
    program = "import sys, vaectl.metrics as m; m.known('ssim'); m.MetricSettings(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_no_more_than_so_many_pixels_are_measured_at_a_time():
    sizes = []

    def measure(a, b):
        sizes.append(len(a))
        return (a.float() - b.float()).mean(dim=(1, 2, 3))

    real, generated = noise(2, 5, 3, 8, 8), noise(2, 5, 3, 8, 8, seed=1)
    result = per_frame(measure, real, generated, CPU, pixels=3 * 64 + 1)
    assert sizes == [3, 3, 3, 1]
    torch.testing.assert_close(result, (real.double() - generated.double()).mean(dim=(2, 3, 4)), rtol=1e-5, atol=1e-5)


def test_tf32_is_off_within_and_as_it_was_after():
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = True
        with suppress(KeyError), exact_float32():
            assert not any(flag.allow_tf32 for flag in flags)
            raise KeyError
        assert all(flag.allow_tf32 for flag in flags)
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """A file to fetch, and a cache of torch hub that does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    file = tmp_path / "origin.bin"
    file.write_bytes(b"weights" * 1000)
    return file


def test_a_file_is_fetched_once_into_the_cache_of_torch_hub(origin, tmp_path):
    digest = hashlib.sha256(origin.read_bytes()).hexdigest()
    for _ in range(2):
        file = cached("weights.bin", origin.as_uri(), digest, "option")
        assert file == tmp_path / "home" / "hub" / "checkpoints" / "weights.bin"
        assert file.read_bytes() == b"weights" * 1000
        origin.unlink(missing_ok=True)


def test_a_file_with_another_checksum_is_not_kept(origin, tmp_path):
    with pytest.raises(VaectlError, match=r"cannot be fetched \(invalid hash value"):
        cached("weights.bin", origin.as_uri(), "0" * 64, "option")
    assert not [file for file in (tmp_path / "home").rglob("*") if file.is_file()]


def test_offline_one_line_says_which_file_to_put_where(origin, tmp_path):
    with pytest.raises(VaectlError) as caught:
        cached("weights.bin", "http://localhost:9/weights.bin", "0" * 64, "option")
    place = tmp_path / "home" / "hub" / "checkpoints" / "weights.bin"
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("http://localhost:9/weights.bin cannot be fetched (")
    assert str(caught.value).endswith(f"); put the file at {place}, or pass its path as `option`")
    assert not place.parent.exists()


def test_a_cache_that_cannot_be_written_costs_one_line_too(origin, tmp_path):
    (tmp_path / "home").write_text("a file where the folder would be")
    place = tmp_path / "home" / "hub" / "checkpoints" / "weights.bin"
    with pytest.raises(VaectlError) as caught:
        cached("weights.bin", origin.as_uri(), "0" * 64, "option")
    assert f"cannot be fetched ({place}: cannot write there (" in str(caught.value)
    assert str(caught.value).endswith(f"; put the file at {place}, or pass its path as `option`")


@pytest.fixture
def serve():
    """A server on this machine that answers each connection with a function; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def start(answer):
        def loop():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/weights.bin"

    yield start
    listening.close()


def test_a_server_that_never_answers_is_given_up(origin, serve, monkeypatch):
    monkeypatch.setattr("vaectl.metrics.download.TIMEOUT_SECONDS", 0.5)
    begun = time.monotonic()
    with pytest.raises(VaectlError, match=r"cannot be fetched \(.*timed out\); put the file at"):
        cached("weights.bin", serve(lambda _connection: time.sleep(20)), "0" * 64, "option")
    assert time.monotonic() - begun < 10


def test_a_server_that_drips_is_given_up(origin, serve, monkeypatch):
    monkeypatch.setattr("vaectl.metrics.download.PERIOD_SECONDS", 0.5)

    def drip(connection):
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 90000000\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.1)

    begun = time.monotonic()
    listener = Listener()
    with pytest.raises(VaectlError, match=r"cannot be fetched \(\d+ bytes in 0 s\)"):
        cached("weights.bin", serve(drip), "0" * 64, "option", listener)
    assert time.monotonic() - begun < 10
    assert [note for note in listener.notes if note.endswith("weights.bin (85 MiB)")] == listener.notes
    assert listener.notes


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"X" + content[1:], lambda _: b""])
def test_a_file_that_was_in_the_cache_is_checked_before_it_is_used(origin, tmp_path, spoil):
    digest = hashlib.sha256(origin.read_bytes()).hexdigest()
    file = cached("weights.bin", origin.as_uri(), digest, "option")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(VaectlError, match=r"weights\.bin: is damaged, .*remove it to fetch it again.* `option`"):
        cached("weights.bin", origin.as_uri(), digest, "option")
    file.unlink()
    assert cached("weights.bin", origin.as_uri(), digest, "option").read_bytes() == origin.read_bytes()
