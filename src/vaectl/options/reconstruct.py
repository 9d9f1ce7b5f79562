"""The options of `vaectl reconstruct`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar

from vaectl.errors import shown
from vaectl.memory import Limits
from vaectl.options.common import (
    INPUT,
    MODEL,
    MODEL_PATH,
    OUTPUT,
    RUN,
    Compile,
    Config,
    Debug,
    Device,
    DtypeName,
    EnableTiling,
    Json,
    MemoryLimit,
    ModelName,
    Overwrite,
    PrintConfig,
    RgbConversion,
    SaveMemory,
    TileOverlapFactor,
    Weights,
    check_compile,
    dtype_option,
    model_path,
    read_frame_rate,
    read_output_path,
    read_paths,
)
from vaectl.options.option import Option


def read_target(value: Any) -> Any:
    """Parse the output path. One that ends with / is a folder; if its name looks like that of a file, it must exist."""
    target = read_output_path(value)
    if isinstance(value, str) and value.endswith("/") and target.suffix[1:2].isalpha() and not target.is_dir():
        raise ValueError(f"{shown(value)}: no such folder; create it, or leave out the / for a file")
    return target


def _pixels(about: str) -> Option:
    return Option(panel=INPUT, metavar="PIXELS", least=16, most=16384, help=about)


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """The options of `vaectl reconstruct`. Raises `ValueError` for options that exclude each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    video_path: Annotated[
        tuple[Path, ...],
        Option(
            panel=INPUT,
            metavar="PATH",
            aliases=("image_path",),
            many=True,
            main=True,
            read=read_paths,
            help="The same as IN: a video, an image, a folder with any of them at any depth, or numbered images:"
            " frames/%05d.png. May be repeated.",
        ),
    ]
    num_frames: Annotated[
        int | None, Option(panel=INPUT, metavar="N", least=1, help="Number of frames. (default: all)")
    ] = None
    sample_rate: Annotated[int, Option(panel=INPUT, metavar="N", least=1, help="Take every N-th frame.")] = 1
    start: Annotated[int, Option(panel=INPUT, metavar="N", least=0, help="Skip the first N frames of the source.")] = 0
    height: Annotated[int | None, _pixels("Resize to this height. (default: the source's)")] = None
    width: Annotated[
        int | None,
        _pixels(
            "Resize to this width; with --height, after a centre crop to their aspect ratio. (default: the source's)"
        ),
    ] = None
    short_size: Annotated[
        int | None, _pixels("Resize the shorter side to this, the other in proportion, to an even size.")
    ] = None
    rgb_conversion: RgbConversion = "accurate"

    rec_path: Annotated[
        Path,
        Option(
            panel=OUTPUT,
            metavar="PATH",
            main=True,
            read=read_target,
            help="The same as OUT: a file, or a folder that mirrors the source folder.",
        ),
    ]
    fps: Annotated[
        Fraction | None,
        Option(
            panel=OUTPUT,
            metavar="RATE",
            read=read_frame_rate,
            help="Frames per second: 30, 29.97, 30000/1001. (default: the source's; numbered images: 25)",
        ),
    ] = None
    side_by_side: Annotated[bool, Option(panel=OUTPUT, help="Show the original to the left of the reconstruction.")] = (
        False
    )
    lossless: Annotated[bool, Option(panel=OUTPUT, help="Store every RGB value exactly; large files.")] = False
    overwrite: Overwrite = False
    json: Json = False

    model: Annotated[Path | None, model_path(MODEL_PATH, "ae_path", "from_pretrained")] = None
    weights: Weights = None
    model_name: ModelName = None
    device: Device = "auto"
    dtype: Annotated[
        DtypeName,
        dtype_option(
            auto="bfloat16 on GPUs that support it, and for narrow models without tiles on CPUs that do; else float32"
        ),
    ] = "auto"
    sample: Annotated[
        bool, Option(panel=MODEL, help="Sample latents from the posterior instead of using its mean.")
    ] = False
    seed: Annotated[int, Option(panel=MODEL, metavar="N", least=0, most=2**63 - 1, help="Seed of --sample.")] = 0
    compile: Compile = False

    enable_tiling: EnableTiling = False
    memory_limit: MemoryLimit = None
    save_memory: SaveMemory = False
    tile_overlap_factor: TileOverlapFactor = None

    config: Config = None
    print_config: PrintConfig = False
    strict: Annotated[bool, Option(panel=RUN, help="Fail a clip that is shorter than --num-frames, not just warn.")] = (
        False
    )
    debug: Debug = False

    def __post_init__(self) -> None:
        check_compile(self.compile, Limits.of(self).tiled)
        if self.short_size is not None and (self.height is not None or self.width is not None):
            raise ValueError("`short_size` excludes `height` and `width`; give one or the other")
