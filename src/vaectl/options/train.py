"""The options of `vaectl train`. Defaults are the published ones, except --mix-precision and --eval-lpips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from vaectl.errors import shown
from vaectl.options.clips import check_crop
from vaectl.options.common import (
    MODEL,
    ON_HUB,
    RENDEZVOUS_TIMEOUT,
    RUN,
    Compile,
    Config,
    Debug,
    Device,
    DtypeName,
    Json,
    ModelName,
    PrintConfig,
    RendezvousTimeout,
    Weights,
    check_weights,
    dtype_option,
    model_path,
    read_model,
    read_output_path,
    read_path,
    read_paths,
)
from vaectl.options.option import Option

DATA, OBJECTIVE, OPTIMIZER, VALIDATION, CHECKPOINTS = (
    "Data",
    "Objective",
    "Optimizer",
    "Validation",
    "Run and checkpoints",
)

RECIPES = ("tiny", "finetune-decoder", "wfvae-s", "wfvae-m", "wfvae-l", "od-vae", "stage1", "stage2", "stage3")


def read_weights(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def count(panel: str, help: str, least: int = 1, aliases: tuple[str, ...] = ()) -> Option:
    return Option(panel=panel, metavar="N", least=least, help=help, aliases=aliases)


def number(panel: str, help: str, least: float = 0.0, most: float | None = None) -> Option:
    return Option(panel=panel, metavar="X", least=least, most=most, help=help)


def flag(panel: str, help: str) -> Option:
    return Option(panel=panel, help=help)


def momentary(help: str) -> Option:
    return Option(panel=CHECKPOINTS, help=help, in_file=False)


def place(panel: str, help: str) -> Option:
    return Option(panel=panel, metavar="PATH", read=read_path, help=help)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `vaectl train`. Raises `ValueError` for options that exclude each other."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    video_path: Annotated[
        tuple[Path, ...],
        Option(
            panel=DATA,
            metavar="PATH",
            many=True,
            main=True,
            read=read_paths,
            help="A folder of videos, at any depth; may be repeated. Not needed to resume.",
        ),
    ]
    video_weight: Annotated[
        tuple[float, ...],
        Option(
            panel=DATA,
            metavar="X",
            many=True,
            read=read_weights,
            help="Sampling weight of each --video-path, in the same order. (default: its number of clips)",
        ),
    ] = ()
    num_frames: Annotated[int, count(DATA, "Frames per clip: 1 + 4n for models that compress time by 4.")] = 17
    resolution: Annotated[int, count(DATA, "Shorter side of a frame in pixels.", least=16)] = 256
    crop_size: Annotated[
        int | None,
        count(
            DATA,
            "Side of the square crop in pixels. (default: --resolution)",
            least=16,
        ),
    ] = None
    sample_rate: Annotated[int, count(DATA, "Take every N-th frame.")] = 2
    dynamic_sample: Annotated[bool, flag(DATA, "Draw the frame interval of each clip from 1 to --sample-rate.")] = False
    random_crop: Annotated[bool, flag(DATA, "Crop at random positions, not at the centre.")] = False
    flip: Annotated[bool, flag(DATA, "Mirror each clip with a probability of one half.")] = False
    animate_images: Annotated[bool, flag(DATA, "Make clips from images by moving a camera over them.")] = False
    batch_size: Annotated[int, count(DATA, "Clips per batch, on each rank.")] = 1
    num_workers: Annotated[
        int,
        count(
            DATA, "Processes that read clips, on each rank; 0: read in the main process.", 0, ("dataset_num_worker",)
        ),
    ] = 4
    strict: Annotated[bool, flag(DATA, "Fail if a clip cannot be read, instead of skipping it.")] = False

    model: Annotated[
        Path | None,
        model_path(
            f"Start from the weights of this model: a directory, {ON_HUB}, or builtin.", "pretrained_model_name_or_path"
        ),
    ] = None
    weights: Weights = None
    model_config: Annotated[
        Path | None,
        Option(
            panel=MODEL,
            metavar="PATH",
            read=read_model,
            help="Or train a new model: its config.json, or a model directory or a name on Hugging Face that has one.",
        ),
    ] = None
    init: Annotated[
        Literal["random", "pca"],
        Option(
            panel=MODEL,
            metavar="METHOD",
            choices=("random", "pca"),
            help="Initial weights of a new model: random, or pca of clips from --video-path (WF-VAE 4x8x8, layernorm).",
        ),
    ] = "random"
    ignore_mismatched_sizes: Annotated[
        bool, flag(MODEL, "Initialize weights at random where their shape is not that in --model.")
    ] = False
    freeze_encoder: Annotated[bool, flag(MODEL, "Train only the decoder.")] = False
    model_name: ModelName = None
    device: Device = "auto"
    mix_precision: Annotated[DtypeName, dtype_option("Precision of the convolutions")] = "auto"
    gradient_checkpointing: Annotated[bool, flag(MODEL, "Recompute activations to save memory.")] = False
    compile: Compile = False
    deterministic: Annotated[
        bool,
        flag(
            MODEL, "Use deterministic algorithms, so that a resumed run has the same losses bit for bit on a GPU too."
        ),
    ] = False

    loss_type: Annotated[
        Literal["l1", "l2"],
        Option(panel=OBJECTIVE, metavar="TYPE", choices=("l1", "l2"), help="l1 or l2: absolute or squared error."),
    ] = "l1"
    perceptual_weight: Annotated[float, number(OBJECTIVE, "Weight of LPIPS; 0 switches it off.")] = 1.0
    lpips_net: Annotated[
        Literal["vgg", "alex"],
        Option(panel=OBJECTIVE, metavar="NET", choices=("vgg", "alex"), help="vgg as published; alex is faster."),
    ] = "vgg"
    lpips_weights: Annotated[Path | None, place(OBJECTIVE, "The weights of --lpips-net. (default: looked up)")] = None
    kl_weight: Annotated[float, number(OBJECTIVE, "Weight of the KL divergence to N(0, I).")] = 1e-6
    logvar_init: Annotated[float, number(OBJECTIVE, "Log-variance of the reconstruction error.", least=-30)] = 0.0
    wavelet_loss: Annotated[bool | Literal["auto"], flag(OBJECTIVE, "Add a loss on wavelet coefficients (WF-VAE).")] = (
        False
    )
    """auto, which recipes use: if the model has wavelets."""
    wavelet_weight: Annotated[float, number(OBJECTIVE, "Weight of the wavelet loss.")] = 0.1
    disc_weight: Annotated[float, number(OBJECTIVE, "Weight of the adversarial loss; 0 switches it off.")] = 0.5
    disc_start: Annotated[int, count(OBJECTIVE, "First step with the adversarial loss.", least=0)] = 5
    load_disc_from_checkpoint: Annotated[
        Path | None, place(OBJECTIVE, "Start from the discriminator in this training checkpoint.")
    ] = None
    disc_cls: Annotated[
        str | None,
        Option(panel=OBJECTIVE, metavar="NAME", hidden=True, help="Checked: the 3D PatchGAN of the published models."),
    ] = None

    lr: Annotated[float, number(OPTIMIZER, "Learning rate of AdamW.")] = 1e-5
    weight_decay: Annotated[float, number(OPTIMIZER, "Weight decay of AdamW.")] = 1e-4
    lr_schedule: Annotated[
        Literal["constant", "cosine"],
        Option(panel=OPTIMIZER, metavar="NAME", choices=("constant", "cosine"), help="constant, or cosine down to 0."),
    ] = "constant"
    warmup_steps: Annotated[int, count(OPTIMIZER, "Steps of linear warm-up of the learning rate.", least=0)] = 0
    clip_grad_norm: Annotated[float | None, number(OPTIMIZER, "Maximum norm of the gradient. (default: no limit)")] = (
        None
    )
    gradient_accumulation_steps: Annotated[int, count(OPTIMIZER, "Batches per step.")] = 1
    ema: Annotated[bool, flag(OPTIMIZER, "Keep a moving average of the weights.")] = False
    ema_decay: Annotated[
        float, number(OPTIMIZER, "Decay of the average per step; lower in the first steps of a new model.", most=1)
    ] = 0.999
    epochs: Annotated[int | None, count(OPTIMIZER, "Passes over the data. (default: 10, without --max-steps)")] = None
    max_steps: Annotated[int | None, count(OPTIMIZER, "Number of steps. (default: by --epochs)")] = None
    seed: Annotated[int, Option(panel=OPTIMIZER, metavar="N", least=0, most=2**63 - 1, help="Random seed.")] = 1234
    find_unused_parameters: Annotated[
        bool, Option(panel=OPTIMIZER, hidden=True, help="No effect: no parameter is unused.")
    ] = False

    eval_video_path: Annotated[Path | None, place(VALIDATION, "Videos for validation. (default: no validation)")] = None
    eval_steps: Annotated[int, count(VALIDATION, "Steps between validations.")] = 1000
    eval_num_frames: Annotated[int, count(VALIDATION, "Frames of a clip.")] = 17
    eval_resolution: Annotated[int, count(VALIDATION, "Shorter side and centre crop in pixels.", least=16)] = 256
    eval_sample_rate: Annotated[int, count(VALIDATION, "Take every N-th frame.")] = 1
    eval_batch_size: Annotated[int, count(VALIDATION, "Clips per batch.")] = 8
    eval_subset_size: Annotated[int, count(VALIDATION, "Use the first N clips; 0 uses all.", least=0)] = 100
    eval_num_video_log: Annotated[int, count(VALIDATION, "Clips shown in the pictures.", least=0)] = 2
    eval_lpips: Annotated[bool, flag(VALIDATION, "Measure LPIPS (alex) in addition to PSNR and SSIM.")] = True
    enable_tiling: Annotated[
        bool,
        Option(
            panel=VALIDATION,
            aliases=("enable_tilintg",),
            hidden=True,
            help="No effect: validation always runs window by window, with the same numbers.",
        ),
    ] = False

    ckpt_dir: Annotated[
        Path, Option(panel=CHECKPOINTS, metavar="PATH", read=read_output_path, help="Folder for all runs.")
    ] = Path("results")
    exp_name: Annotated[
        str, Option(panel=CHECKPOINTS, metavar="NAME", help="Name of this run and of its folder in --ckpt-dir.")
    ] = "vae"
    resume_from_checkpoint: Annotated[
        str | None,
        Option(
            panel=CHECKPOINTS,
            metavar="PATH",
            in_file=False,
            help="Resume from this checkpoint: a path, or latest: the last of this run (a new run if none).",
        ),
    ] = None
    accept_changes: Annotated[
        bool, momentary("Resume even if options differ from the checkpoint's; a warning lists them.")
    ] = False
    not_resume_optimizer: Annotated[bool, momentary("Resume without the state of the optimizers.")] = False
    not_resume_training_process: Annotated[
        bool, momentary("Start at step 0, with the checkpoint's weights and optimizers.")
    ] = False
    not_resume_discriminator: Annotated[bool, momentary("Resume with a new discriminator.")] = False
    save_ckpt_step: Annotated[int, count(CHECKPOINTS, "Steps between checkpoints.")] = 1000
    save_ckpt_minutes: Annotated[
        float | None,
        number(CHECKPOINTS, "Maximum minutes between checkpoints. (default: no limit)", least=0.01),
    ] = None
    keep: Annotated[int, count(CHECKPOINTS, "Keep the last N checkpoints and the best one.")] = 3
    log_steps: Annotated[int, count(CHECKPOINTS, "Steps between lines of losses.")] = 5

    json: Json = False

    recipe: Annotated[
        str | None,
        Option(
            panel=RUN,
            metavar="NAME",
            choices=RECIPES,
            help=f"A preset; --config and flags override it: {', '.join(RECIPES)}.",
        ),
    ] = None
    rendezvous_timeout: RendezvousTimeout = RENDEZVOUS_TIMEOUT
    config: Config = None
    print_config: PrintConfig = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.video_weight and len(self.video_weight) != len(self.video_path):
            raise ValueError(
                f"`video_weight` is given {len(self.video_weight)} times, `video_path` {len(self.video_path)} times;"
                " give one for each"
            )
        if any(weight <= 0 for weight in self.video_weight):
            raise ValueError("`video_weight` must be above 0; leave out a `video_path` that should not be used")
        if self.init == "pca" and self.model is not None:
            raise ValueError("`init=pca` is for a new model, and `model` gives the weights; leave out one of them")
        check_weights(self.weights, self.model is not None)
        check_crop(self.resolution, self.crop_size)
        if not self.exp_name or "/" in self.exp_name or "\0" in self.exp_name or self.exp_name in (".", ".."):
            raise ValueError(
                f"`exp_name` must be a name, not a path: {shown(repr(self.exp_name))}; `ckpt_dir` is the folder"
            )
