"""What each command takes: names, types, bounds, defaults and help texts, in one place.

A command's options are a frozen dataclass that serves pydantic as its model: `parse` builds one from raw values. (With
a class derived from `pydantic.BaseModel` every `--help` and every press of TAB would take half as long again, because
the machinery of pydantic is imported as soon as the class exists; this way it is imported when a command runs.) The
command line and the help are derived from the same class by `vaectl.cli`, of which nothing is known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from vaectl.errors import UsageError
from vaectl.memory import parse_size

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema, ErrorDetails

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """What the command line says about a field. Stands in its `Annotated` type, where pydantic finds `read`."""

    help: str
    panel: str
    metavar: str = ""
    """The kind of value, in capitals; flags have none."""
    aliases: tuple[str, ...] = ()
    """Other names that published commands use for the same thing."""
    choices: tuple[str, ...] = ()
    """What shell completion offers as a value."""
    read: Callable[[Any], Any] | None = None
    """Turns a value as typed (or found in a file) into the field's type; raises `ValueError` where it cannot."""
    in_file: bool = True
    """Whether a configuration file may set it."""

    least: int | None = None
    most: int | None = None
    """Bounds of a number, inclusive."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def check(value: Any, typed: Callable[[Any], Any]) -> Any:
            if isinstance(value, bool) and source is not bool:
                raise ValueError("takes a value, not true or false")
            if self.read is not None and value is not None:
                value = self.read(value)
            result = typed(value)
            if self.least is not None and result is not None and result < self.least:
                raise ValueError(f"must be at least {self.least}, not {result}")
            if self.most is not None and result is not None and result > self.most:
                raise ValueError(f"must be at most {self.most}, not {result}")
            return result

        return core_schema.no_info_wrap_validator_function(check, handler(source))


def cli_name(field: str) -> str:
    """The option of a field: `num_frames` is `--num-frames`."""
    return "--" + field.replace("_", "-")


def parse(model: type[T], values: Mapping[str, Any], name: Callable[[str], str] = cli_name) -> T:
    """Build the options `model` from raw values: strings as typed, or what a TOML or JSON file holds.

    `name` tells how to call a field when something is wrong with it. Raises `UsageError` with one line for all faults.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(model).validate_python(dict(values))
    except ValidationError as error:
        raise UsageError("; ".join(_fault(detail, name) for detail in error.errors())) from None


def dump(options: Any) -> dict[str, Any]:
    """The resolved options as plain JSON values, fractions and paths as strings; `parse` reads them back."""
    from pydantic import TypeAdapter

    values: dict[str, Any] = TypeAdapter(type(options)).dump_python(options, mode="json")
    return values


def _fault(detail: ErrorDetails, name: Callable[[str], str]) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    option = name(str(detail["loc"][0]))
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{option} is missing"
    if detail["type"] == "value_error":
        return f"{option}: {detail['ctx']['error']}"
    message = detail["msg"].replace("Input should be", "must be").split(", unable to")[0]
    return f"{option}: {message}, not {detail['input']!r}"


def _path(value: Any) -> Any:
    if value == "":
        raise ValueError("the path is empty; give a file or a folder")
    return Path(value).expanduser() if isinstance(value, str) else value


def _frame_rate(value: Any) -> Fraction:
    try:
        # Through text: a configuration file gives 29.97 as a binary float, which is not 2997/100.
        rate = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"give frames per second as 30, 29.97 or 30000/1001, not {value!r}") from None
    if not Fraction(1, 1000) <= rate <= 1000:
        raise ValueError(f"must lie between 1/1000 and 1000 frames per second, not {value}")
    return rate


def _device(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"must be auto, cpu, cuda, cuda:N or mps, not {value!r}")
    return value


def _dtype(value: Any) -> Any:
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(str(value), value)


def _memory(value: Any) -> int:
    return parse_size(str(value))


Dtype = Literal["auto", "float32", "bfloat16", "float16"]

INPUT, OUTPUT, MODEL, MEMORY, RUN = "Input", "Output", "Model", "Memory", "Run"


