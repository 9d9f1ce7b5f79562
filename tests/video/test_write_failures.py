"""A file is written completely or not at all. A failure leaves no temporary file and loses no existing one."""

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vaectl.errors import UsageError, VaectlError
from vaectl.video import Clip, read_video
from vaectl.video.write import VideoWriter, write_video


def noise(frames: int = 12, size: int = 128) -> Clip:
    pictures = torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8)
    return Clip(pictures, tuple(Fraction(i, 25) for i in range(frames)), Fraction(25))


def writer_for(path: Path, clip: Clip, **options: bool) -> VideoWriter:
    return VideoWriter(path, width=128, height=128, frame_rate=clip.frame_rate, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Simulate a full disk: files cannot grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.mov", "a.gif"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    for limit in (0, 100, 50_000):  # in the header; at the end; in the middle
        with files_limited_to(limit), pytest.raises(VaectlError) as caught:
            write_video(tmp_path / name, noise(), overwrite=True)
        assert str(caught.value).startswith(f"{tmp_path / name}: writing failed (File too large)")
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == [name]
        assert (tmp_path / name).read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff"])
def test_a_full_disk_leaves_no_image_behind(tmp_path: Path, name: str) -> None:
    with files_limited_to(1000), pytest.raises(VaectlError, match="writing failed"):
        write_video(tmp_path / name, noise(1))
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_leaving_early_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"precious")

    def write_and_leave() -> None:
        with writer_for(tmp_path / "a.mp4", noise(), overwrite=True) as writer:
            writer.write(noise())
            assert len(names(tmp_path)) == 2
            raise error

    with pytest.raises(error):
        write_and_leave()
    assert names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


def test_an_interrupt_while_the_file_is_completed_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", noise())
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_put_in_place_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(VaectlError, match=r"a.mp4: cannot be completed \(Operation not permitted\)"):
        write_video(tmp_path / "a.mp4", noise())
    assert names(tmp_path) == []


def test_a_target_is_replaced_only_when_asked(tmp_path: Path) -> None:
    clip = noise()
    write_video(tmp_path / "a.mp4", clip)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(UsageError, match=r"a.mp4: exists already; pass `overwrite`"):
        write_video(tmp_path / "a.mp4", noise(3))
    assert (tmp_path / "a.mp4").read_bytes() == before
    write_video(tmp_path / "a.mp4", noise(3), overwrite=True)
    assert len(read_video(tmp_path / "a.mp4")) == 3


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:

    def write_and_be_overtaken() -> None:
        with writer_for(tmp_path / "a.mp4", noise()) as writer:
            writer.write(noise())
            (tmp_path / "a.mp4").write_bytes(b"precious")

    with pytest.raises(UsageError, match="exists already"):
        write_and_be_overtaken()
    assert names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for target, message in {
        "folder.mp4": "is a folder; name a file",
        "file/a.mp4": r"cannot write there \((Not a directory|File exists)\)",
        "a.xyz": r"no encoder for \.xyz; use \.mp4, \.mkv or \.png",
        "a": "no encoder for a name without extension",
        "a.avi": r"no encoder for \.avi",
    }.items():
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=message):
                write_video(tmp_path / target, noise(), overwrite=overwrite)
    for name in ("a.gif", "a.jpg"):
        with pytest.raises(UsageError, match="cannot be lossless"):
            write_video(tmp_path / name, noise(1), lossless=True)
    assert names(tmp_path) == ["file", "folder.mp4"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_an_ordinary_file_is_ever_replaced(tmp_path: Path, overwrite: bool) -> None:
    """As root, `/dev/stdout` itself could be replaced: a link to a pipe, a terminal, or a file through `/proc`."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("pipe.mp4")
    os.mknod(tmp_path / "socket.mp4", stat.S_IFSOCK)
    with (tmp_path / "a.mp4").open("wb") as redirected:
        (tmp_path / "stdout.mp4").symlink_to(f"/proc/self/fd/{redirected.fileno()}")
        before = names(tmp_path)
        for name in ("pipe.mp4", "link.mp4", "socket.mp4", "stdout.mp4"):
            with pytest.raises(UsageError) as caught:
                write_video(tmp_path / name, noise(), overwrite=overwrite)
            assert str(caught.value) == f"{tmp_path / name}: is a device, pipe or socket; name a file"
        assert names(tmp_path) == before
        assert (tmp_path / "pipe.mp4").is_fifo()
        assert all((tmp_path / name).is_symlink() for name in ("link.mp4", "stdout.mp4"))


def test_a_failure_leaves_no_new_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new/folders/a.mp4", "old/a.mp4"):
        with pytest.raises(ZeroDivisionError), writer_for(tmp_path / name, noise()):
            1 / 0  # noqa: B018
    assert names(tmp_path) == ["old"]


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UsageError, match=r"a.mp4: cannot write there \(Permission denied\); choose another folder"):
        write_video(tmp_path / "a.mp4", noise())


def test_odd_names_and_missing_folders(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "%03d.png", "http:x/a b.mkv", "x" * 250 + ".mp4", "ü.MP4", "-i.gif"):
        write_video(tmp_path / "new" / "folders" / name, noise(1))
        assert len(read_video(tmp_path / "new" / "folders" / name)) == 1


def test_no_frames_make_no_file(tmp_path: Path) -> None:
    with pytest.raises(VaectlError, match="not written: only 0 frames came"), writer_for(tmp_path / "a.mp4", noise()):
        pass
    clip = noise()
    with (
        pytest.raises(VaectlError, match="only 5 frames came"),
        VideoWriter(
            tmp_path / "a.mp4", width=128, height=128, frame_rate=clip.frame_rate, timestamps=clip.timestamps
        ) as writer,
    ):
        writer.write(Clip(clip.frames[:5], clip.timestamps[:5], clip.frame_rate))
    assert names(tmp_path) == []


def test_sizes_beyond_the_codec_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(VaectlError) as caught:
        VideoWriter(tmp_path / "a.mp4", width=20000, height=16, frame_rate=Fraction(25))
    assert str(caught.value).startswith(f"{tmp_path / 'a.mp4'}: libx264 cannot code 20000x16 (")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []
