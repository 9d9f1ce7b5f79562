"""What is recorded of a folder of results, and what of it survives."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.video.test_write_failures import files_limited_to
from vaectl.errors import VaectlError
from vaectl.evaluation.manifest import (
    MANIFEST,
    Manifest,
    ManifestClip,
    ManifestModel,
    open_journal,
    read_manifest,
    write_manifest,
)
from vaectl.evaluation.protocol import ClipProtocol

CLIPS = tuple(ManifestClip(name, f"{name}.mp4", (1, 2), f"{name}.mkv") for name in ("a", "b/c", "d"))
MANIFEST_OF_THREE = Manifest(
    {"vaectl": "1"},
    ManifestModel(None, "WFVAEModel", "ab" * 32, "cpu", "float32"),
    ClipProtocol(33, 1, 256, None),
    {"sample": False, "model": None},
    "/real",
    CLIPS,
)
DONE = replace(CLIPS[1], status="ok", frames=33, width=8, height=9, generated_bytes=10)
FAILED = replace(CLIPS[0], status="failed", reason="a.mp4: broken")


def test_what_was_written_is_read(tmp_path):
    write_manifest(tmp_path / "new", MANIFEST_OF_THREE)
    assert read_manifest(tmp_path / "new") == MANIFEST_OF_THREE
    assert json.loads((tmp_path / "new" / MANIFEST).read_text())["clips"][1]["name"] == "b/c"


def test_a_manifest_of_an_earlier_version_is_read(tmp_path):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    values = json.loads((tmp_path / MANIFEST).read_text())
    values["model"] = {name: values["model"][name] for name in ("path", "family", "fingerprint", "device", "dtype")}
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    assert read_manifest(tmp_path) == MANIFEST_OF_THREE


def test_a_folder_without_manifest_has_none(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "missing") is None


def test_journals_of_all_ranks_count_at_once_and_are_taken_over_in_the_end(tmp_path):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    with open_journal(tmp_path, 0) as first, open_journal(tmp_path, 1) as second:
        first.add(FAILED)
        second.add(DONE)
        manifest = read_manifest(tmp_path)  # nothing was closed yet: a killed process leaves as much
    assert manifest.clips == (FAILED, DONE, CLIPS[2])
    write_manifest(tmp_path, manifest)
    assert [file.name for file in tmp_path.iterdir()] == [MANIFEST]
    assert read_manifest(tmp_path) == manifest


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    with open_journal(tmp_path, 0) as journal:
        journal.add(DONE)
    (file,) = tmp_path.glob(".manifest-*")
    line = json.dumps(asdict(FAILED))
    for length in (0, 1, len(line) // 2, len(line)):
        with file.open("a") as opened:
            opened.write(line[:length])
        assert read_manifest(tmp_path).clips == (CLIPS[0], DONE, CLIPS[2])
        os.truncate(file, file.stat().st_size - length)


def test_names_that_are_no_text_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xff")
    odd = replace(
        MANIFEST_OF_THREE, clips=(replace(CLIPS[0], name=name, source=f"{name}.mp4", generated=f"{name}.mkv"),)
    )
    write_manifest(tmp_path, odd)
    assert read_manifest(tmp_path) == odd
    with open_journal(tmp_path, 0) as journal:
        journal.add(replace(odd.clips[0], status="ok"))
    assert read_manifest(tmp_path).clips[0].status == "ok"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"clips": 3}', "\0\xff"])
def test_a_manifest_that_says_nothing_is_one_line(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(VaectlError, match=r"manifest\.json: not a readable manifest .*; remove it") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)


JUNK = [
    b"junk\n",
    b"[]\n",
    b"{}\n",
    b"null\n",
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"\0" * 3_000_000 + b"\n",
    json.dumps(asdict(FAILED) | {"frames": "many"}).encode() + b"\n",
    json.dumps(asdict(FAILED) | {"source_stamp": 3}).encode() + b"\n",
    json.dumps(asdict(FAILED) | {"generated": "../../a.mkv"}).encode() + b"\n",
    json.dumps(asdict(FAILED) | {"status": "fine"}).encode() + b"\n",
    b'{"name": "a", "frames": ' + b"1" * 5000 + b"}\n",
]


@pytest.mark.parametrize("junk", JUNK)
def test_a_bad_line_of_a_journal_means_that_clip_is_made_again(tmp_path, junk):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    with open_journal(tmp_path, 0) as journal:
        journal.add(DONE)
    (file,) = tmp_path.glob(".manifest-*")
    file.write_bytes(junk + file.read_bytes() + junk)
    assert read_manifest(tmp_path).clips == (CLIPS[0], DONE, CLIPS[2])


def spoilt(**change: object) -> object:
    return asdict(replace(CLIPS[0], status="ok")) | change


@pytest.mark.parametrize("entry", [spoilt(frames="x"), spoilt(source_stamp=[1]), spoilt(status=7), spoilt(reason={})])
def test_a_bad_entry_of_a_manifest_counts_as_not_made(tmp_path, entry):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    values = json.loads((tmp_path / MANIFEST).read_text())
    values["clips"][0] = entry
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    first, *others = read_manifest(tmp_path).clips
    assert (first.name, first.generated, first.status) == ("a", "a.mkv", "waiting")
    assert tuple(others) == CLIPS[1:]


@pytest.mark.parametrize(
    "entry",
    [
        *(3, None, [], {}, spoilt(name=3), spoilt(generated="/etc/passwd"), spoilt(source="..")),
        *(spoilt(generated="n" * 300), spoilt(generated="\ud800"), spoilt(source="a\0b")),
    ],
)
def test_an_entry_without_a_place_is_dropped(tmp_path, entry):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    values = json.loads((tmp_path / MANIFEST).read_text())
    values["clips"][0] = entry
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    assert read_manifest(tmp_path).clips == CLIPS[1:]


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": None},
        {"protocol": {"num_frames": 10**12, "sample_rate": 1, "resolution": 256, "crop_size": None}},
        {"protocol": {"num_frames": -1, "sample_rate": 1, "resolution": 256, "crop_size": None}},
        {"protocol": {"num_frames": 33, "sample_rate": 1, "resolution": 10**9, "crop_size": None}},
        {"model": [1]},
        {"model": {**vars(MANIFEST_OF_THREE.model), "temporal_compression": 0}},
        {"versions": 3},
        {"options": []},
        {"real_video_dir": None},
        {"clips": {}},
    ],
)
def test_a_manifest_of_other_types_is_one_line(tmp_path, change):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    values = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(values | change))
    with pytest.raises(VaectlError, match=r"manifest\.json: not a readable manifest .*; remove it") as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere")]
)
def test_a_manifest_that_is_no_file_is_one_line(tmp_path, make):
    make(tmp_path / MANIFEST)
    with pytest.raises(VaectlError, match="not a readable manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_journal_that_is_no_file_is_one_line(tmp_path, make):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    make(tmp_path / ".manifest-0.jsonl")
    with pytest.raises(VaectlError, match=r"\.manifest-0\.jsonl: is not an ordinary file"):
        read_manifest(tmp_path)
    with pytest.raises(VaectlError, match=r"\.manifest-0\.jsonl: "), open_journal(tmp_path, 0):
        pass


def test_a_full_disk_is_blamed_on_the_manifest(tmp_path):
    write_manifest(tmp_path, MANIFEST_OF_THREE)
    before = (tmp_path / MANIFEST).read_bytes()
    with files_limited_to(100):
        with pytest.raises(VaectlError, match=r"manifest\.json: writing failed \(File too large\); free space"):
            write_manifest(tmp_path, MANIFEST_OF_THREE)
        with (
            pytest.raises(VaectlError, match=r"\.manifest-0\.jsonl: writing failed \(File too large\); free space"),
            open_journal(tmp_path, 0) as journal,
        ):
            journal.add(DONE)
    assert (tmp_path / MANIFEST).read_bytes() == before