def _pixels(about: str) -> Option:
    return Option(panel=INPUT, metavar="PIXELS", least=16, most=16384, help=about)


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """What `vaectl reconstruct` takes. Raises `ValueError` for options that exclude each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    video_path: Annotated[
        Path,
        Option(
            panel=INPUT,
            metavar="PATH",
            aliases=("image_path",),
            read=_path,
            help="A video, an image, or a folder that holds them at any depth.",
        ),
    ]
    num_frames: Annotated[
        int | None, Option(panel=INPUT, metavar="N", least=1, help="How many frames to take. (default: all)")
    ] = None
    sample_rate: Annotated[int, Option(panel=INPUT, metavar="N", least=1, help="Take every N-th frame.")] = 1
    start: Annotated[int, Option(panel=INPUT, metavar="N", least=0, help="Skip the first N frames of the source.")] = 0
    height: Annotated[int | None, _pixels("Resize to this height. (default: the source's)")] = None
    width: Annotated[
        int | None,
        _pixels("Resize to this width; with --height, after a centre crop to their aspect. (default: the source's)"),
    ] = None
    short_size: Annotated[int | None, _pixels("Or: resize the shorter side to this, aspect kept.")] = None

    rec_path: Annotated[
        Path,
        Option(
            panel=OUTPUT,
            metavar="PATH",
            read=_path,
            help="Where to write: a file, or a folder that mirrors the source's.",
        ),
    ]
    fps: Annotated[
        Fraction | None,
        Option(
            panel=OUTPUT,
            metavar="RATE",
            read=_frame_rate,
            help="Frames per second: 30, 29.97, 30000/1001. (default: the source's)",
        ),
    ] = None
    side_by_side: Annotated[bool, Option(panel=OUTPUT, help="Show the original on the left of the reconstruction.")] = (
        False
    )
    lossless: Annotated[bool, Option(panel=OUTPUT, help="Store every RGB value exactly; large files.")] = False
    overwrite: Annotated[bool, Option(panel=OUTPUT, help="Replace targets that exist.")] = False
    json: Annotated[bool, Option(panel=OUTPUT, help="Print the results as one JSON object.")] = False

    ae_path: Annotated[
        Path | None,
        Option(
            panel=MODEL,
            metavar="PATH",
            aliases=("from_pretrained",),
            read=_path,
            help="A checkpoint, or its folder with config.json. (default: the built-in model)",
        ),
    ] = None
    device: Annotated[
        str,
        Option(
            panel=MODEL,
            metavar="DEVICE",
            choices=("auto", "cpu", "cuda", "mps"),
            read=_device,
            help="auto, cpu, cuda, cuda:N or mps.",
        ),
    ] = "auto"
    dtype: Annotated[
        Dtype,
        Option(
            panel=MODEL,
            metavar="TYPE",
            choices=("auto", "float32", "bfloat16", "float16"),
            read=_dtype,
            help="float32, bfloat16, float16; auto is bfloat16 on GPUs that have it, else float32.",
        ),
    ] = "auto"
    sample: Annotated[bool, Option(panel=MODEL, help="Draw latents from the posterior, not its mean.")] = False
    seed: Annotated[int, Option(panel=MODEL, metavar="N", least=0, most=2**63 - 1, help="Seed of --sample.")] = 0

    enable_tiling: Annotated[
        bool,
        Option(
            panel=MEMORY,
            aliases=("enable_tilintg",),
            help="Run the model tile by tile, within the memory limit; the result is the same.",
        ),
    ] = False
    memory_limit: Annotated[
        int | None,
        Option(
            panel=MEMORY,
            metavar="SIZE",
            read=_memory,
            help="Most memory to take, such as 6GiB: of the GPU, or of the process on the CPU. Implies tiling. "
            "(default: what is free)",
        ),
    ] = None
    save_memory: Annotated[
        bool,
        Option(
            panel=MEMORY,
            help="Take as little as about twice the time allows. Implies tiling.",
        ),
    ] = False

    config: Annotated[
        Path | None,
        Option(
            panel=RUN,
            metavar="FILE",
            read=_path,
            in_file=False,
            help="TOML or JSON file of options; the command line wins.",
        ),
    ] = None
    strict: Annotated[bool, Option(panel=RUN, help="Fail a clip that is shorter than --num-frames, not just warn.")] = (
        False
    )
    debug: Annotated[bool, Option(panel=RUN, in_file=False, help="Show the traceback of an error.")] = False

    def __post_init__(self) -> None:
        if self.short_size is not None and (self.height is not None or self.width is not None):
            raise ValueError("--short-size excludes --height and --width; give one or the other")


def options_of(model: type[Any]) -> dict[str, Option]:
    """Each field of an options class with what the command line says about it, in the order of the help."""
    from typing import get_type_hints

    hints = get_type_hints(model, include_extras=True)
    return {
        field.name: next(m for m in hints[field.name].__metadata__ if isinstance(m, Option)) for field in fields(model)
    }
