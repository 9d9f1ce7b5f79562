"""What `vaectl reconstruct` gives: the frames, sizes, times, sound and numbers that were asked for."""

import json
import math
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from tests.jobs import Listener, files, run, run_one
from tests.models.reference import load_reference, synthetic_model
from tests.video.media import encode, number_of
from tests.video.sync import burst_time, film_with_clap
from vaectl import engine, reconstruction
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.models import device, load_model, save_model
from vaectl.options import ReconstructOptions, parse
from vaectl.video import VideoReader, read_video, resize
from vaectl.video.clip import to_frames

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """20 numbered frames of 64x48 at 25 Hz."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", 20)


def mean_psnr(given: torch.Tensor, got: torch.Tensor) -> float:
    pairs = zip(given.numpy(), got.numpy(), strict=True)
    return float(np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs]))


def halves(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The left and the right of a file that shows two pictures side by side."""
    frames = read_video(path).frames
    assert frames.shape[3] % 2 == 0
    return frames[..., : frames.shape[3] // 2], frames[..., frames.shape[3] // 2 :]


# Frames, sizes, times


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize(
    ("count", "size"), [(1, (16, 16)), (2, (17, 33)), (5, (64, 48)), (6, (31, 16)), (9, (2, 40)), (4, (1, 1))]
)
def test_any_length_and_size_come_out_as_they_went_in(tmp_path, count, size, lossless):
    source = encode(tmp_path / "in.mov", count, size=size, codec="png", pix_fmt="rgb24", rate=Fraction(30000, 1001))
    result = run_one(source, tmp_path / "out.mp4", lossless=lossless)
    given, got = read_video(source), read_video(tmp_path / "out.mp4")
    assert (result.num_frames, result.width, result.height) == (count, *size)
    assert got.frames.shape == given.frames.shape
    assert got.frame_rate == Fraction(30000, 1001)
    assert got.timestamps == tuple(Fraction(1001 * number, 30000) for number in range(count))


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"num_frames": 7}, range(7)),
        ({"start": 18}, range(18, 20)),
        ({"sample_rate": 3}, range(0, 20, 3)),
        ({"start": 2, "sample_rate": 4, "num_frames": 3}, range(2, 14, 4)),
        ({"num_frames": 20}, range(20)),
    ],
)
def test_frames_are_the_ones_asked_for_with_their_times(clip, tmp_path, options, numbers):
    listener = Listener()
    result = run_one(clip, tmp_path / "out.mp4", listener, side_by_side=True, **options)
    original, _ = halves(tmp_path / "out.mp4")
    assert [number_of(frame) for frame in original] == list(numbers)
    assert result.num_frames == len(numbers)
    got = read_video(tmp_path / "out.mp4")
    rate = Fraction(25, options.get("sample_rate", 1))
    assert got.timestamps == tuple(index / rate for index in range(len(numbers)))
    assert (listener.clips, listener.warnings) == ([(str(clip), len(numbers), len(numbers))], [])


def test_a_shorter_clip_gives_what_it_has_with_a_warning(clip, tmp_path):
    listener = Listener()
    assert run_one(clip, tmp_path / "out.mp4", listener, num_frames=6, start=16).num_frames == 4
    assert listener.warnings == [f"{clip}: gives 4 of the 6 frames asked for"]


def test_strict_makes_a_shorter_clip_an_error(clip, tmp_path):
    with pytest.raises(VaectlError, match="gives 20 of the 21 frames asked for; ask for fewer"):
        run(clip, tmp_path / "out.mp4", num_frames=21, strict=True)
    assert files(tmp_path) == {}
    assert run_one(clip, tmp_path / "out.mp4", num_frames=20, strict=True).num_frames == 20


