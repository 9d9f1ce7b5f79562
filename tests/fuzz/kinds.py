"""What is spoilt, and what is done with it: a maker of whole inputs, a way to spoil one, and the reading of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import av
import torch
from safetensors.torch import save_file

from tests.fuzz.mutate import ODD, spoil_bytes, spoil_json, spoil_safetensors, spoil_text
from tests.models.test_checkpoint import TINY
from tests.models.wan import SMALL, original_names
from tests.training.runs import PLAIN, nano, run
from tests.video.media import encode
from vaectl.cli.derive import resolve
from vaectl.cli.train import underlying
from vaectl.evaluation.frames import how_to_read
from vaectl.evaluation.manifest import (
    MANIFEST,
    Manifest,
    ManifestClip,
    ManifestModel,
    open_journal,
    read_manifest,
    write_manifest,
)
from vaectl.evaluation.pairs import find_pairs
from vaectl.evaluation.plan import deciding, is_there
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.inventory import describe
from vaectl.io.json_values import plain
from vaectl.model_names import WEIGHTS
from vaectl.models import build_model, load_model, save_model
from vaectl.models.build import read_config
from vaectl.models.config import WFVAEConfig
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.options import EvalOptions, PrepareEvalOptions, ReconstructOptions, options_of, parse
from vaectl.options.models import ModelsOptions
from vaectl.options.train import TrainOptions
from vaectl.progress import Silent
from vaectl.video import read_video
from vaectl.video.container import LENIENT_TAGS


class SilentLossError(Exception):
    """The frames that were given are fewer than FFmpeg decodes, and nothing was said."""


@dataclass(frozen=True)
class Kind:
    """One kind of input."""

    make: Callable[[Path], None]
    """Puts whole inputs into an empty folder."""
    attempt: Callable[[Path, Path, Random], object]
    """Takes the folder of whole inputs and an empty one; spoils an input there, and reads it."""


# Clips

CLIPS: tuple[tuple[str, dict[str, object]], ...] = (
    ("a.mp4", {"codec": "libx264"}),
    ("b.mkv", {"codec": "libx264", "options": {"g": "4", "bf": "2"}}),
    ("c.mov", {"codec": "mpeg4"}),
    ("d.webm", {"codec": "libvpx-vp9"}),
    ("e.avi", {"codec": "mpeg4"}),
    ("f.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    ("g.mkv", {"codec": "ffv1"}),
    ("h.ts", {"codec": "libx264"}),
    ("i.png", {"codec": "png", "pix_fmt": "rgb24", "count": 1}),
    ("j.jpg", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "count": 1}),
    ("k.mp4", {"codec": "libx265"}),
)


def make_clips(folder: Path) -> None:
    for name, settings in CLIPS:
        encode(folder / name, **{"count": 10, "size": (32, 32), **settings})  # type: ignore[arg-type]


def attempt_clip(whole: Path, here: Path, rng: Random) -> None:
    source = rng.choice(sorted(whole.iterdir()))
    spoilt = here / source.name
    spoilt.write_bytes(spoil_bytes(source.read_bytes(), rng))
    given = len(read_video(spoilt))
    if given < (there := len(times_of_ffmpeg(spoilt))) and not (spoilt.suffix == ".ts" and is_cut(spoilt, given)):
        raise SilentLossError(f"{source.name}: {given} frames of {there}")


def times_of_ffmpeg(path: Path) -> list[int | None]:
    """The times (ticks) of the frames that FFmpeg decodes when it continues after errors, as its program does."""
    times: list[int | None] = []
    with av.open(str(path), **LENIENT_TAGS) as container:
        stream = container.streams.video[0]
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError):
                return times
            try:
                times += [frame.pts for frame in packet.decode()]
            except av.error.FFmpegError:
                continue


def is_cut(path: Path, frames: int) -> bool:
    """Whether a recording may have been cut so that only `frames` are left before the first missing one.

    Then a frame is missing among the last, which are decoded in another order than they are shown.
    """
    times = times_of_ffmpeg(path)
    step = (times[1] or 0) - (times[0] or 0)
    return len(times) - frames <= 3 and (times[frames] or 0) - (times[frames - 1] or 0) != step


# Checkpoints


def make_checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    model = build_model(WFVAEConfig(**TINY))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name in ("safetensors", "zip", "old", "training", "shards"):
        save_model(model, folder / name)
        if name != "safetensors":
            (folder / name / f"{WEIGHTS}.safetensors").unlink()
    torch.save(state, folder / "zip" / f"{WEIGHTS}.bin")
    torch.save(state, folder / "old" / f"{WEIGHTS}.bin", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"gen_model": state}, "ema_state_dict": state}, folder / "training" / "a.ckpt")
    halves = [dict(list(state.items())[i::2]) for i in range(2)]
    for i, half in enumerate(halves):
        save_file(half, folder / "shards" / f"{i}.safetensors")
    places = {name: f"{i}.safetensors" for i, half in enumerate(halves) for name in half}
    (folder / "shards" / f"{WEIGHTS}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    wan = build_model(AutoencoderKLWanConfig(**SMALL))
    save_model(wan, folder / "wan")
    for name in ("original", "original_safetensors"):
        (folder / name).mkdir()
    torch.save(original_names(wan.state_dict()), folder / "original" / "Wan2.1_VAE.pth")
    save_file(original_names(wan.state_dict()), folder / "original_safetensors" / "wan_2.1_vae.safetensors")


def attempt_checkpoint(whole: Path, here: Path, rng: Random) -> None:
    copy = Path(shutil.copytree(rng.choice(sorted(whole.iterdir())), here / "model"))
    file = rng.choice([path for path in sorted(copy.iterdir()) for _ in range(1 if path.name == "config.json" else 3)])
    spoil_file(file, rng)
    try:
        describe(copy)
    finally:
        load_model(copy, device="cpu")


def spoil_file(file: Path, rng: Random) -> None:
    """Spoil a file as what it is, or put something else in its place."""
    way = rng.random()
    if way < 0.03:
        file.unlink()
        rng.choice((os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: None))(file)
        return
    spoil = {".json": spoil_json, ".jsonl": spoil_text, ".safetensors": spoil_safetensors}.get(file.suffix, spoil_bytes)
    file.write_bytes(spoil(file.read_bytes(), rng))


# Configurations: of models, and of commands

COMMANDS: Sequence[type] = (ReconstructOptions, PrepareEvalOptions, EvalOptions, TrainOptions, ModelsOptions)


def make_configs(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(WFVAEConfig(**TINY).to_json()))
    (folder / "wan.json").write_text(json.dumps(AutoencoderKLWanConfig(**SMALL, clip_output=False).to_json()))


def attempt_config(whole: Path, here: Path, rng: Random) -> None:
    if rng.random() < 0.4:
        file = here / "config.json"
        file.write_bytes(spoil_json((whole / rng.choice(("config.json", "wan.json"))).read_bytes(), rng))
        with torch.device("meta"):
            build_model(read_config(file))
        return
    command = rng.choice(COMMANDS)
    names = list(options_of(command))
    values = {rng.choice(names): rng.choice((*ODD, 1, 16, 32, "cpu", "a/b", 0.5)) for _ in range(rng.choice((1, 2, 5)))}
    if rng.random() < 0.5:
        file = here / "run.json"
        text = json.dumps(values).encode()
    else:
        file = here / "run.toml"
        text = "".join(f"{name} = {toml(value)}\n" for name, value in values.items()).encode()
    file.write_bytes(spoil_text(text, rng) if rng.random() < 0.3 else text)
    resolve(command, {"config": str(file), **NEEDED.get(command, {})}, underlying if command is TrainOptions else None)


NEEDED: dict[type, dict[str, object]] = {
    ReconstructOptions: {"video_path": "a.mp4", "rec_path": "b.mp4"},
    PrepareEvalOptions: {"real_video_dir": "a", "generated_video_dir": "b"},
    EvalOptions: {"real_video_dir": "a", "model": "builtin"},
    TrainOptions: {"video_path": ("v",)},
}
"""What each command cannot do without, as typed."""


def toml(value: object) -> str:
    """A value as TOML writes it, where it can."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value).replace("null", '"null"')


