"""What can be imported without packages that it does not need."""

import subprocess
import sys

import pytest

WITHOUT_PYAV = (
    "vaectl.engine",
    "vaectl.models",
    "vaectl.tiling.executor",
    "vaectl.tiling.whole_clip",
    "vaectl.training.trainer",
)


def test_networks_tiling_and_training_steps_need_no_pyav():
    code = f"import sys; sys.modules['av'] = None\nfor name in {WITHOUT_PYAV}: __import__(name)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_the_video_package_lacks():
    import vaectl.video

    assert vaectl.video.read_video.__module__ == "vaectl.video.read"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vaectl.video.nothing  # noqa: B018
