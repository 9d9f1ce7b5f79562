"""Samples by their number: repeatable, exact, weighted, and something in place of what cannot be read."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobs import Listener
from tests.video.media import animation, encode, number_of, numbered_images

from vaectl.data import ClipDataset, Sampling, Source, metadata_cache, open_dataset
from vaectl.data import dataset as module
from vaectl.data.dataset import Failures
from vaectl.data.sampling import place
from vaectl.errors import UsageError, VaectlError
from vaectl.video import read_video
from vaectl.video.transform import scale_and_crop


def opened(
    *sources: Path | Source, listener: Listener | None = None, strict: bool = False, **sampling: Any
) -> ClipDataset:
    chosen = Sampling(**{"num_frames": 5, "resolution": 48, **sampling})
    listed = [Source(source) if isinstance(source, Path) else source for source in sources]
    return open_dataset(listed, chosen, strict=strict, progress=listener or Listener())


def names(dataset: ClipDataset, numbers: range) -> list[str]:
    return [dataset.path(number, Failures()).name for number in numbers]


def test_each_video_once_an_epoch_in_an_order_of_its_own(videos: Path) -> None:
    dataset = opened(videos)
    assert len(dataset) == 5
    epochs = [tuple(names(dataset, range(5 * epoch, 5 * epoch + 5))) for epoch in range(30)]
    assert all(set(epoch) == {"a.mp4", "x.mkv", "old.avi", "portrait.mov", "日本.webm"} for epoch in epochs)
    assert len(set(epochs)) > 15
    assert epochs[0] != tuple(names(opened(videos, seed=1), range(5)))


def test_a_sample_is_what_reading_in_order_gives(videos: Path) -> None:
    dataset = opened(videos, sample_rate=3, dynamic_sample=True, random_crop=True, flip=True, resolution=40)
    seen = set()
    for number in range(25):
        sample = dataset.clip(number)
        whole = read_video(Path(sample.source)).frames
        where = place(dataset.draw(number), dataset.sampling, len(whole))
        frames = scale_and_crop(whole[where.start :: where.sample_rate][:5], 40, 40, where.at)
        frames = frames.flip(-1) if where.flip else frames
        assert sample.frames.shape == (5, 3, 40, 40)
        assert sample.frames.is_contiguous()
        # 8-bit arithmetic is one level off at most.
        assert (sample.frames.int() - frames.int()).abs().max() <= 1
        assert (sample.number, sample.replaced) == (number, None)
        seen.add((where.sample_rate, where.flip))
    assert seen == {(rate, flip) for rate in (1, 2, 3) for flip in (False, True)}


def test_a_smaller_crop_is_cut_out_of_the_same_frames(videos: Path) -> None:
    given: dict[str, Any] = {"sample_rate": 2, "random_crop": True, "resolution": 64}
    whole, part = opened(videos, **given), opened(videos, **given, crop_size=24)
    for number in range(10):
        sample = part.clip(number)
        frames = read_video(Path(sample.source)).frames
        where = place(part.draw(number), part.sampling, len(frames))
        expected = scale_and_crop(frames[where.start :: where.sample_rate][:5], 64, 24, where.at)
        assert sample.frames.shape == (5, 3, 24, 24)
        assert (sample.frames.int() - expected.int()).abs().max() <= 1
        assert sample.source == whole.clip(number).source


def test_a_sample_in_the_size_of_its_video_is_exact(tmp_path: Path) -> None:
    encode(tmp_path / "a.mkv", 30, codec="ffv1", pix_fmt="bgr0", size=(48, 48))
    dataset = opened(tmp_path, sample_rate=2)
    whole = read_video(tmp_path / "a.mkv").frames
    for number in range(5):
        frames = dataset.clip(number).frames
        first = number_of(frames[0])
        assert torch.equal(frames, whole[first : first + 9 : 2])


def test_real_clips(samples: Path) -> None:
    """Long runs without keyframes, and more than one batch of decoding."""
    dataset = opened(samples, num_frames=17, resolution=64)
    assert len(dataset) == 4
    for number in range(4):
        sample = dataset.clip(number)
        where = place(dataset.draw(number), dataset.sampling, len(read_video(Path(sample.source)).timestamps))
        frames = scale_and_crop(read_video(Path(sample.source), where.start, 17).frames, 64, 64)
        difference = sample.frames.float() - frames.float()
        assert difference.abs().max() <= 1
        assert difference.mean().abs() < 0.02


def test_samples_do_not_depend_on_what_was_read_before(videos: Path, tmp_path: Path) -> None:
    dataset = opened(videos, random_crop=True)
    forwards = [dataset.clip(number).frames for number in range(12)]
    shutil.copytree(videos, tmp_path / "elsewhere")
    moved = opened(tmp_path / "elsewhere", random_crop=True)
    for number in reversed(range(12)):
        assert torch.equal(moved.clip(number).frames, forwards[number])


def test_few_indexes_are_kept(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaectl.data.clip_reader._MAX_INDEXED_FRAMES", 80)
    dataset = opened(videos)
    expected = [opened(videos).clip(number).frames for number in range(10)]
    for number in range(10):
        assert torch.equal(dataset.clip(number).frames, expected[number])
        kept = [frames for _, frames in dataset._clip_reader._readers.values()]
        assert sum(kept) == dataset._clip_reader._indexed <= 80


def test_images_are_used_for_samples_of_one_frame(videos: Path) -> None:
    encode(videos / "photo.png", 1, codec="png", pix_fmt="rgb24")
    assert "photo.png" in names(opened(videos, num_frames=1), range(6))
    listener = Listener()
    assert len(opened(videos, num_frames=5, listener=listener)) == 5
    (warning,) = listener.warnings
    assert warning.startswith(f"{videos}: 1 of 6 videos are shorter than the 5 frames")


def is_a_part_of(frames: torch.Tensor, path: Path) -> bool:
    """Whether these are five successive frames of the video, cropped."""
    whole = scale_and_crop(read_video(path).frames, 48, 48, exact=False)
    return any(torch.equal(frames, part) for part in whole.unfold(0, 5, 1).movedim(-1, 1))


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_an_animation_is_a_video_and_a_still_is_not(tmp_path: Path, extension: str) -> None:
    animation(tmp_path / f"a.{extension}", 9)
    animation(tmp_path / f"still.{extension}", 1)
    listener = Listener()
    dataset = opened(tmp_path, listener=listener)
    assert names(dataset, range(3)) == [f"a.{extension}"] * 3
    assert listener.warnings[0].startswith(f"{tmp_path}: 1 of 2 videos are shorter than the 5 frames")
    assert is_a_part_of(dataset.clip(0).frames, tmp_path / f"a.{extension}")
    assert len(opened(tmp_path, animate_images=True)) == 2


def test_numbered_images_are_one_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = numbered_images(tmp_path / "frames" / "%03d.png", range(1, 10))
    dataset = opened(path)
    assert (len(dataset), dataset.path(0, Failures())) == (1, path)
    assert is_a_part_of(dataset.clip(3).frames, path)
    before = dataset.fingerprint
    with monkeypatch.context() as patched:
        patched.setattr(metadata_cache, "_facts", lambda path: f"{path}: is opened again")
        assert opened(path).fingerprint == before
    os.utime(tmp_path / "frames" / "004.png", (2e9, 2e9))
    assert opened(path).fingerprint != before


def test_a_folder_of_numbered_images_alone_is_answered_with_their_pattern(tmp_path: Path) -> None:
    numbered_images(tmp_path / "%02d.png", range(1, 13))
    with pytest.raises(UsageError) as error:
        opened(tmp_path)
    assert error.value.remedy.endswith(f", and `video_path={tmp_path}/%02d.png` is one video of them")


def two_trees(videos: Path) -> tuple[Path, Path]:
    return videos / "a:b", videos / "sub"


def test_without_weights_several_sources_are_one(videos: Path) -> None:
    one, three = two_trees(videos)
    counts = Counter(names(opened(one, three), range(400)))
    assert counts == dict.fromkeys(["x.mkv", "old.avi", "portrait.mov", "日本.webm"], 100)


def test_weights_are_shares(videos: Path) -> None:
    one, three = two_trees(videos)
    dataset = opened(Source(one, 3.0), Source(three, 1.0))
    assert len(dataset) == 4
    counts = Counter(names(dataset, range(1200)))
    assert counts == {"x.mkv": 900, "old.avi": 100, "portrait.mov": 100, "日本.webm": 100}
    # However small its weight, a source is not forgotten.
    assert "x.mkv" in names(opened(Source(one, 1e-9), Source(three, 1.0)), range(4))


def test_with_a_small_share_each_video_still_comes_before_any_comes_again(videos: Path) -> None:
    one, three = two_trees(videos)
    dataset = opened(Source(one, 3.0), Source(three, 1.0))
    drawn = [name for name in names(dataset, range(4 * 12)) if name != "x.mkv"]
    for turn in range(4):
        assert len(set(drawn[3 * turn : 3 * turn + 3])) == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [((1.0, None), "one to each or to none"), ((1.0, 0.0), "above 0"), ((1.0, float("inf")), "finite")],
)
def test_wrong_weights(videos: Path, weights: tuple[float | None, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(*(Source(videos, weight) for weight in weights))


def test_the_fingerprint_follows_the_files_and_not_their_place(videos: Path, tmp_path: Path) -> None:
    first = opened(videos).fingerprint
    assert opened(videos).fingerprint == first
    videos.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert opened(moved).fingerprint == first
    (moved / "notes.txt").touch()
    (moved / "broken.mp4").write_text("nothing")
    assert opened(moved).fingerprint == first
    seen = {first}

    def changed() -> bool:
        fingerprint = opened(moved).fingerprint
        new = fingerprint not in seen
        seen.add(fingerprint)
        return new

    os.utime(moved / "a.mp4", (1, 1))
    assert changed()
    (moved / "a.mp4").rename(moved / "b.mp4")
    assert changed()
    shutil.copy(moved / "b.mp4", moved / "c.mp4")
    assert changed()
    (moved / "c.mp4").unlink()
    assert not changed()
    (moved / "b.mp4").unlink()
    assert changed()
    assert opened(moved, moved).fingerprint not in seen


def test_what_is_left_out_is_told_once_and_counted(videos: Path) -> None:
    for i in range(25):
        (videos / f"broken{i:02d}.mp4").write_text("nothing")
    encode(videos / "short.mp4", 8)
    listener = Listener()
    dataset = opened(videos, num_frames=5, sample_rate=2, listener=listener)
    assert len(dataset) == 5
    assert [warning.split(" ")[0] for warning in listener.warnings[:20]] == [
        f"{videos}/broken{i:02d}.mp4" for i in range(20)
    ]
    assert listener.warnings[20:] == [
        f"{videos}: 25 of 31 videos cannot be read and are skipped (5 of them are not listed)",
        f"{videos}: 1 of 6 videos are shorter than the 9 frames that 5 at a sample rate of 2 need, and are skipped",
    ]
    assert len(opened(videos, num_frames=5, sample_rate=2, dynamic_sample=True)) == 6


def test_what_leaves_nothing_is_an_error(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        opened(videos, num_frames=17, sample_rate=4)
    assert str(caught.value) == (
        f"{videos}: all 5 videos are shorter than the 65 frames that 17 at a sample rate of 4 need"
        " (the longest has 40); lower `num_frames` or `sample_rate`"
    )
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.mp4").write_text("nothing")
    (broken / "b.mp4").touch()
    with pytest.raises(VaectlError) as caught_error:
        opened(broken)
    assert str(caught_error.value).startswith(
        f"{broken}: 2 of 2 videos cannot be read; the first: {broken}/a.mp4 is not"
    )
    # One empty source beside a good one is a mistake too.
    with pytest.raises(VaectlError, match="2 of 2 videos cannot be read"):
        opened(videos, broken)


def test_strict_stops_at_the_first_unreadable_video(videos: Path) -> None:
    opened(videos, strict=True)
    (videos / "broken.mp4").write_text("nothing")
    with pytest.raises(VaectlError, match=r"1 of 6 videos cannot be read; the first: .*broken\.mp4"):
        opened(videos, strict=True)


def test_another_video_stands_in_for_one_that_cannot_be_read_any_more(videos: Path) -> None:
    dataset = opened(videos)
    before = [dataset.clip(number) for number in range(20)]
    (videos / "a.mp4").unlink()
    os.truncate(videos / "sub" / "portrait.mov", (videos / "sub" / "portrait.mov").stat().st_size // 2)
    encode(videos / "sub" / "old.avi", 4, codec="mpeg4")
    lost = {"a.mp4": "No such file or directory", "portrait.mov": "is not a video", "old.avi": "has 4 frames"}
    for old in before:
        new = dataset.clip(old.number)
        name = Path(old.source).name
        if name not in lost:
            assert torch.equal(new.frames, old.frames)
            assert new.replaced is None
            continue
        assert new.replaced
        assert new.replaced.startswith(old.source)
        assert lost[name] in new.replaced
        assert f"; {new.source} replaces it" in new.replaced
        assert "\n" not in new.replaced
        assert Path(new.source).name in ("x.mkv", "日本.webm")
        assert torch.equal(dataset.clip(old.number).frames, new.frames)


def test_when_nothing_can_be_read_any_more_the_run_ends(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(videos)
    shutil.rmtree(videos)
    with pytest.raises(VaectlError, match=r"6 videos in a row cannot be read; the first: /.*\(No such file"):
        dataset.clip(0)
    monkeypatch.setattr(module, "_MAX_ATTEMPTS", 3)
    with pytest.raises(VaectlError, match="4 videos in a row cannot be read"):
        dataset.clip(0)


def test_every_video_is_tried_before_the_run_ends(videos: Path) -> None:
    dataset = opened(videos)
    keep = videos / "a:b" / "x.mkv"
    for file in videos.rglob("*.*"):
        if file.is_file() and file != keep:
            file.unlink()
    for number in range(10):
        assert dataset.clip(number).source == str(keep)


def test_strict_ends_the_run_at_a_video_that_disappears(videos: Path) -> None:
    dataset = opened(videos, strict=True)
    shutil.rmtree(videos)
    with pytest.raises(VaectlError, match="No such file"):
        dataset.clip(0)
