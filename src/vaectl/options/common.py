"""The options that several commands share, and the parsers of their values. Each is declared once."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from vaectl.errors import shown
from vaectl.memory import parse_size
from vaectl.model_names import how_to_get, hub_name, is_builtin
from vaectl.numbers import read_fraction
from vaectl.options.option import Option
from vaectl.urls import how_to_fetch, scheme_of

PATH_LENGTH = 4096
INPUT, OUTPUT, MODEL, MEMORY, RUN = "Input", "Output", "Model", "Memory", "Run"
"""The panels of the help page."""


def expand_user(path: str) -> Path:
    """Return the path with a leading `~` or `~name` expanded. It stays where no such user exists, and after `./`."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises, and `./~a` has lost its `./`


def read_path(value: Any) -> Any:
    if value == "":
        raise ValueError("the path is empty; give a file or a folder")
    if isinstance(value, str) and ("\0" in value or len(value) > PATH_LENGTH):
        raise ValueError(f"a path must not contain NUL or have more than {PATH_LENGTH} characters: {shown(value)}")
    if isinstance(value, str) and scheme_of(value):
        raise ValueError(f"{shown(value)} is a URL, and vaectl reads local files; {how_to_fetch(value)}")
    return expand_user(value) if isinstance(value, str) else value


def read_paths(value: Any) -> Any:
    """Parse one path or a list of paths."""
    return tuple(read_path(each) for each in (value if isinstance(value, list | tuple) else [value]))


def read_output_path(value: Any) -> Any:
    """Parse the path of a file or folder that the command writes."""
    if isinstance(value, str) and scheme_of(value):
        raise ValueError(f"{shown(value)} is a URL, and vaectl writes local files; give a path, and upload it later")
    return read_path(value)


def read_frame_rate(value: Any) -> Fraction:
    try:
        # Parse the text: in a configuration file 29.97 is a binary float, not 2997/100.
        rate = read_fraction(value if isinstance(value, str) else repr(value))
    except ValueError:
        raise ValueError(f"give frames per second as 30, 29.97 or 30000/1001, not {shown(repr(value))}") from None
    if not Fraction(1, 1000) <= rate <= 1000:
        raise ValueError(f"must be between 1/1000 and 1000 frames per second, not {shown(value)}")
    return rate