def test_a_start_behind_the_end_is_an_error(clip, tmp_path):
    with pytest.raises(UsageError, match="20 frames"):
        run(clip, tmp_path / "out.mp4", start=20)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"height": 24}, (32, 24)),
        ({"width": 128}, (128, 96)),
        ({"height": 40, "width": 40}, (40, 40)),
        ({"height": 16, "width": 48}, (48, 16)),
        ({"short_size": 33}, (44, 33)),
        ({"short_size": 35}, (46, 35)),
        ({"height": 26}, (34, 26)),
        ({"short_size": 48}, (64, 48)),
    ],
)
def test_sizes_are_the_ones_asked_for_after_a_centre_crop(clip, tmp_path, options, size):
    result = run_one(clip, tmp_path / "out.mkv", num_frames=3, side_by_side=True, lossless=True, **options)
    original, rebuilt = halves(tmp_path / "out.mkv")
    assert size == tuple(original.shape[:1:-1])
    assert (result.width, result.height) == (2 * size[0], size[1])  # the file has both pictures
    assert torch.equal(original, resize(read_video(clip, num_frames=3).frames, *size))
    assert result.psnr == pytest.approx(mean_psnr(original, rebuilt), abs=1e-9)


def test_pixels_keep_their_shape(samples, tmp_path):
    run(samples / "carphone_pristine.mp4", tmp_path / "out.mp4", num_frames=1, height=32, width=32)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.info.sample_aspect_ratio == Fraction(128, 117)


IRREGULAR = [0, 40, 81, 120, 200, 201, 500, 560]
"""Milliseconds, on average at 25 Hz over the middle."""


@pytest.fixture
def irregular(tmp_path) -> Path:
    return encode(tmp_path / "irregular.mp4", 8, pts=IRREGULAR, time_base=Fraction(1, 1000))


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_irregular_times_are_kept(irregular, tmp_path, ending):
    run(irregular, tmp_path / f"out{ending}", start=1, sample_rate=2)
    expected = tuple(Fraction(time - 40, 1000) for time in IRREGULAR[1::2])
    assert read_video(tmp_path / f"out{ending}").timestamps == expected


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(24000, 1001), "its own"])
def test_a_frame_rate_makes_times_even(irregular, tmp_path, rate):
    if rate == "its own":
        with VideoReader(irregular) as reader:
            rate = reader.info.frame_rate
    run(irregular, tmp_path / "out.mp4", fps=rate)
    got = read_video(tmp_path / "out.mp4")
    steps = {later - earlier for earlier, later in zip(got.timestamps, got.timestamps[1:], strict=False)}
    assert (len(got), steps, got.frame_rate) == (8, {1 / rate}, rate)


# Pixels and numbers


@pytest.mark.parametrize("count", [1, 5, 6])
def test_lossless_is_what_the_model_gives_rounded_to_8_bits(clip, tmp_path, count):
    result = run_one(clip, tmp_path / "out.mkv", num_frames=count, lossless=True)
    given, got = read_video(clip, num_frames=count), read_video(tmp_path / "out.mkv")
    assert torch.equal(got.frames, to_frames(load_model(device="cpu").reconstruct(given.video())))
    assert result.psnr == pytest.approx(mean_psnr(given.frames, got.frames), abs=1e-9)
    assert result.codec_psnr == math.inf


def test_a_lossy_file_has_the_same_psnr_and_tells_what_its_codec_lost(clip, tmp_path):
    exact = run_one(clip, tmp_path / "exact.mkv", num_frames=6, lossless=True)
    lossy = run_one(clip, tmp_path / "lossy.mp4", num_frames=6)
    assert lossy.psnr == exact.psnr
    lost = mean_psnr(read_video(tmp_path / "exact.mkv").frames, read_video(tmp_path / "lossy.mp4").frames)
    assert lossy.codec_psnr == pytest.approx(lost, abs=0.01)
    assert 25 < lost < 60


