"""The job of `vaectl train`: connects data, trainer, validation and checkpoints, from the options to a finished run."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vaectl
from vaectl import distributed, memory
from vaectl.data import ClipDataset, ClipLoader
from vaectl.errors import VaectlError
from vaectl.io.hub import commit_of
from vaectl.models.save import write_model
from vaectl.options.train import TrainOptions
from vaectl.progress import Progress, Silent
from vaectl.shortage import cannot_write
from vaectl.training import run_dir
from vaectl.training.checkpoint import amend_facts, write_checkpoint, write_options
from vaectl.training.clips import data_of, sources_of, steps_of, validation_clips
from vaectl.training.determinism import deterministic_algorithms
from vaectl.training.ema import scores
from vaectl.training.interrupt import Interruption, finishing_the_step
from vaectl.training.outline import changing_statistics, outline
from vaectl.training.pca_init import init_from_clips
from vaectl.training.result import TrainResult
from vaectl.training.resume import check_start, checkpoint_to_resume, recordable
from vaectl.training.run_log import RunLog
from vaectl.training.setup import check_run_dir, model_of, objective_of, resume, trainer_of, with_wavelet_loss
from vaectl.training.trainer import ClipBatch, Trainer
from vaectl.training.validation import Validation, ValidationError, best_so_far, improves, reason_of
from vaectl.training.whole import FACTS, damaged_after

SHOWN = ("loss", "disc_loss", "rec", "perceptual", "kl", "wavelet", "generator")
"""The losses in the line of the current state; a narrow terminal shows the first ones."""
PACE_STEPS = 5
"""Steps after which the time of a step is shown."""


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
        if checkpoint is not None and (checkpoint / FACTS).is_file():
            check_start(options, checkpoint)
        elif checkpoint is not None:
            options = replace(options, model=None, weights=None, init="random")  # the checkpoint gives the weights
        model = model_of(options, checkpoint, progress)
        options = with_wavelet_loss(options, model)
        clips = validation_clips(options, progress)
        data = data_of(options, clips.paths if clips else (), progress)
        validation = Validation(options, clips, model.device) if clips else None
        steps = steps_of(options, len(data))
        facts_of_run = partial(outline, run, options, data, model, steps, clips.paths if clips else (), checkpoint)
        objective = objective_of(options, model.device, progress)
        if checkpoint is None:
            progress.facts(facts_of_run())
            if options.init == "pca":
                init_from_clips(model, sources_of(options), options, progress)
        trainer = trainer_of(model, objective, options, steps)
        facts = resume(trainer, checkpoint, options, data.fingerprint, progress) if checkpoint else None
        best = None
        if checkpoint is not None and facts is not None:
            best = best_so_far(facts, checkpoint, run, clips.fingerprint if clips else None, progress.note)
        commit = facts.commit if facts else commit_of(options.model)
        job = Run(run, options, data, trainer, validation, best, commit, progress, all_ranks)
        resumes_here = checkpoint is not None and checkpoint.resolve().parent == run.resolve()
        validation_due = facts is not None and facts.validation_due and resumes_here and job.validates(trainer.step)
        if trainer.step >= trainer.steps and not validation_due:
            assert checkpoint is not None
            if distributed.is_main():
                job.tidy()
            job.note_done()
            return job.result(checkpoint)
        if checkpoint is not None:
            progress.facts(facts_of_run(trainer.step))
        if trainer.step == 0 and not options.freeze_encoder and (names := changing_statistics(model.config)):
            progress.note(
                f"{names} stay those of the config, but training changes the latents: measure them again at the end"
            )
        return job.go(validation_due=validation_due)


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
        commit: str | None,
        progress: Progress,
        all_ranks: Progress,
    ) -> None:
        """`commit`: of the model of the hub that the run started from. `progress` shows the messages of the main rank,
        `all_ranks` those of all ranks.
        """
        self.run, self.options, self.data, self.trainer = run, options, data, trainer
        self.validation, self.best, self.commit = validation, best, commit
        self.progress, self.all_ranks = progress, all_ranks
        self.begun = self.last_save = time.monotonic()
        self.first_step, self.first_clip = trainer.step, trainer.clips
        self.values: dict[str, float] = {}
        """The last finite value of each loss and norm."""
        self.step_seconds = 0.0
        self.log: RunLog | None = None
        self.loader: ClipLoader | None = None

    def go(self, *, validation_due: bool) -> TrainResult:
        """Train up to the last step. After a stop signal, write a checkpoint and raise KeyboardInterrupt.

        `validation_due`: the run was killed after it saved this step, before it was validated.
        """
        options, trainer = self.options, self.trainer
        try:
            if distributed.is_main():
                write_options(self.run, recordable(options))
                self.log = RunLog(self.run, trainer.step, self.progress, validation_due=validation_due)
                self.link()
            if validation_due:
                self.validate()
            self.progress.start(options.exp_name, trainer.steps, "steps", done=trainer.step)
            with (
                ClipLoader(self.data, self.clips_of_batch, first=0, workers=options.num_workers) as self.loader,
                finishing_the_step() as interruption,
            ):
                batches = self.batches(self.loader)
                while trainer.step < trainer.steps:
                    begun = time.monotonic()
                    values = trainer.advance([next(batches) for _ in range(options.gradient_accumulation_steps)])
                    self.record(values)
                    self.note_pace(time.monotonic() - begun)
                    trainer.check()
                    if not self.between_steps(interruption):
                        break
                return self.result(self.run / run_dir.checkpoint_name(trainer.step))
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
                self.warn(note)
            yield ClipBatch(batch.frames, batch.numbers)

    def warn(self, message: str) -> None:
        """Show a warning of this rank."""
        self.all_ranks.warn(message if distributed.world_size() == 1 else f"rank {distributed.rank()}: {message}")

    def record(self, values: dict[str, Any]) -> None:
        """Write the values of a step to the journals, and show them every `log_steps` steps and after the last."""
        trainer = self.trainer
        self.values |= {k: v for k, v in values.items() if isinstance(v, float) and math.isfinite(v)}
        speed = self.speed()
        if self.log:
            self.log.step(trainer.step, values, speed)
        if values["skipped"]:
            self.progress.warn(f"step {trainer.step}: the loss or its gradient was not finite; the step is skipped")
        if trainer.step % self.options.log_steps == 0 or trainer.step == trainer.steps:
            parts = " ".join(f"{name} {self.values[name]:.4g}" for name in SHOWN if name in self.values)
            self.progress.status(
                f"{parts} | {speed['clips_per_second']:.2f} clips/s, {speed['waiting']:.0%} waiting for data"
            )
        self.progress.advance(1)

    def note_pace(self, seconds: float) -> None:
        """Add the seconds of a step. After the first steps, show what one takes; the very first warms up."""
        done, all_steps = self.trainer.step - self.first_step, self.trainer.steps - self.first_step
        self.step_seconds += seconds if 1 < done <= PACE_STEPS else 0
        if done == PACE_STEPS < all_steps:
            each = self.step_seconds / (PACE_STEPS - 1)
            more = ", plus validation" if self.validation else ""
            self.progress.note(
                f"{each:.4g} s per step: about {timedelta(seconds=round(each * all_steps))} for {all_steps} steps{more}"
            )

    def note_done(self) -> None:
        """Say that the run has no steps left, and how to continue."""
        steps, options = self.trainer.steps, self.options
        limit = "`max_steps`" if steps == options.max_steps else "`epochs`"
        self.progress.note(
            f"{self.run}: is done at step {self.trainer.step}; to train longer, resume with a higher {limit}"
        )

    def validates(self, step: int) -> bool:
        """Return whether the step is to be validated."""
        return self.validation is not None and (step % self.options.eval_steps == 0 or step == self.trainer.steps)

    def between_steps(self, interruption: Interruption) -> bool:
        """Save and validate if it is time to. Return False if the run has to stop."""
        step, options = self.trainer.step, self.options
        minutes = (time.monotonic() - self.last_save) / 60
        late = options.save_ckpt_minutes is not None and minutes > options.save_ckpt_minutes
        stop, late = distributed.any_rank([interruption.signal is not None, late])
        last = step == self.trainer.steps
        validates = self.validates(step)
        if stop or late or last or step % options.save_ckpt_step == 0:
            self.save(self.best, final=stop or last, validation_due=validates)
        if validates and not stop:
            self.validate()
        if stop:
            latest = shlex.quote(str(self.run / run_dir.LATEST))
            self.progress.note(f"stopped at step {step}; to continue: `resume_from_checkpoint={latest}`")
        return not stop

    def validate(self) -> None:
        """Measure the weights, and their EMA if there is one. Save them if they are the best so far.

        The checkpoint of this step, if there is one, is marked as validated. A validation that fails is skipped.
        """
        assert self.validation is not None
        model, average, step = self.trainer.model, self.trainer.ema, self.trainer.step
        try:
            values, picture = self.validation.measure(model, self.warn)
            if average:
                with average.in_place_of(model):
                    averaged, picture = self.validation.measure(model, self.warn)
                values |= {f"ema_{name}": value for name, value in averaged.items()}
        except ValidationError as error:
            self.progress.warn(f"step {step}: the validation failed and is skipped: {error}")
            return
        if self.log:
            try:
                self.log.validation(step, values, picture)
            except Exception as error:  # the other ranks continue too
                self.progress.warn(f"step {step}: the validation cannot be logged: {reason_of(error)}")
        self.progress.note(f"step {step}: {'; '.join(scores(values))}")
        better = improves(values, self.best)
        self.save({"step": step, **values} if better else self.best, new=better)

    def save(
        self, best: dict[str, float] | None, *, new: bool = True, final: bool = False, validation_due: bool = False
    ) -> None:
        """Write a checkpoint, or amend the one of this step; without `new`, only amend it. Then `best` is the best.

        If that fails, warn and continue with the best so far, unless it is `final`: then raise VaectlError.
        """
        there = self.run / run_dir.checkpoint_name(self.trainer.step)
        if self.log and (new or there.is_dir()):
            try:
                self.log.flush()
                self.write(there, best, validation_due)
            except VaectlError as error:
                if final:
                    raise
                self.progress.warn(f"{error}; earlier checkpoints are kept")
        if new:
            self.last_save = time.monotonic()
        distributed.wait_for_others()
        if any(distributed.any_rank([distributed.is_main() and self.best is best])):  # the main rank has written it
            self.best = best

    def write(self, target: Path, best: dict[str, float] | None, validation_due: bool) -> None:
        """Write the checkpoint of this step or amend it, update the links, and remove old checkpoints."""
        trainer, options = self.trainer, self.options
        model, average = trainer.model, trainer.ema.weights if trainer.ema else None
        metadata = {"weights": "ema" if average else "raw", "step": trainer.step}
        facts = {
            "step": trainer.step,
            "weights": metadata["weights"],
            "best": best,
            "validation": self.validation.clips.fingerprint if self.validation else None,
            "validation_due": validation_due,
            "data": self.data.fingerprint,
            "ranks": distributed.world_size(),
            "threads": torch.get_num_threads(),
            "vaectl": vaectl.__version__,
            "torch": torch.__version__,
            "commit": self.commit,
            "options": recordable(options),
        }
        try:
            if target.is_dir():
                amend_facts(target, {name: facts[name] for name in ("best", "validation", "validation_due")})
            else:
                write_checkpoint(
                    self.run,
                    trainer.step,
                    lambda place: write_model(model.config, average or model.state_dict(), place, metadata=metadata),
                    trainer.state(),
                    facts,
                )
        except OSError as error:
            raise VaectlError(*cannot_write(error.filename or self.run, error)) from None
        self.best = best
        self.tidy()

    def tidy(self) -> None:
        """Update the links and remove old checkpoints, which a killed process may have left. Raises VaectlError."""
        try:
            run_dir.prune(self.run, self.options.keep, self.link())
        except OSError as error:
            raise VaectlError(*cannot_write(error.filename or self.run, error)) from None

    def link(self) -> int | None:
        """Update the links to checkpoints. Return the step of the best one."""
        best_step = int(self.best["step"]) if self.best else None
        run_dir.link(self.run, best_step)
        return best_step

    def speed(self) -> dict[str, float]:
        """Return `clips_per_second` of all ranks, and `waiting` and `decoding` of this one, as in `TrainResult`."""
        loader, seconds = self.loader, time.monotonic() - self.begun
        return {
            "clips_per_second": (self.trainer.clips - self.first_clip) / seconds,
            "waiting": loader.waited / seconds if loader else 0.0,
            "decoding": loader.decoded_frames / loader.decode_seconds if loader and loader.decode_seconds else 0.0,
        }

    def result(self, checkpoint: Path) -> TrainResult:
        return TrainResult(
            run=self.run,
            checkpoint=checkpoint,
            step=self.trainer.step,
            loss=self.values.get("loss"),
            best=self.best,
            skipped=self.trainer.skipped,
            seconds=time.monotonic() - self.begun,
            **self.speed(),
            peak_memory=memory.peak(self.trainer.device),
            clips=self.validation.clips.paths if self.validation else [self.data.path(0)],
            left_out=self.validation.clips.left_out if self.validation else 0,
        )