# Manifests


def make_manifests(folder: Path) -> None:
    for name in ("real", "generated"):
        (folder / name).mkdir()
        for clip in "abc":
            (folder / name / f"{clip}.mkv").write_bytes(b"clip")
    clips = tuple(ManifestClip(name, f"{name}.mkv", (4, 2), f"{name}.mkv") for name in "abc")
    model = ManifestModel(None, "WFVAEModel", "ab" * 32, "cpu", "float32")
    options = {"sample": False, "model": None, "format": "mkv", "subset_size": 0}
    manifest = Manifest({"vaectl": "1"}, model, ClipProtocol(33, 1, 256, 256), options, "/real", clips)
    write_manifest(folder / "generated", manifest)
    with open_journal(folder / "generated", 0) as journal:
        for clip in clips[:2]:
            journal.add(replace(clip, status="ok", frames=33, width=8, height=8, generated_bytes=4))


def attempt_manifest(whole: Path, here: Path, rng: Random) -> None:
    copy = Path(shutil.copytree(whole, here / "copy"))
    real, generated = copy / "real", copy / "generated"
    spoil_file(generated / rng.choice((MANIFEST, MANIFEST, ".manifest-0.jsonl")), rng)
    manifest = read_manifest(generated)
    options = parse(EvalOptions, {"real_video_dir": real, "generated_video_dir": generated, "subset_size": 3})
    reading = how_to_read(options, [manifest], Silent())
    find_pairs(real, generated, manifest, 0, reading.protocol.num_frames == 1)
    if manifest is not None:
        deciding(manifest)
        [is_there(generated, clip) for clip in manifest.clips]
        json.dumps(plain(asdict(manifest)))
        write_manifest(generated, manifest)
        read_manifest(generated)
    how_to_read(parse(EvalOptions, {"real_video_dir": generated, "generated_video_dir": real}), [None], Silent())


# Run folders


def make_runs(folder: Path) -> None:
    (folder / "videos").mkdir()
    encode(folder / "videos" / "a.mp4", 8, size=(32, 32))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    run(folder / "videos", folder, model_config=str(nano(folder)), max_steps=3, save_ckpt_step=1, ema=True)


def attempt_run(whole: Path, here: Path, rng: Random) -> None:
    copy = Path(shutil.copytree(whole / "results", here / "results", symlinks=True)) / "vae"
    last = copy / "checkpoint-00000003"
    files = [*sorted(path for path in last.iterdir()), copy / "metrics.jsonl", copy / "options.json"]
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice(files)
        if file.is_file():
            spoil_file(file, rng)
    run(whole / "videos", here, resume_from_checkpoint="latest", max_steps=4, device=PLAIN["device"])


KINDS: dict[str, Kind] = {
    "clips": Kind(make_clips, attempt_clip),
    "checkpoints": Kind(make_checkpoints, attempt_checkpoint),
    "configs": Kind(make_configs, attempt_config),
    "manifests": Kind(make_manifests, attempt_manifest),
    "runs": Kind(make_runs, attempt_run),
}
