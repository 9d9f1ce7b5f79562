"""The networks do not know allocators, tensors without data, or options of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODELS = ROOT / "src" / "vaectl" / "models"
FORBIDDEN = {
    "an allocator": (
        r"vaectl\.memory|vaectl\.shortage|malloc|malloc_trim|empty_cache|memory_fraction|return_freed|reuse_freed"
        r"|PYTORCH_CUDA_ALLOC_CONF|torch\.cuda\.mem|\ballocat(?:or|ed|ion)\b"
    ),
    'the device "meta"': r"""["']meta["']|\bis_meta\b""",
    "an option": r"(?<![\w-])--[a-z][a-z-]+",
}
ALLOWED = {
    # Models are built without data before their weights are loaded.
    ('the device "meta"', "checkpoint.py"),
    ('the device "meta"', "containers.py"),
}


def mentions(source: Path) -> dict[tuple[str, str], list[str]]:
    """Lines with a forbidden mention, by kind and file."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted(source.rglob("*.py")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for what, pattern in FORBIDDEN.items():
                if re.search(pattern, line):
                    found.setdefault((what, str(file.relative_to(source))), []).append(f"{number}: {line.strip()}")
    return found


def test_networks_know_no_allocator_no_meta_device_and_no_option() -> None:
    found = mentions(MODELS)
    assert {key: lines for key, lines in found.items() if key not in ALLOWED} == {}
    assert found.keys() == ALLOWED  # every exception is needed


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("from vaectl.memory import return_freed", "an allocator"),
        ("torch.cuda.empty_cache()", "an allocator"),
        ('if x.device.type == "meta":', 'the device "meta"'),
        ("x.is_meta", 'the device "meta"'),
        ('raise ValueError("use --dtype float32")', "an option"),
    ],
)
def test_a_mention_would_be_found(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "vae.py").write_text(f"a = b - -c\n{line}\n")
    assert mentions(tmp_path) == {(what, "vae.py"): [f"2: {line}"]}
