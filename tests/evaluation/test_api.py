"""`vaectl.evaluate`: the numbers of the command, from Python."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vaectl
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.api import Warnings
from vaectl.video import Clip, write_video

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(seed: int, num_frames: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, 32, 40), dtype=torch.uint8, generator=generator)


def blurred(frames: torch.Tensor) -> torch.Tensor:
    return (frames // 2 + frames.roll(1, 3) // 2).contiguous()


A, B = Clip.from_frames(noise(0), 25), Clip.from_frames(noise(1), 25)
A2, B2 = replace(A, frames=blurred(A.frames)), replace(B, frames=blurred(B.frames))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for place, clip in {"real/a": A, "real/b": B, "made/a": A2, "made/b": B2}.items():
        write_video(tmp_path / f"{place}.mkv", clip, lossless=True)
    return tmp_path / "real", tmp_path / "made"


def test_files_and_folders_have_the_numbers_of_the_command(folders, capsys):
    asked = {"num_frames": 4, "resolution": 32, "crop_size": 0}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    paths = [f"--real-video-dir={folders[0]}", f"--generated-video-dir={folders[1]}"]
    assert main(["eval", *paths, *arguments, "--json", "--device=cpu"]) == 0
    expected = json.loads(capsys.readouterr().out)
    evaluation = vaectl.evaluate(*folders, **asked, device="cpu")
    assert capsys.readouterr() == ("", "")  # nothing is printed
    assert evaluation.means == {name: summary["mean"] for name, summary in expected["summary"].items()}
    assert list(evaluation.means) == ["psnr", "ssim", "lpips"]
    assert [clip.name for clip in evaluation.clips] == ["a", "b"]
    assert [list(clip.values["psnr"]) for clip in evaluation.clips] == [c["values"]["psnr"] for c in expected["clips"]]
    assert [clip.means for clip in evaluation.clips] == [clip["mean"] for clip in expected["clips"]]
    # The frames were not resized, so clips in memory have the same numbers, however they are given.
    for real, made in (
        ([A, B], [A2, B2]),
        ([A.video(), B.frames], [A2.frames.permute(0, 2, 3, 1).numpy(), B2]),
        (torch.cat([A.video(), B.video()]), torch.stack([A2.frames, B2.frames])),
    ):
        assert vaectl.evaluate(real, made, device="cpu").means == evaluation.means
    single = vaectl.evaluate(A, list(A2.frames), metrics="psnr", device="cpu")
    assert single.means["psnr"] == evaluation.clips[0].means["psnr"]


def test_clips_in_memory_are_compared_as_they_are():
    evaluation = vaectl.evaluate([A, B], [A2, B], metrics=("psnr", "flicker"), batch_size=2, device="cpu")
    first, second = evaluation.clips
    assert (first.name, first.num_frames, first.width, first.height) == ("clip 0", 4, 40, 32)
    errors = (A.frames.double() - A2.frames).square().flatten(1).mean(1)
    assert first.values["psnr"] == pytest.approx((10 * torch.log10(255**2 / errors)).tolist())
    assert second.means["psnr"] == float("inf")
    json.dumps(evaluation.as_json())
    assert evaluation.as_json()["protocol"]["clips"] == "in memory, as they are"


def test_results_are_shown_in_one_line():
    evaluation = vaectl.evaluate([A, B], [A, B], metrics=["psnr"], device="cpu")
    assert repr(evaluation) == "Evaluation(2 clips: psnr inf)"
    assert repr(evaluation.clips[1]) == "ClipScores('clip 1', 4 frames, 40x32: psnr inf)"
    assert repr(vaectl.evaluate(A, A2, metrics="ssim", device="cpu")).startswith("Evaluation(1 clip: ssim 0.")


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((A, "a.mkv"), {}, "give two paths, or two clips in memory; read a file with vaectl.read_video"),
        (("a.mkv", A), {}, "give two paths, or two clips in memory"),
        ((A,), {}, "give two paths, or two clips in memory"),
        (("a.mkv",), {}, "`generated_video_dir` is missing"),
        ((A, A2), {"num_frames": 4}, "`num_frames` is for files: clips in memory are compared as they are"),
        ((A, A2), {"allow_missing": True}, "`allow_missing` is for files"),
        ((A, A2), {"metrics": "psnrr"}, "`metrics`: there is no metric 'psnrr'; did you mean psnr?"),
        ((A, A2), {"metrics": "fvd"}, "fvd needs clips of at least 9 frames, not 4; raise `num_frames`"),
        ((A, A2), {"json": True}, "`json` is no parameter of vaectl.evaluate"),
        (("a.mkv", "b.mkv"), {"frames": 4}, "`frames` is no parameter of vaectl.evaluate"),
        (("a.mkv", "b.mkv"), {"num_frames": 0}, "`num_frames`: must be at least 1, not 0"),
        (([A], [A2, B2]), {}, "there are 1 originals and 2 reconstructions"),
        ((A, A2.frames[:2]), {}, "clip 0: frames (2, 3, 32, 40), but those of the original are (4, 3, 32, 40)"),
        ((A, A2.frames.float()), {}, "frames must be uint8"),
        (([], []), {}, "frames must be uint8"),
        ((A, A.video() * torch.nan), {}, "not a tensor of float32 (3, 4, 32, 40) with NaN"),
        ((A, torch.cat([A.video() * torch.nan] * 2)), {}, "with NaN"),
        ((Clip(A.frames[:0], (), A.frame_rate),) * 2, {}, "a clip must have at least 1 frame"),
        ((A, A2), {"metrics": ()}, "`metrics`: name at least one of psnr, "),
    ],
)
def test_wrong_requests_are_usage_errors(arguments, options, said):
    with pytest.raises(UsageError) as error:
        vaectl.evaluate(*arguments, **{"device": "cpu"} | options)
    assert said in str(error.value)


def test_a_clip_that_cannot_be_compared_is_an_error(folders):
    small = Clip.from_frames(A.frames[..., :8, :8], 25)
    with pytest.raises(VaectlError, match="clip 0: ssim needs frames of at least 11x11 pixels"):
        vaectl.evaluate(small, small, device="cpu")
    asked = {"num_frames": 4, "resolution": 32, "crop_size": 0, "metrics": "psnr", "device": "cpu"}
    (folders[1] / "b.mkv").write_bytes(b"broken")
    with pytest.raises(VaectlError, match=r"b\.mkv"):
        vaectl.evaluate(*folders, **asked)
    evaluation = vaectl.evaluate(*folders, **asked, allow_missing=True)
    assert [clip.name for clip in evaluation.clips] == ["a"]
    assert list(evaluation.left_out) == ["b"]


def test_warnings_are_those_of_python():
    with pytest.warns(UserWarning, match="lossy"):
        Warnings().warn("its clips are lossy")
