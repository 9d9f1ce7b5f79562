"""The facts of a tree, kept between runs: complete, refreshed, and never in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.jobs import Listener
from tests.video.media import cut, encode

from vaectl.data import metadata_cache as module
from vaectl.data.metadata_cache import Facts, scan_videos
from vaectl.errors import UsageError


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened."""
    names: list[str] = []
    look = module._facts

    def watch(path: Path) -> Any:
        names.append(path.name)
        return look(path)

    monkeypatch.setattr(module, "_facts", watch)
    return names


def cache_file(cache: Path) -> Path:
    (file,) = (cache / "vaectl" / "videos").iterdir()
    return file


def test_every_video_with_its_facts(videos: Path) -> None:
    listener = Listener()
    found = scan_videos(videos, listener)
    assert found.folder == videos
    assert {name: facts[2:] for name, facts in found.videos.items()} == {
        "a.mp4": (64, 48, 40, "25"),
        "a:b/x.mkv": (64, 48, 35, "25"),
        "sub/old.avi": (64, 48, 24, "25"),
        "sub/portrait.mov": (48, 80, 30, "25"),
        "sub/súb süb/日本.webm": (64, 48, 30, "25"),
    }
    assert found.videos["a.mp4"].size == (videos / "a.mp4").stat().st_size
    assert listener.clips == [(f"{videos}: scanning videos", 5, 5)]
    assert not listener.warnings


def test_a_file_alone(videos: Path) -> None:
    found = scan_videos(videos / "a.mp4", Listener())
    assert (found.folder, list(found.videos)) == (videos, ["a.mp4"])


def test_images_are_videos_of_one_frame(tmp_path: Path) -> None:
    encode(tmp_path / "a.png", 1, codec="png", pix_fmt="rgb24")
    assert scan_videos(tmp_path, Listener()).videos["a.png"][2:] == (64, 48, 1, "1")


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+empty_moov"])
def test_a_header_that_counts_only_the_first_fragment_is_not_believed(tmp_path: Path, flags: str) -> None:
    encode(tmp_path / "a.mp4", 40, options={"g": "8"}, container_options={"movflags": flags})
    assert scan_videos(tmp_path, Listener()).videos["a.mp4"].num_frames == 40


def test_a_second_look_opens_nothing_and_finds_the_same(videos: Path, looked_at: list[str]) -> None:
    first = scan_videos(videos, Listener())
    assert len(looked_at) == 5
    assert scan_videos(videos, Listener()) == first
    assert scan_videos(Path(os.path.relpath(videos)), Listener()).videos == first.videos  # another way to say it
    assert len(looked_at) == 5


