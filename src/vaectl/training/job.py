"""The job of `vaectl train`: connects data, trainer, validation and checkpoints, from the options to a finished run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import vaectl
from vaectl import distributed, memory
from vaectl.data import ClipDataset, ClipLoader
from vaectl.errors import VaectlError
from vaectl.models.checkpoint import save_model
from vaectl.options.train import TrainOptions
from vaectl.progress import Progress, Silent
from vaectl.shortage import cannot_write
from vaectl.training import run_dir
from vaectl.training.checkpoint import write_checkpoint, write_options
from vaectl.training.determinism import deterministic_algorithms
from vaectl.training.ema import scores
from vaectl.training.interrupt import Interruption, finishing_the_step
from vaectl.training.pca_init import init_from_clips
from vaectl.training.resume import checkpoint_to_resume, recordable
from vaectl.training.run_log import RunLog
from vaectl.training.setup import check_run_dir, data_of, model_of, resume, sources_of, steps_of, trainer_of
from vaectl.training.trainer import ClipBatch, Trainer
from vaectl.training.validation import Validation, improves
from vaectl.training.whole import damaged_after


@dataclass(frozen=True)
class TrainResult:
    """The result of a run."""

    run: Path
    checkpoint: Path
    """The last checkpoint, a model directory."""
    step: int
    loss: float
    best: dict[str, float] | None
    """The best validation, with its `step`; None without validation."""
    skipped: int
    """Steps without an update, because the loss or the gradient was not finite."""
    seconds: float
    clips_per_second: float
    waiting: float
    """The fraction of the time that the network waited for clips."""
    decoding: float
    """Frames per second that one data worker reads and resizes."""
    peak_memory: int
    """Bytes: of this process on the CPU; reserved by PyTorch on a GPU."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; a loss that is not finite is null."""
        values = {**asdict(self), "run": str(self.run), "checkpoint": str(self.checkpoint)}
        return values | {"loss": self.loss if math.isfinite(self.loss) else None}


def train(options: TrainOptions, progress: Progress) -> TrainResult:
    """Train with `options`. On Ctrl-C or SIGTERM, write a checkpoint before stopping.

    Under torchrun, every process calls this. Raises UsageError for options that cannot work, VaectlError for a run that
    cannot continue.
    """
    all_ranks, progress = progress, progress if distributed.is_main() else Silent()
    run = options.ckpt_dir / options.exp_name
    with (
        deterministic_algorithms(options.deterministic),
        distributed.process_group(all_ranks, options.rendezvous_timeout, options.device),
        run_dir.claimed(run) if distributed.is_main() else nullcontext(),
    ):
        checkpoint = checkpoint_to_resume(
            options.resume_from_checkpoint, options.ckpt_dir, options.exp_name, progress.warn
        )
        if checkpoint is not None and distributed.is_main():
            run_dir.set_aside(run, damaged_after(run, checkpoint), checkpoint)
        distributed.wait_for_others()
        check_run_dir(run, None if options.not_resume_training_process else checkpoint)
        distributed.wait_for_others()
        model = model_of(options, checkpoint, progress)
        data = data_of(options, progress)
        if checkpoint is None and options.init == "pca":
            init_from_clips(model, sources_of(options), options, progress)
        trainer = trainer_of(model, options, steps_of(options, len(data)), progress)
        validation = Validation(options, model.device) if options.eval_video_path else None
        best = resume(trainer, checkpoint, options, data.fingerprint, progress) if checkpoint else None
        return Run(run, options, data, trainer, validation, best, progress, all_ranks).go()