def test_pieces_change_nothing(clip, tmp_path, monkeypatch):
    run(clip, tmp_path / "whole.mkv", lossless=True)
    monkeypatch.setattr(engine, "window_frames", lambda *_: 4)
    listener = Listener()
    result = run_one(clip, tmp_path / "pieces.mkv", listener, lossless=True)
    whole, pieces = read_video(tmp_path / "whole.mkv").frames.int(), read_video(tmp_path / "pieces.mkv").frames.int()
    assert (whole - pieces).abs().max() <= 1  # where a value lies between two levels
    assert (whole != pieces).float().mean() < 1e-4
    assert (result.num_frames, listener.clips) == (20, [(str(clip), 20, 20)])


def test_a_model_that_looks_at_the_whole_clip_gives_what_it_gives_in_one_go(clip, tmp_path, monkeypatch):
    model = synthetic_model(load_reference("causalvae_class_defaults_narrow").config)
    assert not model.streams
    save_model(model, tmp_path / "model")
    monkeypatch.setattr(engine, "window_frames", lambda *_: 4)
    result = run_one(clip, tmp_path / "out.mkv", num_frames=7, width=32, lossless=True, model=tmp_path / "model")
    given = resize(read_video(clip, num_frames=7).frames, 32, 24)
    expected = to_frames(model.reconstruct(given.float().div(127.5).sub(1).transpose(0, 1)[None]))
    assert torch.equal(read_video(tmp_path / "out.mkv").frames, expected)
    assert result.psnr == pytest.approx(mean_psnr(given, expected), abs=1e-9)