def test_only_what_changed_is_looked_at_again(videos: Path, looked_at: list[str], cache: Path) -> None:
    scan_videos(videos, Listener())
    looked_at.clear()
    status = (videos / "a.mp4").stat()
    os.utime(videos / "a.mp4", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (videos / "sub" / "old.avi").unlink()
    encode(videos / "new.mp4", 12)
    found = scan_videos(videos, Listener())
    assert sorted(looked_at) == ["a.mp4", "new.mp4"]
    assert list(found.videos) == ["a.mp4", "a:b/x.mkv", "new.mp4", "sub/portrait.mov", "sub/súb süb/日本.webm"]
    assert found.videos["new.mp4"].num_frames == 12
    assert b"old.avi" not in cache_file(cache).read_bytes()


def test_what_cannot_be_read_is_told_and_looked_at_again(videos: Path, looked_at: list[str]) -> None:
    (videos / "text.mp4").write_text("not a video")
    (videos / "empty.mp4").touch()
    cut(videos / "sub" / "portrait.mov", 0.5)
    shutil.copy(videos / "a:b" / "x.mkv", videos / "cut.mkv")
    os.truncate(videos / "cut.mkv", (videos / "cut.mkv").stat().st_size - 100)
    (videos / "gone.mp4").symlink_to(videos / "nowhere")
    found = scan_videos(videos, Listener())
    assert list(found.unreadable) == ["cut.mkv", "empty.mp4", "gone.mp4", "sub/cut0.5_portrait.mov", "text.mp4"]
    for name, reason in found.unreadable.items():
        assert str(videos / name) in reason
        assert "\n" not in reason
    assert len(found.videos) == 5
    looked_at.clear()
    again = scan_videos(videos, Listener())
    assert again == found
    assert len(looked_at) == 5
    shutil.copy(videos / "a.mp4", videos / "text.mp4")
    assert "text.mp4" in scan_videos(videos, Listener()).videos


@pytest.mark.parametrize("damage", [b"", b"junk", b"\x80\x04pickle?\n{}"])
def test_a_damaged_cache_is_made_anew_and_said(videos: Path, cache: Path, damage: bytes) -> None:
    first = scan_videos(videos, Listener())
    file = cache_file(cache)
    whole = file.read_bytes()
    file.write_bytes(damage or whole[:-20])
    listener = Listener()
    assert scan_videos(videos, listener) == first
    (warning,) = listener.warnings
    assert warning == f"{file}: is damaged; scanning all videos again"
    assert file.read_bytes() == whole


def test_a_cache_of_another_version_is_made_anew(videos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan_videos(videos, Listener())
    monkeypatch.setattr(module, "_VERSION", module._VERSION + 1)
    listener = Listener()
    assert scan_videos(videos, listener) == first
    assert listener.clips[0][1] == 5
    assert not listener.warnings


def test_a_cache_that_cannot_be_written_costs_a_warning(videos: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    listener = Listener()
    assert len(scan_videos(videos, listener).videos) == 5
    (warning,) = listener.warnings
    assert str(cache) in warning
    assert warning.endswith("choose another folder with XDG_CACHE_HOME, or each start scans all videos again")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="full disk: needs /dev/full, which Linux has")
def test_a_full_disk_keeps_the_old_cache(videos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan_videos(videos, Listener())
    before = cache_file(cache).read_bytes()
    encode(videos / "new.mp4", 12)
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda _path, data: write(Path("/dev/full"), data))
    listener = Listener()
    assert len(scan_videos(videos, listener).videos) == 6
    assert "writing failed (No space left on device); free space or choose another place with" in listener.warnings[0]
    assert cache_file(cache).read_bytes() == before


def test_what_was_found_is_kept_when_looking_is_interrupted(
    videos: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(Listener):
        def advance(self, frames: int) -> None:
            super().advance(frames)
            if self._clip and self._clip[2] == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_videos(videos, Impatient())
    looked_at.clear()
    listener = Listener()
    assert len(scan_videos(videos, listener).videos) == 5
    assert len(looked_at) == 2


def test_a_video_that_breaks_its_decoder_is_unreadable(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = module.probe

    def break_on_avi(path: Path) -> Any:
        if path.suffix == ".avi":
            raise MemoryError("200 GB of nothing")
        return probe(path)

    monkeypatch.setattr(module, "probe", break_on_avi)
    reasons = scan_videos(videos, Listener()).unreadable
    assert list(reasons.values()) == [f"{videos}/sub/old.avi: cannot be read (MemoryError: 200 GB of nothing)"]


def test_names_that_are_no_text(videos: Path, looked_at: list[str]) -> None:
    shutil.copy(videos / "a.mp4", os.fsencode(videos) + b"/\xff\xfe.mp4")
    first = scan_videos(videos, Listener())
    assert "\udcff\udcfe.mp4" in first.videos
    looked_at.clear()
    assert scan_videos(videos, Listener()) == first
    assert not looked_at


def test_processes_that_write_at_the_same_time(videos: Path, cache: Path) -> None:
    """Each begins anew again and again; nobody ever meets half a file."""
    code = f"""
from pathlib import Path
from tests.jobs import Listener
from vaectl.data.metadata_cache import scan_videos
listener = Listener()
for _ in range(15):
    for file in Path({str(cache)!r}).rglob("[!.]*.json"):
        file.unlink(missing_ok=True)
    assert len(scan_videos(Path({str(videos)!r}), listener).videos) == 5
print(listener.warnings)
"""
    root = Path(__file__).parents[2]
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) for _ in range(2)]
    assert [run.communicate()[0] for run in runs] == [b"[]\n", b"[]\n"]
    listener = Listener()
    scan_videos(videos, listener)
    assert not listener.warnings
    assert [file.suffix for file in (cache / "vaectl" / "videos").iterdir()] == [".json"]


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        scan_videos(tmp_path / "missing", Listener())
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="no videos or images in this folder"):
        scan_videos(tmp_path, Listener())


def test_many_files_are_handed_out_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of them at once would be a gigabyte of promises; and the order stays."""
    asked: list[int] = []

    def paths() -> Iterator[Path]:
        for i in range(1000):
            asked.append(i)
            yield tmp_path / str(i)

    monkeypatch.setattr(module, "_facts", lambda path: Facts(int(path.name), 0, 1, 1, 1, "1"))
    found = module._probe_all(paths())
    assert next(found) == Facts(0, 0, 1, 1, 1, "1")
    assert len(asked) == module._FILES_PER_BATCH
    assert [facts.size for facts in found if isinstance(facts, Facts)] == list(range(1, 1000))
