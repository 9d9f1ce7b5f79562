"""Amounts of memory in text, and the memory of this machine."""

import os
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
        ("6 gib", 6 * 2**30),
        ("6GB", 6 * 10**9),
        ("6 gb", 6 * 10**9),
        ("1.5g", 3 * 2**29),
        ("500MiB", 500 * 2**20),
        ("500MB", 500 * 10**6),
        ("2048k", 2**21),
        ("6000000000", 6000000000),
        ("6000000000 B", 6000000000),
    ],
)
def test_sizes_as_people_write_them(text, count):
    assert memory.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "0.0GiB", "6 GiB GiB", "6X", "6i", "6iB", "inf", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="give an amount of memory as 6GiB"):
        memory.parse_size(text)


@pytest.mark.parametrize("text", ["6", "0.5", "16384", " 1000000 ", "6B"])
def test_a_number_that_is_too_small_for_bytes_is_asked_for_its_unit(text):
    number = text.strip(" B")
    with pytest.raises(ValueError, match=rf"^{text.strip()} what\? give a unit, as in {number}GiB or {number}MiB$"):
        memory.parse_size(text)


def test_less_than_any_model_needs_is_refused():
    with pytest.raises(ValueError, match="must be at least 1 MiB, not 64k"):
        memory.parse_size("64k")


@given(st.integers(2**20, 2**45))
def test_a_size_reads_back_as_about_itself(count):
    assert memory.parse_size(memory.format_size(count)) == pytest.approx(count, rel=0.01, abs=2**20)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("300MB", "300MB (286 MiB)"),
        ("6GB", "6GB (5.59 GiB)"),
        ("1.5gb", "1.5GB (1.40 GiB)"),
        ("1500MB", "1.5GB (1.40 GiB)"),
        ("6GiB", "6.00 GiB"),
        ("500MiB", "500 MiB"),
        ("123456789", "118 MiB"),
    ],
)
def test_a_limit_is_shown_as_it_is_typed(typed, shown):
    assert memory.format_limit(memory.parse_size(typed)) == shown


@given(st.integers(2**20, 2**45))
def test_what_is_needed_at_least_is_enough_when_it_is_given(count):
    told = memory.parse_size(memory.format_size(count, at_least=True))
    assert count <= told <= count + max(2**20, 2**30 // 100)


def test_this_process_has_used_some_and_may_have_more():
    cpu = torch.device("cpu")
    assert memory.peak(cpu) > 2**20
    assert 2**20 < memory.resident() <= memory.peak(cpu)
    assert memory.resident() < memory.obtainable(cpu) < 2**50


GROUP = "9:pids:/\n4:cpu,memory:/job/step\n"
UNIT = "0::/user.slice/run.scope\n"


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        (UNIT, {"user.slice": ("memory.max", "memory.current", "4096 1000 inactive_file 200")}, 3296),
        (UNIT, {"user.slice/run.scope": ("memory.max", "memory.current", "max 1000 inactive_file 0")}, None),
        (UNIT, {".": ("memory.max", "memory.current", "4096 5000 anon 1")}, 0),
        (
            GROUP,
            {
                "memory/job": (
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "4096 1000 inactive_file 1\ntotal_inactive_file 7",
                )
            },
            3103,
        ),
        (GROUP, {"memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "4096 96 cache 0")}, 4000),
        ("", {}, None),
    ],
    ids=["parent", "unlimited", "container", "version 1", "container, version 1", "none"],
)
def test_the_limits_of_control_groups_are_found(tmp_path, groups, files, left):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for folder, (limit, use, values) in files.items():
        here = tmp_path / "sys/fs/cgroup" / folder
        here.mkdir(parents=True)
        for name, value in zip((limit, use, "memory.stat"), values.split(" ", 2), strict=True):
            (here / name).write_text(value + "\n")
    assert memory.left_to_groups(tmp_path) == ([] if left is None else [left])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="freed memory: needs the GNU C library")
@pytest.mark.parametrize(("megabytes", "kept"), [(1, True), (24, False)])
def test_freed_memory_is_kept_for_reuse_up_to_a_size_and_can_be_returned(megabytes, kept):
    """Free every second block of 192 MiB."""
    program = f"""
import torch
from vaectl.memory import _kilobytes, return_freed, reuse_freed

def held():
    return _kilobytes("/proc/self/status", "VmRSS") - start

torch.zeros(40 * 2**18)  # a freed block of that size makes the library keep smaller ones
reuse_freed(8 * 2**20)
start = 0
start = held()
blocks = [torch.zeros({megabytes} * 2**18) for _ in range({192 // megabytes})]
del blocks[::2]
print(held())
return_freed()
print(held())
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, after = (int(line) / 2**20 for line in told.split())
    assert before == pytest.approx(192 if kept else 96, abs=10)
    assert after == pytest.approx(96, abs=10)


@pytest.mark.skipif(sys.platform != "linux", reason="peak of one process: needs Linux")
def test_the_peak_is_not_that_of_whoever_started_the_process():
    small = "import torch; from vaectl.memory import peak; print(peak(torch.device('cpu')))"
    large = f"held = b'x' * (1 << 30); import subprocess, sys; subprocess.run([sys.executable, '-c', {small!r}])"
    told = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 1 << 30


@pytest.mark.parametrize(("given", "expected"), [({}, "expandable_segments:True"), ({"PYTORCH_ALLOC_CONF": "x"}, None)])
def test_segments_are_expandable_unless_the_environment_says_something(monkeypatch, given, expected):
    monkeypatch.setattr(os, "environ", dict(given))
    memory.expand_segments()
    assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF") == expected
    assert os.environ.get("PYTORCH_ALLOC_CONF") == given.get("PYTORCH_ALLOC_CONF", expected)
