"""Train without video files, as a program: `training` kills and resumes it, `ranks` runs it on two GPUs.

    python -m gpu_steps.train_clips RUN --steps 20 --batch 1 --device cuda

Trains a narrow WF-VAE in float32 on clips of noise, which depend only on their index. Resumes from the last checkpoint
in the folder RUN, and adds the loss of each step to RUN/losses.jsonl. Under torchrun ranks share the clips. Algorithms
are deterministic, because Adam would amplify rounding to a difference of 10 % within 20 steps.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch

from vaectl import distributed
from vaectl.models import build_model, save_model
from vaectl.models.checkpoint import load_model
from vaectl.models.config import WFVAEConfig
from vaectl.models.device import choose_device
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.training import run_dir
from vaectl.training.checkpoint import read_state, write_checkpoint
from vaectl.training.losses import Objective, ObjectiveConfig
from vaectl.training.trainer import ClipBatch, Trainer

NARROW = WFVAEConfig(
    latent_dim=4,
    base_channels=4,
    encoder_num_resblocks=1,
    decoder_num_resblocks=1,
    encoder_energy_flow_hidden_size=4,
    decoder_energy_flow_hidden_size=4,
    norm_type="layernorm",
    t_interpolation="trilinear",
)
FRAMES, SIDE = 5, 32
SAVE_EVERY = 4
LOSSES = "losses.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--no-discriminator", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    arguments.run.mkdir(parents=True, exist_ok=True)
    with distributed.process_group(Silent()):
        device = choose_device(distributed.device_of_rank(arguments.device))
        weight = 0.0 if arguments.no_discriminator else 0.5
        train(trainer_on(device, arguments.batch, arguments.steps, weight), arguments.run)


def train(trainer: Trainer, run: Path) -> None:
    steps, batch, device = trainer.steps, trainer.options.batch_size, trainer.device
    if saved := run_dir.checkpoints(run):
        last = saved[max(saved)]
        trainer.model.load_state_dict(load_model(last, device=device, dtype="float32").state_dict())
        trainer.load(read_state(last, device), optimizer=True, discriminator=True, process=True)
    while trainer.step < steps:
        first = (trainer.step * distributed.world_size() + distributed.rank()) * batch
        numbers = range(first, first + batch)
        values = trainer.advance([ClipBatch(torch.stack([clip(number) for number in numbers]), numbers)])
        if not distributed.is_main():
            continue
        with (run / LOSSES).open("a") as file:
            file.write(json.dumps([trainer.step, values.get("loss", values.get("disc_loss"))]) + "\n")
        if trainer.step % SAVE_EVERY == 0:
            write_checkpoint(run, trainer.step, partial(save_model, trainer.model), trainer.state(), {})


def trainer_on(device: torch.device, batch: int, steps: int, disc_weight: float) -> Trainer:
    torch.manual_seed(0)
    model = build_model(NARROW).to(device).train()
    options = TrainOptions(
        video_path=(Path(),), num_frames=FRAMES, resolution=SIDE, batch_size=batch, lr=1e-4, disc_start=16
    )
    objective = Objective(ObjectiveConfig(perceptual_weight=0.0, disc_weight=disc_weight)).to(device)
    return Trainer(model, objective, options, torch.float32, steps)


def losses(run: Path) -> list[tuple[int, float]]:
    """Return the steps of a run so far and their losses, including repeated steps."""
    file = run / LOSSES
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.is_file() else []


def clip(number: int) -> torch.Tensor:
    """Return the 8-bit frames (T, 3, H, W) of a clip by its index."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (FRAMES, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


if __name__ == "__main__":
    main()
