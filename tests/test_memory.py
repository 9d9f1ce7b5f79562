"""How people write amounts of memory, and what this machine says of itself."""

import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaectl import memory


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("6GiB", 6 * 2**30),
        ("6G", 6 * 2**30),
        ("6 gb", 6 * 2**30),
        ("1.5g", 3 * 2**29),
        ("500MiB", 500 * 2**20),
        ("64k", 2**16),
        ("6000000000", 6000000000),
    ],
)
def test_sizes_as_people_write_them(text, count):
    assert memory.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "0.0GiB", "6 GiB GiB", "6X", "inf", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="give an amount of memory as 6GiB"):
        memory.parse_size(text)


@given(st.integers(2**20, 2**45))
def test_a_size_reads_back_as_about_itself(count):
    assert memory.parse_size(memory.format_size(count)) == pytest.approx(count, rel=0.01, abs=2**20)


def test_this_process_has_used_some_and_may_have_more():
    cpu = torch.device("cpu")
    assert memory.peak(cpu) > 2**20
    assert 2**20 < memory.obtainable(cpu) < 2**50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")
def test_freed_memory_is_returned():
    """Blocks of a few MiB, every second one freed: by itself the library keeps them all."""
    program = """
import torch
from vaectl.memory import _kilobytes, return_what_is_freed
return_what_is_freed()
torch.zeros(5 * 2**20)  # a freed block of that size makes the library keep smaller ones
blocks = [torch.zeros(2**20) for _ in range(64)]
before = _kilobytes("/proc/self/status", "VmRSS")
del blocks[::2]
print(before - _kilobytes("/proc/self/status", "VmRSS"))
"""
    freed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(freed) > 100 * 2**20  # of 128 MiB


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system tells no better")
def test_the_peak_is_not_that_of_whoever_started_the_process():
    small = "import torch; from vaectl.memory import peak; print(peak(torch.device('cpu')))"
    large = f"held = b'x' * (1 << 30); import subprocess, sys; subprocess.run([sys.executable, '-c', {small!r}])"
    told = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 1 << 30
