"""The options of `vaectl prepare-eval`."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from vaectl.memory import Limits
from vaectl.options.clips import (
    NUM_FRAMES,
    RESOLUTION,
    AllWindows,
    CropSize,
    FrameRate,
    NumFrames,
    NumWorkers,
    RealVideoDir,
    Resolution,
    SampleRate,
    SubsetSize,
    check_crop,
    check_windows,
)
from vaectl.options.common import (
    INPUT,
    MODEL,
    MODEL_PATH,
    OUTPUT,
    RENDEZVOUS_TIMEOUT,
    Compile,
    Config,
    Debug,
    Device,
    Dtype,
    EnableTiling,
    Json,
    MemoryLimit,
    ModelName,
    Overwrite,
    PrintConfig,
    RendezvousTimeout,
    RgbConversion,
    SaveMemory,
    TileOverlapFactor,
    Weights,
    check_compile,
    model_path,
    read_frame_rate,
    read_output_path,
)
from vaectl.options.option import Option
from vaectl.options.protocol import ProtocolName


def _crop_side(side: str) -> Option:
    return Option(
        panel=INPUT, metavar="PIXELS", least=1, most=16384, hidden=True, help=f"The {side} of --crop-size, a square."
    )


@dataclass(frozen=True, kw_only=True)
class PrepareEvalOptions:
    """The options of `vaectl prepare-eval`. Raises `ValueError` for options that exclude each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    real_video_dir: RealVideoDir
    protocol: ProtocolName = None
    num_frames: NumFrames = NUM_FRAMES
    sample_rate: SampleRate = 1
    frame_rate: FrameRate = None
    all_windows: AllWindows = False
    resolution: Resolution = RESOLUTION
    crop_size: CropSize = None
    crop_size_width: Annotated[int | None, _crop_side("width")] = None
    crop_size_height: Annotated[int | None, _crop_side("height")] = None
    subset_size: SubsetSize = 0
    rgb_conversion: RgbConversion = "accurate"

    generated_video_dir: Annotated[
        Path,
        Option(
            panel=OUTPUT,
            metavar="PATH",
            main=True,
            read=read_output_path,
            help="Output folder; mirrors the input folder.",
        ),
    ]
    output_origin: Annotated[
        bool, Option(panel=OUTPUT, help="Also write the input clips of the network, under origin/.")
    ] = False
    format: Annotated[
        Literal["mkv", "mp4"],
        Option(
            panel=OUTPUT,
            metavar="FORMAT",
            choices=("mkv", "mp4"),
            help="mkv is lossless (8 bits); mp4 is lossy, for viewing.",
        ),
    ] = "mkv"
    sample_fps: Annotated[
        Fraction | None,
        Option(
            panel=OUTPUT,
            metavar="RATE",
            read=read_frame_rate,
            help="Frames per second before --sample-rate takes every N-th. (default: the source's)",
        ),
    ] = None
    overwrite: Overwrite = False
    json: Json = False

    model: Annotated[Path | None, model_path(MODEL_PATH, "ckpt", "from_pretrained")] = None
    weights: Weights = None
    model_name: ModelName = None
    device: Device = "auto"
    dtype: Dtype = "float32"
    sample: Annotated[
        bool, Option(panel=MODEL, help="Sample latents from the posterior instead of using its mean.")
    ] = False
    seed: Annotated[int, Option(panel=MODEL, metavar="N", least=0, most=2**63 - 1, help="Seed of --sample.")] = 0
    batch_size: Annotated[int, Option(panel=MODEL, metavar="N", least=1, help="Clips in one batch of the network.")] = 1
    compile: Compile = False

    enable_tiling: EnableTiling = False
    memory_limit: MemoryLimit = None
    save_memory: SaveMemory = False
    tile_overlap_factor: TileOverlapFactor = None

    num_workers: NumWorkers = 8
    rendezvous_timeout: RendezvousTimeout = RENDEZVOUS_TIMEOUT
    config: Config = None
    print_config: PrintConfig = False
    debug: Debug = False

    def __post_init__(self) -> None:
        check_compile(self.compile, Limits.of(self).tiled)
        check_windows(self.num_frames, self.all_windows)
        sides = {self.crop_size_width, self.crop_size_height}
        if sides != {None}:
            if len(sides | ({self.crop_size} - {None})) > 1:
                raise ValueError(
                    "`crop_size_width`, `crop_size_height` and a `crop_size` have to be equal: crops are squares; give"
                    " `crop_size` alone"
                )
            object.__setattr__(self, "crop_size", self.crop_size_width)
            # The manifest records the resolved options, and a new crop_size may override them.
            object.__setattr__(self, "crop_size_width", None)
            object.__setattr__(self, "crop_size_height", None)
        check_crop(self.resolution, self.crop_size)
