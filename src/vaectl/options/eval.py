"""The options of `vaectl eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from vaectl.errors import UsageError, shown
from vaectl.metrics import DEFAULT, METRICS, known
from vaectl.options.candidates import Candidate, NamedPath, candidates_of, read_named_paths
from vaectl.options.clips import NUM_FRAMES, RESOLUTION, RealVideoDir, SubsetSize, check_crop
from vaectl.options.common import (
    DTYPES,
    INPUT,
    MODEL,
    ON_HUB,
    OUTPUT,
    RENDEZVOUS_TIMEOUT,
    RUN,
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
    RgbConversionName,
    SaveMemory,
    Weights,
    check_weights,
    read_dtype,
    read_model,
    read_output_path,
    read_path,
    rgb_conversion_option,
)
from vaectl.options.option import Option
from vaectl.options.tables import AllPairs, Csv, Latex, Markdown

METRIC = "Metrics"
"""A panel of the help page."""


def read_metrics(value: Any) -> tuple[str, ...]:
    """Parse names of metrics: a list in which each item may hold several, separated by commas. Drops duplicates."""
    given = value if isinstance(value, list | tuple) else [value]
    names = tuple(dict.fromkeys(name.strip() for each in given for name in str(each).split(",")))
    if not names:
        raise ValueError(f"name at least one of {', '.join(METRICS)}")
    try:
        for name in names:
            known(name)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return names


def read_fvd_method(value: Any) -> Any:
    if value != "styleganv":
        raise ValueError(f"must be styleganv, the method of the published tables, not {shown(repr(value))}")
    return value


def _from_manifest(metavar: str, about: str, least: int, most: int | None = None) -> Option:
    return Option(panel=INPUT, metavar=metavar, least=least, most=most, help=about)


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
    num_frames: Annotated[
        int | None, _from_manifest("N", f"Frames of each clip. (default: as prepared, else {NUM_FRAMES})", 1)
    ] = None
    sample_rate: Annotated[
        int | None, _from_manifest("N", "Take every N-th frame. (default: as prepared, else 1)", 1)
    ] = None
    resolution: Annotated[
        int | None,
        _from_manifest(
            "PIXELS", f"Resize the shorter side to this. (default: as prepared, else {RESOLUTION})", 16, 16384
        ),
    ] = None
    crop_size: Annotated[
        int | None,
        _from_manifest(
            "PIXELS",
            "Then crop this square from the centre; 0: the whole frame. (default: as prepared, else the resolution)",
            0,
            16384,
        ),
    ] = None
    rgb_conversion: Annotated[
        RgbConversionName | None, rgb_conversion_option(" (default: as prepared, else accurate)")
    ] = None
    subset_size: SubsetSize = 0
    as_prepared: Annotated[
        bool,
        Option(panel=INPUT, help="Measure clips as their manifest says, also where another option contradicts it."),
    ] = False
    allow_missing: Annotated[
        bool,
        Option(panel=INPUT, help="Leave out clips that have no partner or cannot be compared, and report how many."),
    ] = False

    metric: Annotated[
        tuple[str, ...],
        Option(
            panel=METRIC,
            metavar="NAMES",
            choices=tuple(METRICS),
            many=True,
            read=read_metrics,
            help=f"{', '.join(METRICS)}; separate several by commas, or repeat the option.",
        ),
    ] = DEFAULT
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
        Option(panel=METRIC, metavar="FILE", read=read_path, help="The network of FVD. (default: it is downloaded)"),
    ] = None
    fvd_method: Annotated[
        str,
        Option(panel=METRIC, metavar="NAME", read=read_fvd_method, hidden=True, help="Checked: styleganv."),
    ] = "styleganv"

    cost: Annotated[
        bool | None,
        Option(panel=METRIC, help="Measure the speed and the peak memory of --model. (default: of several models)"),
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
    dtype: Annotated[
        DtypeName | None,
        Option(
            panel=MODEL,
            metavar="TYPE",
            choices=DTYPES,
            read=read_dtype,
            help="float32, bfloat16 or float16; auto: bfloat16 on GPUs that support it, else float32. "
            "(default: float32)",
        ),
    ] = None
    sample: Annotated[
        bool, Option(panel=MODEL, help="Sample latents from the posterior instead of using its mean.")
    ] = False
    seed: Annotated[
        int | None,
        Option(panel=MODEL, metavar="N", least=0, most=2**63 - 1, help="Seed of --sample. (default: 0)"),
    ] = None

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
        Option(panel=RUN, metavar="RATE", least=0, hidden=True, help="No effect: --sample-rate chooses frames."),
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
        if self.resolution is not None:
            check_crop(self.resolution, self.crop_size)
        if not self.candidates:
            raise ValueError(
                "`generated_video_dir` is missing; give it, or `model` to reconstruct the originals in memory"
            )
        check_weights(self.weights, bool(self.model))