def read_device(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise ValueError(f"must be auto, cpu, cuda, cuda:N or mps, not {shown(repr(value))}")
    return value


def read_dtype(value: Any) -> Any:
    """Return the name of a dtype in PyTorch; published commands use bf16."""
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(str(value), value)


def read_memory_size(value: Any) -> int:
    return parse_size(str(value))


def read_model(value: Any) -> Any:
    """Parse the path or the name of a model. `builtin` and `owner/name` are names, `./builtin` a folder."""
    if isinstance(value, str) and scheme_of(value) and (remedy := how_to_get(Path(value))):
        raise ValueError(f"{shown(value)} is a URL; {remedy}")
    path = read_path(value)
    if name := hub_name(value):
        return Path(name.full)
    return path.absolute() if not is_builtin(value) and (is_builtin(path) or hub_name(path)) else path


def model_path(help: str, *published: str) -> Option:
    """Declare `--model`, which every command has, with the names of the published script."""
    return Option(panel=MODEL, metavar="PATH", aliases=published, read=read_model, help=help)


ON_HUB = "owner/name or owner/name@revision on Hugging Face"
MODEL_PATH = f"A model directory, one weights file in it, {ON_HUB}, or builtin. (default: the built-in model)"
Overwrite = Annotated[bool, Option(panel=OUTPUT, help="Replace existing files.")]
Json = Annotated[bool, Option(panel=OUTPUT, help="Print the results as one JSON object.")]

ModelName = Annotated[
    str | None,
    Option(
        panel=MODEL,
        metavar="NAME",
        aliases=("ae",),
        hidden=True,
        help="Checked against the model: WFVAE, CausalVAE, Wan or QwenImage.",
    ),
]
Device = Annotated[
    str,
    Option(
        panel=MODEL,
        metavar="DEVICE",
        choices=("auto", "cpu", "cuda", "mps"),
        read=read_device,
        help="auto, cpu, cuda, cuda:N or mps.",
    ),
]
WeightsName = Literal["ema", "raw"]
Weights = Annotated[
    WeightsName | None,
    Option(
        panel=MODEL,
        metavar="KIND",
        choices=("ema", "raw"),
        help="Weights of a training checkpoint: ema, their moving average, or raw. (default: ema if it has them)",
    ),
]


def check_weights(weights: WeightsName | None, has_model: bool) -> None:
    """Raise ValueError if `weights` is given without the model that it is about."""
    if weights is not None and not has_model:
        raise ValueError("`weights` is for the weights of `model`; give `model` too, or leave it out")


Compile = Annotated[
    bool, Option(panel=MODEL, help="Compile the network with torch.compile, which takes minutes; for GPUs.")
]


def check_compile(compile: bool, tiled: bool) -> None:
    """Raise ValueError if a compiled network should run in tiles."""
    if compile and tiled:
        raise ValueError(
            "`compile` excludes `enable_tiling`, `memory_limit` and `save_memory`: what a compiled network needs is not"
            " known; leave it out, or leave them out"
        )


DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[DtypeName, ...] = ("auto", "float32", "bfloat16", "float16")


def dtype_option(
    about: str = "float32, bfloat16 or float16",
    auto: str = "bfloat16 on GPUs that support it, else float32",
    default: str = "",
) -> Option:
    """Declare a data type; `auto` says what auto means, `default` explains a default that is not a value."""
    return Option(
        panel=MODEL,
        metavar="TYPE",
        choices=DTYPES,
        read=read_dtype,
        help=f"{about}; auto: {auto}.{default}",
    )


Dtype = Annotated[DtypeName, dtype_option()]

RgbConversionName = Literal["accurate", "swscale"]


def rgb_conversion_option(default: str = "") -> Option:
    """Declare `--rgb-conversion`; `default` explains a default that is not a value."""
    return Option(
        panel=INPUT,
        metavar="KIND",
        choices=("accurate", "swscale"),
        help="How decoded frames become RGB: accurate, as players show them; swscale, as decord and PyAV convert them,"
        f" to compare with published numbers.{default}",
    )


RgbConversion = Annotated[RgbConversionName, rgb_conversion_option()]

EnableTiling = Annotated[
    bool,
    Option(
        panel=MEMORY,
        aliases=("enable_tilintg",),
        help="Run the model in tiles, within the memory limit; the result is the same.",
    ),
]
MemoryLimit = Annotated[
    int | None,
    Option(
        panel=MEMORY,
        metavar="SIZE",
        read=read_memory_size,
        help="Memory limit of the GPU, or of the process on the CPU. Implies tiling. Units: GiB, MiB (powers of 1024), "
        "GB, MB (powers of 1000). "
        "(default: 90 % of the free memory)",
    ),
]
SaveMemory = Annotated[
    bool,
    Option(
        panel=MEMORY,
        help="Use less memory: up to about twice the time, after a longer search for tiles. Implies tiling.",
    ),
]
TileOverlapFactor = Annotated[
    float | None,
    Option(panel=MEMORY, metavar="X", least=0, most=1, hidden=True, help="No effect: tiles are exact."),
]

RENDEZVOUS_TIMEOUT: float = 600
"""Seconds."""
RendezvousTimeout = Annotated[
    float,
    Option(
        panel=RUN,
        metavar="SECONDS",
        least=1,
        most=10**6,
        help="Under torchrun: wait this long for the other processes to start.",
    ),
]

Config = Annotated[
    Path | None,
    Option(
        panel=RUN,
        metavar="FILE",
        read=read_path,
        in_file=False,
        help="TOML or JSON file of options; the command line overrides it.",
    ),
]
Debug = Annotated[bool, Option(panel=RUN, in_file=False, help="Show the traceback of an error.")]
PrintConfig = Annotated[
    bool,
    Option(panel=RUN, in_file=False, help="Print all options as TOML for --config, and run nothing."),
]