def test_a_sample_is_repeatable_and_not_the_mean(clip, tmp_path):
    def frames(name, **options):
        run(clip, tmp_path / name, num_frames=5, width=32, lossless=True, **options)
        return read_video(tmp_path / name).frames

    drawn = frames("a.mkv", sample=True, seed=1)
    assert torch.equal(drawn, frames("b.mkv", sample=True, seed=1))
    assert not torch.equal(drawn, frames("c.mkv", sample=True, seed=2))
    assert not torch.equal(drawn, frames("d.mkv"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_nearly_the_same(clip, tmp_path, dtype):
    full = run_one(clip, tmp_path / "full.mkv", num_frames=2, width=32)
    half = run(clip, tmp_path / "half.mkv", num_frames=2, width=32, dtype=dtype)
    assert half.dtype == dtype
    assert half.clips[0].psnr == pytest.approx(full.psnr, abs=0.3)


@pytest.mark.parametrize(
    ("multiplies", "channels", "options", "dtype"),
    [
        (True, 256, {}, "bfloat16"),
        (False, 256, {}, "float32"),
        (True, 64, {}, "float32"),
        (True, 256, {"enable_tiling": True}, "float32"),
        (True, 256, {"dtype": "float32"}, "float32"),
    ],
    ids=["faster", "emulated", "wide", "exact tiles", "asked"],
)
def test_a_cpu_that_multiplies_bfloat16_uses_it_for_narrow_models(
    clip, tmp_path, monkeypatch, multiplies, channels, options, dtype
):
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda: multiplies)
    monkeypatch.setattr(device, "NARROW", channels)
    run(clip, tmp_path / "exact.mkv", num_frames=5, lossless=True, dtype="float32")
    result = run(clip, tmp_path / "out.mkv", num_frames=5, lossless=True, **options)
    assert result.dtype == dtype
    same = torch.equal(read_video(tmp_path / "out.mkv").frames, read_video(tmp_path / "exact.mkv").frames)
    assert same == (dtype == "float32")


def test_a_model_that_overflows_is_an_error_and_no_picture(clip, tmp_path, monkeypatch):
    def overflow(*_, finish, **__):
        yield finish(torch.full((1, 3, 4, 48, 64), math.inf))

    monkeypatch.setattr(engine, "reconstruct_windows", overflow)
    with pytest.raises(VaectlError, match=r"clip\.mp4: the model's output has NaN or infinity; use `dtype=float32`"):
        run(clip, tmp_path / "out.mp4")
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_lack_of_memory_names_a_remedy(clip, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error
        yield

    monkeypatch.setattr(engine, "reconstruct_windows", fail)
    with pytest.raises(VaectlError, match=r"clip\.mp4: out of memory on cpu; use `enable_tiling`"):
        run(clip, tmp_path / "out.mp4")
    assert files(tmp_path) == {}


def test_a_model_that_does_not_fit_names_a_remedy(clip, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(engine, "load_model", fail)
    with pytest.raises(VaectlError, match="the built-in model: out of memory on cpu; the weights alone do not fit"):
        run(clip, tmp_path / "out.mp4")


@pytest.mark.parametrize("size", [(17, 33), (64, 64)])
def test_an_image_becomes_an_image(tmp_path, size):
    source = encode(tmp_path / "photo.png", 1, size=size, codec="png", pix_fmt="rgb24")
    result = run_one(source, tmp_path / "rec.png")
    given = read_video(source)
    assert torch.equal(read_video(tmp_path / "rec.png").frames, to_frames(load_model().reconstruct(given.video())))
    assert (result.num_frames, result.codec_psnr) == (1, math.inf)


# Sound


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> Path:
    """60 frames with sound; a flash and a clap at the same moment."""
    return film_with_clap(tmp_path_factory.mktemp("film") / "film.mp4")


def audio_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size] if container.streams.audio else []


@pytest.mark.parametrize(
    "options", [{}, {"num_frames": 60}, {"num_frames": 90}, {"fps": Fraction(25)}, {"side_by_side": True}]
)
def test_the_whole_clip_keeps_its_sound(film, tmp_path, options):
    run(film, tmp_path / "out.mp4", width=32, **options)
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(film) != []


@pytest.mark.parametrize(
    "options", [{"num_frames": 59}, {"start": 1}, {"sample_rate": 2}, {"fps": Fraction(24)}, {"fps": Fraction(30)}]
)
def test_a_part_or_another_speed_has_no_sound(film, tmp_path, options):
    run(film, tmp_path / "out.mp4", width=32, **options)
    assert audio_packets(tmp_path / "out.mp4") == []


@pytest.mark.parametrize("options", [{}, {"fps": Fraction(25)}])
def test_sound_stays_with_the_picture_when_that_begins_late(tmp_path, options):
    late = film_with_clap(tmp_path / "late.mkv", video_start=Fraction(1, 5))
    run(late, tmp_path / "out.mp4", width=32, side_by_side=True, **options)
    original, _ = halves(tmp_path / "out.mp4")
    flash = float(read_video(tmp_path / "out.mp4").timestamps[original.float().mean((1, 2, 3)).argmax()]) + 0.02
    assert burst_time(tmp_path / "out.mp4") == pytest.approx(flash, abs=0.005)


# The command


@pytest.mark.parametrize("underscores", [True, False])
def test_the_published_command_for_videos_works(clip, tmp_path, capsys, underscores):
    model = Path(reconstruction.__file__).parents[1] / "models" / "builtin"
    line = (
        f"--video_path {clip} --rec_path {tmp_path}/rec.mp4 --device cpu --sample_rate 1 --num_frames 5 --height 48 "
        f"--width 32 --fps 30 --ae_path {model} --ae WFVAEModel_D8_4x8x8 --enable_tiling --tile_overlap_factor 0.125"
    )
    arguments = [word if underscores or word[:2] != "--" else word.replace("_", "-") for word in shlex.split(line)]
    assert main(["reconstruct", *arguments]) == 0
    got = read_video(tmp_path / "rec.mp4")
    assert (tuple(got.frames.shape), got.frame_rate) == ((5, 3, 48, 32), 30)
    out, err = capsys.readouterr()
    assert f"{model} on cpu in float32" in out
    assert "--tile-overlap-factor has no effect" in err


def test_a_model_of_another_family_than_named_is_refused(clip, tmp_path):
    with pytest.raises(UsageError, match="CausalVAEModel_4x8x8`: the built-in model is a WFVAEModel; leave"):
        run(clip, tmp_path / "rec.mp4", model_name="CausalVAEModel_4x8x8")


@pytest.mark.parametrize("option", ["--image_path", "--image-path", "--video_path"])
def test_the_published_command_for_images_works(tmp_path, capsys, option):
    photo = encode(tmp_path / "photo.png", 1, size=(90, 60), codec="png", pix_fmt="rgb24")
    model = Path(reconstruction.__file__).parents[1] / "models" / "builtin"
    line = f"{option} {photo} --rec_path {tmp_path}/rec.png --short_size 32 --device cpu --from_pretrained {model}"
    assert main(["reconstruct", *shlex.split(line)]) == 0
    assert read_video(tmp_path / "rec.png").frames.shape == (1, 3, 32, 48)
    assert capsys.readouterr().err == ""


def test_json_is_all_there_is_on_stdout(clip, tmp_path, capfd):
    arguments = ["--video-path", str(clip), "--rec-path", str(tmp_path / "out.mkv"), "--lossless", "--json"]
    assert main(["reconstruct", *arguments, "--width", "32", "--num-frames", "21", "--device", "cpu"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out, parse_constant=pytest.fail)
    (only,) = result["clips"]
    assert (only["frames"], only["width"], only["height"], only["codec_psnr"]) == (20, 32, 24, "inf")
    assert (result["device"], result["dtype"], result["model"]) == ("cpu", "float32", "built-in model")
    assert 50 * 2**20 < result["peak_memory"] < 64 * 2**30
    assert err == f"warning: {clip}: gives 20 of the 21 frames asked for\n"


def test_the_run_is_recorded_beside_its_result_and_can_be_repeated(clip, tmp_path):
    options = {"num_frames": 2, "fps": Fraction(30000, 1001), "lossless": True, "sample": True, "seed": 3}
    result = run(clip, tmp_path / "out.mkv", **options)
    record = json.loads((tmp_path / "out.mkv.vaectl.json").read_text(), parse_constant=pytest.fail)
    assert record["clips"] == result.as_json()["clips"]
    assert record["model"] == "built-in model"
    again = parse(ReconstructOptions, record["options"])
    assert again == ReconstructOptions(video_path=(clip,), rec_path=tmp_path / "out.mkv", device="cpu", **options)
    before = read_video(tmp_path / "out.mkv")
    reconstruction.reconstruct(replace(again, overwrite=True), Listener())
    after = read_video(tmp_path / "out.mkv")
    assert torch.equal(after.frames, before.frames)
    assert after.timestamps == before.timestamps


def test_a_configuration_file_gives_options_and_the_command_line_wins(clip, tmp_path):
    file = tmp_path / "rec.toml"
    file.write_text(f'video_path = "{clip}"\nnum_frames = 3\nwidth = 32\nfps = 29.97\n')
    assert main(["reconstruct", "--config", str(file), "--rec-path", str(tmp_path / "o.mp4"), "--num-frames", "2"]) == 0
    got = read_video(tmp_path / "o.mp4")
    assert (tuple(got.frames.shape), got.frame_rate) == ((2, 3, 24, 32), Fraction(2997, 100))


def test_a_record_that_cannot_be_written_costs_a_warning_and_not_the_result(clip, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    listener = Listener()
    assert run_one(clip, tmp_path / "out.mp4", listener, num_frames=1).num_frames == 1
    assert list(files(tmp_path)) == ["out.mp4"]
    assert len(listener.warnings) == 1
    assert "out.mp4.vaectl.json: the record of this run is missing" in listener.warnings[0]
    assert "No space left" in listener.warnings[0]


def test_a_real_video_comes_back_with_its_sound_and_looks_like_itself(samples, tmp_path):
    source = samples / "bigbuckbunny.mp4"
    result = run_one(source, tmp_path / "out.mp4", height=64, width=64)
    got = read_video(tmp_path / "out.mp4")
    assert (tuple(got.frames.shape), got.frame_rate) == ((132, 3, 64, 64), 25)
    assert result.psnr > 20
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(source)
