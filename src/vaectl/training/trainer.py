"""A training step: clips in, one optimizer update, losses out.

Knows tensors, losses and ranks. The job handles files, data and the console.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vaectl import distributed
from vaectl.errors import VaectlError
from vaectl.models.vae import AnyVAE
from vaectl.options.train import TrainOptions
from vaectl.rng import seed_of
from vaectl.training.adamw import AdamW
from vaectl.training.ema import EMA
from vaectl.training.losses import Objective
from vaectl.training.network import AutoEncoder, Output, latent_noise, trained_parameters
from vaectl.training.schedule import learning_rate
from vaectl.video.clip import batch_to_video

MAX_SKIPPED_STEPS = 10
"""Training fails after this many skipped steps in a row. A step is skipped if its loss or gradient is not finite."""


@dataclass(frozen=True)
class ClipBatch:
    """The input of one forward pass."""

    frames: Tensor
    """(B, T, 3, H, W) uint8."""
    numbers: Sequence[int]
    """The number of each clip, which determines its noise."""


class Trainer:
    """A model in training, with its losses, its optimizers and its position in the run."""

    def __init__(
        self, model: AnyVAE, objective: Objective, options: TrainOptions, precision: torch.dtype, steps: int
    ) -> None:
        """`precision`: of the convolutions (weights are float32). `steps`: of the whole run."""
        self.model, self.objective, self.options, self.steps = model, objective, options, steps
        self.device, self.precision = model.device, precision
        self.step = self.clips = self.skipped = self._skipped_in_a_row = 0
        parameters = trained_parameters(model, freeze_encoder=options.freeze_encoder)
        self.generator_optimizer = self._adamw(parameters)
        discriminator = objective.discriminator
        self.discriminator_optimizer = self._adamw(discriminator.parameters()) if discriminator is not None else None
        self.ema = EMA(model, options.ema_decay, warmup=options.model is None) if options.ema else None
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)
        network: nn.Module = AutoEncoder(
            model, freeze_encoder=options.freeze_encoder, recompute=options.gradient_checkpointing
        )
        if options.compile:
            network.compile()
        if distributed.world_size() > 1:
            places = [self.device] if self.device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=places)
        self._network = network

    def advance(self, batches: Sequence[ClipBatch]) -> dict[str, float | str | bool]:
        """Train one step on the batches of this rank: one, or several with gradient accumulation.

        Generator and discriminator take turns once the adversarial loss is on. Returns the loss and its parts, averaged
        over batches and ranks, and the norm of the gradient: `loss` and `grad_norm` of the generator, or `disc_loss`
        and `disc_grad_norm`. If the loss or the gradient is not finite on any rank, the step is skipped.
        """
        options, number = self.options, self.step
        torch.manual_seed(seed_of(options.seed, "step", number, distributed.rank()))
        adversarial = self.discriminator_optimizer is not None and number >= options.disc_start
        trains_discriminator = adversarial and number % 2 == 1
        optimizer: Optimizer = self.generator_optimizer
        if self.discriminator_optimizer is not None and trains_discriminator:
            optimizer = self.discriminator_optimizer
        rate = learning_rate(number + 1, options.lr, options.lr_schedule, options.warmup_steps, self.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        buffers_before = [buffer.clone() for buffer in self.objective.buffers()]

        losses = []
        for i, batch in enumerate(batches):
            with self._gradient_sync(last=i == len(batches) - 1):
                if trains_discriminator:
                    total, parts = self._discriminator_pass(batch)
                else:
                    total, parts = self._generator_pass(batch, adversarial)
                self._scaler.scale(total / len(batches)).backward()  # type: ignore[no-untyped-call]  # untyped in PyTorch
            losses.append(torch.stack([total.detach(), *parts.values()]).double())
        averaged = distributed.mean(torch.stack(losses).mean(dim=0))
        prefix = "disc_" if trains_discriminator else ""
        loss, *means = averaged.tolist()

        learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if trains_discriminator:
            average_gradients(learning)
        self._scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(learning, options.clip_grad_norm or math.inf).item()
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self._scaler.step(optimizer)
            if self.ema and not trains_discriminator:
                self.ema.update(self.model, number + 1)
        else:
            restore(self.objective.buffers(), buffers_before)
        if adversarial:
            distributed.broadcast(self.objective.buffers())
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.clips += distributed.world_size() * sum(len(batch.numbers) for batch in batches)
        self._count_skipped(finite, loss)
        return {
            "kind": "discriminator" if trains_discriminator else "generator",
            f"{prefix}loss": loss,
            **dict(zip(parts, means, strict=True)),
            f"{prefix}grad_norm": norm,
            "lr": rate,
            "skipped": not finite,
        }

    def _adamw(self, parameters: Iterable[nn.Parameter]) -> AdamW:
        # On the CPU, one pass over the weights takes a fifth of the time of one pass for each operation.
        fused = True if self.device.type == "cpu" and self.precision != torch.float16 else None
        return AdamW(parameters, lr=self.options.lr, weight_decay=self.options.weight_decay, fused=fused)

    def _generator_pass(self, batch: ClipBatch, adversarial: bool) -> tuple[Tensor, dict[str, Tensor]]:
        x, (y, posterior, coefficients) = self._through_network(batch)
        with self._autocast():
            return self.objective.generator_loss(
                x, y, posterior, coefficients, self.model.last_layer, adversarial=adversarial
            )

    def _discriminator_pass(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            x, (y, _, _) = self._through_network(batch)
        with self._autocast():
            return self.objective.discriminator_loss(x, y)

    def _through_network(self, batch: ClipBatch) -> tuple[Tensor, Output]:
        x = self.model.prepare(batch_to_video(batch.frames.to(self.device, non_blocking=True)))
        noise = latent_noise(self.model.config, batch.numbers, x.shape[2], x.shape[4], self.options.seed)
        with self._autocast():
            output: Output = self._network(x, noise.to(self.device, non_blocking=True))
        return x, output

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _gradient_sync(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which DDP averages gradients only if this is the last batch of the step."""
        network = self._network
        return nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()

    def _count_skipped(self, finite: bool, loss: float) -> None:
        if finite:
            self._skipped_in_a_row = 0
            return
        self.skipped += 1
        # With float16 an overflow is normal: the scaler lowers the scale of the loss.
        self._skipped_in_a_row += not (self._scaler.is_enabled() and math.isfinite(loss))

    def check(self) -> None:
        """Raise VaectlError if the last `MAX_SKIPPED_STEPS` steps were skipped."""
        if self._skipped_in_a_row >= MAX_SKIPPED_STEPS:
            raise VaectlError(
                f"step {self.step}: the loss or its gradient was not finite {MAX_SKIPPED_STEPS} times in a row",
                "resume from the last checkpoint with a lower `lr`, `clip_grad_norm=1` or `mix_precision=float32`",
            )

    def state(self) -> dict[str, Any]:
        """Return the state as tensors and plain values, without the weights that are in the model directory."""
        discriminator, optimizer = self.objective.discriminator, self.discriminator_optimizer
        return {
            "step": self.step,
            "clips": self.clips,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "model": self.model.state_dict() if self.ema else None,
            "discriminator": discriminator.state_dict() if discriminator else None,
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": optimizer.state_dict() if optimizer else None,
            "scaler": self._scaler.state_dict(),
            "ema_warmup": self.ema.warmup if self.ema else None,
        }

    def load(self, state: dict[str, Any], *, optimizer: bool, discriminator: bool, process: bool) -> None:
        """Resume from a `state`. The flags say which parts of it to load.

        The model must have the weights of the model directory: the EMA weights if there are any. These stay the EMA.
        """
        if process:
            self.step, self.clips, self.skipped = state["step"], state["clips"], state["skipped"]
            self._skipped_in_a_row = state["skipped_in_a_row"]
        if self.ema:  # a new run starts with good weights; a resumed one continues as it began
            recorded = state.get("ema_warmup")  # None: from an earlier version, or the run had no average
            self.ema.warmup = process and (self.ema.warmup if recorded is None else recorded)
        if state["model"]:
            self.model.load_state_dict(state["model"])
        network = self.objective.discriminator if discriminator and state["discriminator"] else None
        if network:
            network.load_state_dict(state["discriminator"])
        if optimizer:
            self._load_optimizer(self.generator_optimizer, state["generator_optimizer"])
            if state["scaler"]:  # empty if the checkpoint is not of float16
                self._scaler.load_state_dict(state["scaler"])
            if network and self.discriminator_optimizer:
                self._load_optimizer(self.discriminator_optimizer, state["discriminator_optimizer"])

    def _load_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        fused = optimizer.defaults["fused"]
        optimizer.load_state_dict(state)
        for group in optimizer.param_groups:  # the state brings those of the checkpoint
            group.update(weight_decay=self.options.weight_decay, fused=fused)


def restore(buffers: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copy the values into the buffers."""
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over the ranks, as DDP does for the network."""
    if distributed.world_size() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = distributed.mean(parameter.grad)
