"""Frames that other tools give: arrays, lists of frames and videos become clips, and what is unclear is an error."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaectl.errors import UsageError
from vaectl.video import Clip, VideoReader, read_video, write_video
from vaectl.video.arrays import clip_of, frames_of

FRAMES = torch.randint(0, 256, (4, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LAST = FRAMES.permute(0, 2, 3, 1)
VIDEO = FRAMES.div(127.5).sub(1).transpose(0, 1)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


TAKEN = {
    "channels first": FRAMES,
    "channels last": LAST,
    "NumPy, channels first": FRAMES.numpy(),
    "NumPy, channels last": LAST.numpy(),
    "NumPy, read-only": read_only(LAST.numpy()),
    "BGR reversed": LAST.flip(3).numpy()[..., ::-1],
    "a list of arrays": list(LAST.numpy()),
    "a tuple of tensors": tuple(FRAMES),
    "a list of PIL images": [Image.fromarray(frame) for frame in LAST.numpy()],
    "NumPy, a video of another byte order": VIDEO.numpy().astype(">f8"),
    "a video": VIDEO,
    "a video of batch size 1": VIDEO[None],
    "a video of NumPy in float64": VIDEO.double().numpy(),
    "a video that needs a gradient": VIDEO.clone().requires_grad_(),
    "a video beyond the range": torch.where(VIDEO == 1, 1.5, VIDEO),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", TAKEN)
def test_frames_are_written_as_they_are(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "a.mkv", TAKEN[name], fps=29.97, lossless=True)
    clip = read_video(tmp_path / "a.mkv")
    assert torch.equal(clip.frames, FRAMES)
    assert clip.frame_rate == Fraction(2997, 100)
    assert clip.timestamps[0] == 0


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (FRAMES.float(), "not a tensor of float32 (4, 3, 16, 24); convert [0, 1] with (frames * 255).round() to uint8"),
        (LAST.numpy() / 255, "not a NumPy array of float64 (4, 16, 24, 3); convert [0, 1] with"),
        (127.5 * (VIDEO + 1), "with values up to 255; convert it to uint8"),
        (VIDEO[None].repeat(2, 1, 1, 1, 1), "give one clip at a time"),
        (torch.where(VIDEO[0, 0, 0, 0] == VIDEO, torch.nan, VIDEO), "not a tensor of float32 (3, 4, 16, 24) with NaN"),
        (VIDEO.half() + torch.inf, "with values up to inf"),
        (VIDEO.numpy().astype(np.longdouble), "not a NumPy array of"),
        (VIDEO.to_sparse(), "not a tensor of float32"),
        (FRAMES.to("meta"), "not a tensor of uint8"),
        (Clip(FRAMES[:0], (), Fraction(25)), "a clip must have at least 1 frame and 1 pixel, not a tensor of uint8"),
        (FRAMES[..., :3], "a tensor of uint8 (4, 3, 16, 3) may be (T, H, W, 3) or (T, 3, H, W); give a clip"),
        (FRAMES[:, :1], "not a tensor of uint8 (4, 1, 16, 24)"),
        (FRAMES[0], "not a tensor of uint8 (3, 16, 24)"),
        (FRAMES.long(), "not a tensor of int64 (4, 3, 16, 24)"),
        (FRAMES[:0], "not a tensor of uint8 (0, 3, 16, 24)"),
        ([], "not a list of 0"),
        (["a"], "not a list of 1, the first a value of type str"),
        ("a.mp4", "not a value of type str"),
        (None, "not a value of type NoneType"),
        ([LAST[0], LAST[1, :5]], "frame 1 is a tensor of uint8 (5, 24, 3), but frame 0 is a tensor of uint8"),
    ],
)
def test_what_is_unclear_is_an_error(tmp_path: Path, frames: object, said: str) -> None:
    with pytest.raises(UsageError) as error:
        write_video(tmp_path / "a.mp4", frames, fps=25)  # type: ignore[arg-type]
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_clip_says_which_dimension_has_the_channels() -> None:
    assert torch.equal(frames_of(Clip.from_frames(FRAMES[..., :3], 25)), FRAMES[..., :3])
    for wrong in (LAST, FRAMES.float(), FRAMES[0], FRAMES.numpy(), list(FRAMES)):
        with pytest.raises(
            UsageError, match=r"a clip takes a tensor of uint8 \(T, 3, H, W\), not a (tensor|NumPy|list)"
        ):
            Clip.from_frames(wrong, 25)


def test_several_frames_need_a_rate() -> None:
    with pytest.raises(UsageError, match="`fps` is missing"):
        clip_of(FRAMES)
    assert clip_of(FRAMES[:1]).timestamps == (0,)
    assert clip_of(FRAMES, "30000/1001").timestamps[1] == Fraction(1001, 30000)
    for wrong in (0, -1, "abc", float("nan"), float("inf"), 1e9, True):
        with pytest.raises(UsageError, match="is no frame rate"):
            clip_of(FRAMES, wrong)


def test_a_clip_keeps_its_times_unless_there_is_a_rate() -> None:
    clip = Clip(FRAMES, (Fraction(1), Fraction(2), Fraction(4), Fraction(8)), Fraction(1))
    assert clip_of(clip) is clip
    assert clip_of(clip, 2).timestamps == (0, Fraction(1, 2), 1, Fraction(3, 2))


def test_a_clip_gets_a_video_of_its_own_length() -> None:
    clip = Clip.from_frames(FRAMES, 25)
    assert torch.equal(clip.with_video(clip.video()).frames, FRAMES)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        assert (clip.with_video(clip.video().to(kind)).frames.int() - FRAMES).abs().max() <= 1
    for wrong in (clip.video()[:, :, :3], clip.video().repeat(2, 1, 1, 1, 1), clip.video()[0]):
        with pytest.raises(UsageError, match=r"needs a video \(1, 3, 4, H, W\) in \[-1, 1\], not a tensor"):
            clip.with_video(wrong)
    for wrong, said in (
        (clip.video() * torch.nan, "with NaN"),
        ((clip.video() + 1) * 127.5, "with values up to 255"),
        (clip.video().byte(), "not a tensor of uint8"),
        (clip.video()[..., :0], r"\(1, 3, 4, 16, 0\)"),
        (clip.video().numpy(), "not a NumPy array of float32"),
        (None, "not a value of type NoneType"),
    ):
        with pytest.raises(UsageError, match=said):
            clip.with_video(wrong)


def test_a_clip_has_frames_and_pixels() -> None:
    for empty in (FRAMES[:0], FRAMES[:, :, :0], FRAMES[..., :0]):
        with pytest.raises(UsageError, match="a clip must have at least 1 frame and 1 pixel, not a tensor of uint8"):
            Clip.from_frames(empty, 25)


def test_clips_are_compared_by_identity() -> None:
    clip = Clip.from_frames(FRAMES, 25)
    assert clip == clip
    assert clip != Clip.from_frames(FRAMES, 25)
    assert clip in {clip}


def test_clips_and_readers_are_shown_in_one_line(tmp_path: Path) -> None:
    clip = Clip.from_frames(FRAMES, "30000/1001")
    assert repr(clip) == "Clip(4 frames, 24x16, 29.97 fps, 0.13 s)"
    write_video(tmp_path / "a.mp4", clip)
    shown = repr(VideoReader(tmp_path / "a.mp4"))
    assert shown == f"VideoReader('{tmp_path}/a.mp4', 24x16, 29.97 fps, 4 frames, h264)"
