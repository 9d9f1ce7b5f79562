"""Measure the speed of vaectl on the CPU next to that of other tools and of the machine itself, section by section.

    python benchmarks/performance.py [--only encode reading ...] [--published DIR] [--json FILE] [--markdown FILE]

Sections, each in a process of its own, a few minutes each:

    encode, decode  WF-VAE-S in float32, next to the published code: DIR is a clone of PKU-YuanGroup/WF-VAE
    training        its training step, next to the published network with the same losses
    wan             encode and decode of Wan 2.1, next to diffusers
    bfloat16        WF-VAE-S in bfloat16, next to float32
    reading         frames of a 720p clip, next to torchcodec
    samples         training samples, next to torchcodec and a resize
    metrics         next to scikit-image, pytorch-msssim and lpips; I3D and FFmpeg's metrics alone
    startup         of the commands, next to importing their libraries
    layers          time by kind of layer, next to the least time that this machine can need (`layers.py` has details)
    growth-frames, growth-area, growth-clips
                    time and memory of clips with more frames, of larger frames, and of more clips in `vaectl eval`

Both sides run in one process, in turns, on all cores; the best time of each counts. A peer that is not installed is
left out, and the reason is printed. `--json` adds the sections to those in FILE. `--markdown` replaces the tables in
FILE, between its marks, with those of all sections in the JSON file, and draws the picture of the growth next to it.

On a machine that is busy, set OMP_NUM_THREADS=1 and use `--processor-time`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

SECTIONS = {
    "encode": "networks:networks",
    "decode": "networks:networks",
    "training": "networks:training",
    "wan": "networks:wan",
    "bfloat16": "networks:bfloat16",
    "reading": "media:reading",
    "samples": "media:samples",
    "metrics": "media:metrics",
    "startup": "media:startup",
    "layers": "networks:layers",
    "growth-frames": "growth:frames",
    "growth-area": "growth:area",
    "growth-clips": "growth:clips",
}


def run_section(name: str, options: Any) -> dict[str, Any]:
    """Measure a section in this process. Rows that were measured before a failure are kept."""
    from gpu_steps.console import first_line
    from performance_sections.page import brief
    from performance_sections.rows import LeftOut

    module, _, function = SECTIONS[name].partition(":")
    measure: Callable[..., Iterator[Any]] = getattr(import_module(f"performance_sections.{module}"), function)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    try:
        for row in measure(name, options) if function == "networks" else measure(options):
            print(f"{name}: {brief(row)}", flush=True)
            (left_out if isinstance(row, LeftOut) else rows).append(asdict(row))
    except Exception as error:  # the other sections follow
        traceback.print_exc()
        left_out.append({"what": f"the rest of {name}", "reason": f"{type(error).__name__}: {first_line(error)}"})
    return {"date": date.today().isoformat(), "rows": rows, "left_out": left_out}


def in_own_process(name: str) -> dict[str, Any]:
    """Measure a section in a new process with the arguments of this one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "section.json"
        done = subprocess.run([sys.executable, *sys.argv, "--section", name, str(file)])
        if file.is_file():
            result: dict[str, Any] = json.loads(file.read_text())
            return result
    reason = f"its process ended with status {done.returncode}"
    return {"date": date.today().isoformat(), "rows": [], "left_out": [{"what": name, "reason": reason}]}


def machine(options: Any) -> dict[str, Any]:
    """Describe and measure this machine."""
    import torch

    from common.rates import measure_rates

    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "clock": "processor time" if options.processor_time else "time on the wall",
        **asdict(measure_rates(options.clock, small=options.tiny)),
    }


def processor() -> str:
    """Return the name of the processor, and its instructions for wide vectors."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in facts.items()}
    wide = [each for each in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if each in found.get("flags", "").split()]
    return ", ".join([found.get("model name", platform.machine()), *wide[-2:]])


def clip(text: str) -> tuple[int, ...]:
    """Parse frames, height and width; argparse reports the ValueError."""
    shape = tuple(map(int, text.split("x")))
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(text)
    return shape


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=[*SECTIONS],
        metavar="SECTION",
        help=f"only these of {', '.join(SECTIONS)}",
    )
    parser.add_argument("--published", type=Path, metavar="DIR", help="a clone of PKU-YuanGroup/WF-VAE")
    parser.add_argument(
        "--shapes", nargs="+", type=clip, metavar="TxHxW", help="of clips for WF-VAE-S, such as 17x128x128"
    )
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="runs of each side (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the results to those in FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replace the tables in FILE")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that is busy")
    parser.add_argument("--tiny", action="store_true", help="only try the code, on tiny shapes")
    parser.add_argument("--section", nargs=2, metavar=("SECTION", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.published is not None and not (arguments.published / "causalvideovae").is_dir():
        parser.error(f"{arguments.published}: holds no folder causalvideovae; give a clone of PKU-YuanGroup/WF-VAE")

    from performance_sections.page import print_results, write_page
    from performance_sections.rows import Options

    options = Options(
        published=arguments.published,
        turns=arguments.turns,
        tiny=arguments.tiny,
        processor_time=arguments.processor_time,
        **({"shapes": arguments.shapes} if arguments.shapes else {}),
    )
    if arguments.section:
        name, file = arguments.section
        Path(file).write_text(json.dumps(run_section(name, options)))
        return 0
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else {}
    results = {"machine": machine(options), "sections": known.get("sections", {})}
    for name in arguments.only:
        results["sections"][name] = in_own_process(name)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    print_results(results)
    if arguments.markdown:
        write_page(results, arguments.markdown)
    return int(any(section["left_out"] and not section["rows"] for section in results["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
