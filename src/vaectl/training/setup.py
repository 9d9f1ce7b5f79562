"""Builds the model and the trainer of a run from its options, and resumes them from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vaectl import distributed
from vaectl.errors import OutOfMemoryError, UsageError, first_few
from vaectl.io.parsing import parsing
from vaectl.memory import format_size, obtainable
from vaectl.metrics.lpips import SMALLEST
from vaectl.models.build import build_model
from vaectl.models.checkpoint import (
    build_on_meta,
    channels_last,
    check_finite,
    check_fit,
    config_at,
    config_of,
    downloaded,
    load_model,
    locate,
    locate_config,
    read_fitting_outline,
)
from vaectl.models.config import FamilyConfig
from vaectl.models.containers import Stored, read_values
from vaectl.models.device import choose_device, choose_dtype
from vaectl.models.names import select
from vaectl.models.vae import AnyVAE
from vaectl.models.weights import STATE, Weights, file_with
from vaectl.options.train import TrainOptions
from vaectl.progress import Progress
from vaectl.rng import seed_of
from vaectl.training import run_dir
from vaectl.training.checkpoint import read_discriminator, read_state
from vaectl.training.losses import Objective, ObjectiveConfig
from vaectl.training.pca_init import check_pca_init
from vaectl.training.resume import contradictions
from vaectl.training.trainer import Trainer
from vaectl.training.whole import FACTS, Facts, read_facts

DISCRIMINATOR = "LPIPSWithDiscriminator3D"
"""The name of the loss with the 3D PatchGAN in the published scripts."""


def check_run_dir(run: Path, checkpoint: Path | None) -> None:
    """Raise UsageError if the directory contains a run, unless `checkpoint` is its last one or of another run."""
    there = run_dir.checkpoints(run)
    if checkpoint is None and there:
        raise UsageError(
            f"{run}: already contains a run",
            "continue it with `resume_from_checkpoint=latest`, or give another `exp_name`",
        )
    if checkpoint is not None and checkpoint in there.values() and checkpoint != (last := there[max(there)]):
        raise UsageError(
            f"{checkpoint}: is not the last checkpoint of its run, {last.name} is",
            "to continue from it, give another `exp_name` or remove the later checkpoints",
        )


def model_of(options: TrainOptions, checkpoint: Path | None, progress: Progress) -> AnyVAE:
    """Return the model to train, float32 on its device: from the checkpoint, else pretrained, else new.

    Raises UsageError if none is given, if the config differs from the pretrained one, if the model cannot take the
    clips, or if an encoder that is to be frozen is not trained; also raises as `load_model` does.
    """
    device = choose_device(distributed.device_of_rank(options.device))
    torch.manual_seed(seed_of(options.seed, "weights"))
    pretrained = downloaded(checkpoint or options.model, progress=progress)
    weights = None if checkpoint else options.weights
    config_file, resumes = None, checkpoint is not None and (checkpoint / FACTS).is_file()
    takes_part = options.ignore_mismatched_sizes and not resumes
    if options.model_config is not None and (checkpoint is None or takes_part):
        config_file = locate_config(options.model_config, progress)
    if options.freeze_encoder and pretrained is None and options.init == "random":
        raise UsageError(
            "a frozen encoder (`freeze_encoder`, `recipe=finetune-decoder`) must be trained already", "give `model`"
        )
    if pretrained is not None and not takes_part:
        model: AnyVAE = load_model(pretrained, device=device, dtype="float32", weights=weights, note=progress.note)
        if checkpoint is None and config_file is not None:
            check_config(config_file, model.config, pretrained)
    elif pretrained is not None:
        fitted, new = fitting(pretrained, weights, config_file, progress)
        if options.freeze_encoder and (untrained := new & encoder_names(fitted)):
            raise UsageError(
                f"`freeze_encoder`: {len(untrained)} tensors of the encoder do not fit: {first_few(sorted(untrained))}",
                "give a `model` whose encoder fits",
            )
        model = placed(fitted, device)
    elif config_file is not None:
        config = config_at(config_file, progress.warn)
        outline = build_on_meta(config)
        if options.init == "pca":
            check_pca_init(outline)
        check_room(outline, config_file)
        model = placed(build_model(config), device)
    else:
        raise UsageError("what to train is missing", "give `model`, `model_config` or `recipe`")
    check_names(options, model.config)
    check_length(options.num_frames, model.config)
    check_sizes(options, model.config)
    return model


def with_wavelet_loss(options: TrainOptions, model: AnyVAE) -> TrainOptions:
    """Return the options with the wavelet loss on or off: `auto` is on for a model with wavelets.

    Raises UsageError if it is wanted for another model.
    """
    if options.wavelet_loss is True and not model.features:
        raise UsageError(f"`wavelet_loss`: {model.config.a_model} has no wavelets", "leave it out")
    return replace(options, wavelet_loss=bool(options.wavelet_loss and model.features))


def check_room(model: AnyVAE, file: Path) -> None:
    """Raise OutOfMemoryError if the weights alone of a new model do not fit into memory."""
    numbers = sum(parameter.numel() for parameter in model.parameters())
    if (needed := 4 * numbers) > (there := obtainable(torch.device("cpu"))):
        raise OutOfMemoryError(
            f"{file}: out of memory: the weights of this model take {format_size(needed)}, and {format_size(there)} are"
            " free",
            "make the model narrower",
        )


def placed(model: AnyVAE, device: torch.device) -> AnyVAE:
    """Move a new model to its device, in the memory layout of a loaded model."""
    weights = {name: channels_last(tensor.to(device)) for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    return model


def check_config(file: Path, config: FamilyConfig, pretrained: Path) -> None:
    """Raise UsageError if the config in `file` is not of the network of the pretrained model."""
    given, own = config_at(file).network, config.network
    if different := [name for name in own if given.get(name) != own[name]]:
        raise UsageError(
            f"{file}: is not the config of {pretrained}: {first_few(different)} differ",
            "leave out `model_config`, or pass `ignore_mismatched_sizes` to load only the weights that fit it",
        )


def encoder_names(model: AnyVAE) -> set[str]:
    """Return the names of the tensors of the encoder."""
    encoder = {parameter for module in model.encoder_modules() for parameter in module.parameters()}
    return {name for name, parameter in model.named_parameters() if parameter in encoder}


def fitting(path: Path, weights: Weights | None, config: Path | None, progress: Progress) -> tuple[AnyVAE, set[str]]:
    """Return a new model with those pretrained weights that fit, and the names of its other tensors.

    `config` None: the config of the pretrained model.
    """
    directory, file = locate(path)
    file = file_with(weights, directory, file)
    model: AnyVAE = build_model(
        config_at(config, progress.warn) if config else config_of(directory, file, progress.note)
    )
    own = model.state_dict()
    outline = read_fitting_outline(file, own, weights, progress.note)
    fit = {name for name, tensor in own.items() if name in outline and outline[name].shape == tensor.shape}

    def choose(stored: Stored) -> dict[str, Any]:
        return {name: value for name, value in select(stored, own, file, weights).items() if name in fit}

    values = {name: tensor.clone() for name, tensor in read_values(file, choose)}
    check_finite(values, file)
    model.load_state_dict(values, strict=False)
    if new := [name for name in own if name not in fit]:
        progress.warn(
            f"{file}: {len(new)} of {len(own)} tensors do not fit and are initialized at random: {first_few(new)}"
        )
    return model, set(new)


def check_names(options: TrainOptions, config: FamilyConfig) -> None:
    """Raise UsageError if a published option names another class than the one that is used."""
    if options.model_name is not None and not config.is_called(options.model_name):
        raise UsageError(
            f"`model_name={options.model_name}`: the config is of {config.a_model}", "leave out `model_name`"
        )
    if options.disc_cls and not options.disc_cls.endswith(DISCRIMINATOR):
        raise UsageError(f"`disc_cls={options.disc_cls}`: vaectl trains with {DISCRIMINATOR}", "leave out `disc_cls`")


def check_length(num_frames: int, config: FamilyConfig) -> None:
    """Raise UsageError if the model cannot take clips of `num_frames` frames."""
    factor = config.time_compression
    if (num_frames - 1) % factor:
        near = 1 + factor * round((num_frames - 1) / factor)
        raise UsageError(f"`num_frames` must be 1 + {factor}n for this model, not {num_frames}", f"use {near}")


def check_sizes(options: TrainOptions, config: FamilyConfig) -> None:
    """Raise UsageError if the model cannot take frames of the sizes that the options give."""
    factor = config.space_compression
    crop = ("crop_size", options.crop_size) if options.crop_size is not None else ("resolution", options.resolution)
    alex, smallest = SMALLEST["alex"], SMALLEST[options.lpips_net]
    if options.perceptual_weight and crop[1] < smallest:
        raise UsageError(
            f"`{crop[0]}={crop[1]}`: LPIPS with `lpips_net={options.lpips_net}` needs at least {smallest} pixels",
            "use 32 or more, or `lpips_net=vgg`",
        )
    if options.eval_video_path is not None and options.eval_lpips and options.eval_resolution < alex:
        raise UsageError(
            f"`eval_resolution={options.eval_resolution}`: LPIPS needs at least {alex} pixels",
            "use 32 or more, or switch `eval_lpips` off",
        )
    for parameter, pixels in (crop, ("eval_resolution", options.eval_resolution)):
        if pixels % factor:
            near = factor * max(1, round(pixels / factor))
            raise UsageError(
                f"`{parameter}` must be a multiple of {factor} for this model, not {pixels}", f"use {near}"
            )


def objective_of(options: TrainOptions, device: torch.device, progress: Progress | None = None) -> Objective:
    """Return the losses with their networks, on `device`. Raises VaectlError for weights that are not available."""
    torch.manual_seed(seed_of(options.seed, "discriminator"))
    objective = Objective(
        ObjectiveConfig(
            loss_type=options.loss_type,
            logvar_init=options.logvar_init,
            perceptual_weight=options.perceptual_weight,
            lpips_net=options.lpips_net,
            lpips_weights=options.lpips_weights,
            kl_weight=options.kl_weight,
            wavelet_loss=bool(options.wavelet_loss),
            wavelet_weight=options.wavelet_weight,
            disc_weight=options.disc_weight,
        ),
        progress,
    ).to(device)
    if (file := options.load_disc_from_checkpoint) and objective.discriminator:
        weights = read_discriminator(file)
        check_fit(objective.discriminator.state_dict(), weights, file)
        with parsing(file, "its discriminator cannot be loaded", "leave out `load_disc_from_checkpoint`"):
            objective.discriminator.load_state_dict(weights)
    return objective


def trainer_of(model: AnyVAE, objective: Objective, options: TrainOptions, steps: int) -> Trainer:
    """Return the trainer before the first step."""
    return Trainer(model, objective, options, choose_dtype(options.mix_precision, model.device), steps)


def resume(
    trainer: Trainer, checkpoint: Path, options: TrainOptions, fingerprint: str, progress: Progress
) -> Facts | None:
    """Load a checkpoint into the trainer. Return its facts, None if the run starts at step 0.

    Raises UsageError if options contradict the checkpoint, unless `accept_changes`.
    """
    if not (checkpoint / FACTS).is_file():
        progress.warn(f"{checkpoint}: is no training checkpoint of vaectl: the run starts with its weights at step 0")
        if trainer.ema:
            trainer.ema.warmup = False
        return None
    facts, resumes_process = read_facts(checkpoint), not options.not_resume_training_process
    if resumes_process:
        check_same(checkpoint, facts, trainer, options, fingerprint, progress)
    state = read_state(checkpoint, trainer.device)
    with parsing(checkpoint / STATE, "does not fit the model, or is damaged", "take another checkpoint"):
        trainer.load(
            state,
            optimizer=not options.not_resume_optimizer,
            discriminator=not options.not_resume_discriminator,
            process=resumes_process,
        )
    progress.note(f"resumed from {checkpoint} at step {trainer.step}")
    return facts if resumes_process else None


def check_same(
    checkpoint: Path,
    facts: Facts,
    trainer: Trainer,
    options: TrainOptions,
    fingerprint: str,
    progress: Progress,
) -> None:
    """Warn of changes that affect the losses. Raises UsageError for other options, unless `accept_changes`."""
    if different := contradictions(options, facts.options):
        listed = "; ".join(different.values())
        if not options.accept_changes:
            raise UsageError(
                f"{checkpoint}: was trained with other options: {listed}", "pass `accept_changes` to continue"
            )
        progress.warn(f"resumed with other options than {checkpoint}: {listed}")
    if facts.data != fingerprint:
        progress.warn("the videos are not those of the checkpoint; the clips from here on will differ")
    if facts.ranks != distributed.world_size():
        progress.warn(
            f"resumed on {distributed.world_size()} ranks, not {facts.ranks}; the losses will differ a little"
        )
    elif trainer.device.type == "cpu" and facts.threads != torch.get_num_threads():
        progress.warn(f"resumed with {torch.get_num_threads()} threads, not {facts.threads}; rounding will differ")