class Run:
    """The training loop: steps, and the work between steps."""

    def __init__(
        self,
        run: Path,
        options: TrainOptions,
        data: ClipDataset,
        trainer: Trainer,
        validation: Validation | None,
        best: dict[str, float] | None,
        progress: Progress,
        all_ranks: Progress,
    ) -> None:
        """`progress` shows the messages of the main rank, `all_ranks` those of all ranks."""
        self.run, self.options, self.data, self.trainer = run, options, data, trainer
        self.validation, self.best = validation, best
        self.progress, self.all_ranks = progress, all_ranks
        self.begun = self.last_save = time.monotonic()
        self.first_step, self.first_clip = trainer.step, trainer.clips
        self.loss = float("nan")
        self.log = RunLog(run, trainer.step, progress) if distributed.is_main() else None

    def go(self) -> TrainResult:
        """Train up to the last step. After a stop signal, write a checkpoint and raise KeyboardInterrupt."""
        options, trainer = self.options, self.trainer
        if distributed.is_main():
            write_options(self.run, recordable(options))
        self.progress.start(options.exp_name, trainer.steps, "steps", done=trainer.step)
        try:
            with (
                ClipLoader(self.data, self.clips_of_batch, first=0, workers=options.num_workers) as loader,
                finishing_the_step() as interruption,
            ):
                batches = self.batches(loader)
                while trainer.step < trainer.steps:
                    values = trainer.advance([next(batches) for _ in range(options.gradient_accumulation_steps)])
                    self.record(values, loader)
                    trainer.check()
                    if not self.between_steps(interruption):
                        break
                return self.result(loader)
        finally:
            self.progress.finish()
            if self.log:
                self.log.close()

    def clips_of_batch(self, number: int) -> range:
        """Return the numbers of the clips in batch `number` of this rank, counted from the start of this process."""
        size = self.options.batch_size
        first = self.first_clip + (number * distributed.world_size() + distributed.rank()) * size
        return range(first, first + size)

    def batches(self, loader: ClipLoader) -> Iterator[ClipBatch]:
        """Yield the batches of the loader, and show its notes as warnings."""
        for batch in loader:
            for note in batch.notes:
                self.all_ranks.warn(note if distributed.world_size() == 1 else f"rank {distributed.rank()}: {note}")
            yield ClipBatch(batch.frames, batch.numbers)

    def record(self, values: dict[str, Any], loader: ClipLoader) -> None:
        """Write the values of a step to the journals, and show them every `log_steps` steps."""
        trainer, self.loss = self.trainer, values["loss"]
        speed = {
            "clips_per_second": self.clips_per_second(),
            "waiting": self.waiting(loader),
            "decoding": decoding(loader),
        }
        if self.log:
            self.log.step(trainer.step, values, speed)
        if values["skipped"]:
            self.progress.warn(f"step {trainer.step}: the loss or its gradient was not finite; the step is skipped")
        if trainer.step % self.options.log_steps == 0:
            shown = ("rec", "perceptual", "kl", "wavelet", "generator", "discriminator")
            parts = " ".join(f"{name} {values[name]:.4g}" for name in ("loss", *shown) if name in values)
            self.progress.status(
                f"{parts} | {speed['clips_per_second']:.2f} clips/s, {speed['waiting']:.0%} waiting for data"
            )
        self.progress.advance(1)

    def between_steps(self, interruption: Interruption) -> bool:
        """Validate and save if it is time to. Return False if the run has to stop."""
        step, options = self.trainer.step, self.options
        minutes = (time.monotonic() - self.last_save) / 60
        late = options.save_ckpt_minutes is not None and minutes > options.save_ckpt_minutes
        stop, late = distributed.any_rank([interruption.signal is not None, late])
        last = step == self.trainer.steps
        better = False
        if self.validation and not stop and (step % options.eval_steps == 0 or last):
            better = self.validate(self.validation)
        if better or stop or late or last or step % options.save_ckpt_step == 0:
            self.save(final=stop or last)
        if stop:
            self.progress.note(f"stopped at step {step}; to continue: `resume_from_checkpoint={self.run / 'latest'}`")
        return not stop

    def validate(self, validation: Validation) -> bool:
        """Measure the weights, and their EMA if there is one. Return whether the result is the best so far."""
        model, average = self.trainer.model, self.trainer.ema
        values, picture = validation.measure(model, self.progress)
        if average:
            with average.in_place_of(model):
                averaged, picture = validation.measure(model, self.progress)
            values |= {f"ema_{name}": value for name, value in averaged.items()}
        step = self.trainer.step
        if self.log:
            self.log.validation(step, values, picture)
        self.progress.note(f"step {step}: {'; '.join(scores(values))}")
        better = improves(values, self.best)
        if better:
            self.best = {"step": step, **values}
        return better

    def save(self, *, final: bool) -> None:
        """Write a checkpoint. If that fails, warn and continue, unless it is `final`: then raise VaectlError."""
        if self.log:
            try:
                self.log.flush()
                self.write()
            except VaectlError as error:
                if final:
                    raise
                self.progress.warn(f"{error}; earlier checkpoints are kept")
        self.last_save = time.monotonic()
        distributed.wait_for_others()

    def write(self) -> None:
        """Write the checkpoint of this step, update the links, and remove old checkpoints."""
        trainer, options = self.trainer, self.options
        average = trainer.ema.weights if trainer.ema else None
        metadata = {"weights": "ema" if average else "raw", "step": trainer.step}
        facts = {
            "step": trainer.step,
            "weights": metadata["weights"],
            "best": self.best,
            "data": self.data.fingerprint,
            "ranks": distributed.world_size(),
            "threads": torch.get_num_threads(),
            "vaectl": vaectl.__version__,
            "torch": torch.__version__,
            "options": recordable(options),
        }
        target = write_checkpoint(
            self.run,
            trainer.step,
            lambda place: save_model(trainer.model, place, weights=average, metadata=metadata),
            trainer.state(),
            facts,
        )
        best_step = int(self.best["step"]) if self.best else None
        try:
            run_dir.point(self.run / run_dir.LATEST, target)
            if best_step == trainer.step:
                run_dir.point(self.run / run_dir.BEST, target)
            run_dir.prune(self.run, options.keep, best_step)
        except OSError as error:
            raise VaectlError(*cannot_write(error.filename or self.run, error)) from None

    def clips_per_second(self) -> float:
        """Return the mean rate of this process so far, over all ranks."""
        return (self.trainer.clips - self.first_clip) / (time.monotonic() - self.begun)

    def waiting(self, loader: ClipLoader) -> float:
        """Return the fraction of the time that this rank waited for clips."""
        return loader.waited / (time.monotonic() - self.begun)

    def result(self, loader: ClipLoader) -> TrainResult:
        return TrainResult(
            run=self.run,
            checkpoint=self.run / run_dir.checkpoint_name(self.trainer.step),
            step=self.trainer.step,
            loss=self.loss,
            best=self.best,
            skipped=self.trainer.skipped,
            seconds=time.monotonic() - self.begun,
            clips_per_second=self.clips_per_second(),
            waiting=self.waiting(loader),
            decoding=decoding(loader),
            peak_memory=memory.peak(self.trainer.device),
        )


def decoding(loader: ClipLoader) -> float:
    """Return the frames per second of one data worker; 0 before the first."""
    return loader.decoded_frames / loader.decode_seconds if loader.decode_seconds else 0.0
