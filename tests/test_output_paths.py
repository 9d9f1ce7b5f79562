"""Output paths of `vaectl reconstruct`: trees are mirrored, no two results share a path, no existing file is lost."""

import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.jobs import Listener, files, run, run_one
from tests.video.media import animation, encode, number_of, numbered_images
from vaectl.errors import UsageError, VaectlError
from vaectl.io.output_paths import mirror
from vaectl.options import ReconstructOptions
from vaectl.reconstruction.plan import RECORD, plan_output_paths
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def planned(sources: str | tuple[str, ...], target: str, **options) -> dict[str, str]:
    given = tuple(map(Path, [sources] if isinstance(sources, str) else sources))
    pairs = plan_output_paths(ReconstructOptions(video_path=given, rec_path=Path(target), **options))
    return {str(source): str(target) for source, target in pairs}


def test_a_tree_is_mirrored(here):
    touch("in/a.mp4", "in/b/c.MOV", "in/b/d/e.jpeg", "in/f.gif", "in/g.apng", "in/notes.txt", "in/.hidden.mp4")
    assert planned("in", "out/deep") == {
        "in/a.mp4": "out/deep/a.mp4",
        "in/b/c.MOV": "out/deep/b/c.mp4",
        "in/b/d/e.jpeg": "out/deep/b/d/e.png",
        "in/f.gif": "out/deep/f.mp4",
        "in/g.apng": "out/deep/g.png",
    }
    lossless = planned("in", "out", lossless=True)
    assert (lossless["in/a.mp4"], lossless["in/b/d/e.jpeg"]) == ("out/a.mkv", "out/b/d/e.png")


def test_an_animation_becomes_a_video_whatever_its_extension(here):
    Path("in").mkdir()
    for name in ("a.png", "b.apng", "c.webp"):
        animation(Path("in", name), 3, **({"format": "PNG"} if name == "b.apng" else {}))
    animation(Path("in/d.png"), 1)
    animation(Path("in/e.gif"), 1)
    animation(Path("in/f.gif"), 3)
    assert planned("in", "out") == {
        "in/a.png": "out/a.mp4",
        "in/b.apng": "out/b.mp4",
        "in/c.webp": "out/c.mp4",
        "in/d.png": "out/d.png",
        "in/e.gif": "out/e.png",
        "in/f.gif": "out/f.mp4",
    }
    assert planned("in/c.webp", "out", lossless=True) == {"in/c.webp": "out/c.mkv"}
    result = run(Path("in"), Path("out"), listener := Listener(), num_frames=9)
    assert [warning.split(":")[0] for warning in listener.warnings] == [
        "in/a.png",
        "in/b.apng",
        "in/c.webp",
        "in/f.gif",
    ]
    with pytest.raises(VaectlError, match=r"in/d\.png: gives 1 of the 9 frames asked for"):
        run(Path("in/d.png"), Path("strict.png"), num_frames=9, strict=True)
    assert [(clip.target.name, clip.num_frames, clip.error) for clip in result.clips] == [
        *((name, 3, None) for name in ("a.mp4", "b.mp4", "c.mp4")),
        *((name, 1, None) for name in ("d.png", "e.png")),
        ("f.mp4", 3, None),
    ]
    assert read_video("out/c.mp4").timestamps == (0, Fraction(1, 25), Fraction(2, 25))


def test_numbered_images_become_one_video(here):
    numbered_images(Path("frames/%03d.png"), range(1, 13))
    assert planned("frames/%03d.png", "out") == {"frames/%03d.png": "out/frames.mp4"}
    assert planned("frames/%03d.png", "rec.mkv") == {"frames/%03d.png": "rec.mkv"}
    with pytest.raises(UsageError, match=r"004\.png: is an input of this run"):
        planned("frames/%03d.png", "frames/004.png", overwrite=True)
    assert run_one(Path("frames/%03d.png"), Path("out"), fps=Fraction(50), lossless=True).num_frames == 12
    clip = read_video("out/frames.mkv")
    assert (clip.timestamps[11], clip.frame_rate) == (Fraction(11, 50), 50)
    with pytest.raises(UsageError, match=r"for one video of these images, give `video_path=frames/%03d\.png`"):
        planned("frames", "rec.mp4")
    listener = Listener()
    run(Path("frames"), Path("stills"), listener)
    (note,) = listener.notes
    assert note == "frames: its 12 numbered images are stills; for one video of them, give `video_path=frames/%03d.png`"


def test_no_two_sources_meet_in_one_target(here):
    touch(
        "in/a.mp4", "in/a.avi", "in/a.avi.mov", "in/a.png", "in/a.jpg", "in/b/a.mp4", "in/A.mp4", "in/x.MP4", "in/x.mp4"
    )
    targets = planned("in", "out")
    assert len(set(targets.values())) == len(targets) == 9
    assert targets["in/a.mp4"] == "out/a.mp4.mp4"
    assert targets["in/a.avi"] == "out/a.avi.mp4"
    assert targets["in/b/a.mp4"] == "out/b/a.mp4"
    assert (targets["in/a.png"], targets["in/a.jpg"]) == ("out/a.png.png", "out/a.jpg.png")


@pytest.mark.parametrize(
    ("target", "expected"),
    [("out.mp4", "out.mp4"), ("new", "new/a.mp4"), ("new/", "new/a.mp4"), ("old", "old/a.mp4"), ("v1.0", "v1.0/a.mp4")],
)
def test_a_file_goes_to_a_file_or_into_a_folder(here, target, expected):
    touch("in/a.mov")
    Path("old").mkdir()
    Path("v1.0").mkdir()
    assert planned("in/a.mov", target) == {"in/a.mov": expected}


def test_results_inside_the_tree_are_no_sources(here):
    touch("in/a.mp4", "in/res/old.mp4", "in/res/vaectl.json")
    Path("in/link").symlink_to("res")
    assert planned("in", "in/res", overwrite=True) == {"in/a.mp4": "in/res/a.mp4"}


def test_only_recorded_results_are_left_out_silently(here):
    Path("in").mkdir()
    for name in ("in/a.mp4", "in/b.mp4"):
        encode(Path(name), 1, size=(32, 32))
    run(Path("in/a.mp4"), Path("in/out"))
    listener = Listener()
    run(Path("in"), Path("in/out"), listener, overwrite=True)
    again = run(Path("in"), Path("in/out"), listener, overwrite=True)
    assert [str(clip.target) for clip in again.clips] == ["in/out/a.mp4", "in/out/b.mp4"]
    assert listener.notes == []
    touch("in/out/other.mov")
    run(Path("in"), Path("in/out"), listener, overwrite=True)
    assert listener.notes == [
        "in/out: videos and images left out, because they are in the folder of results and are not results: 1"
    ]
    encode(Path("in/other.avi"), 1, size=(32, 32), codec="mpeg4")
    assert len(planned("in", "in/out", overwrite=True)) == 3  # its result is other.mp4, not other.mov


@pytest.mark.parametrize("record", [None, "{}", "[]", "{", '{"options": {"rec_path": "in/out"}, "clips": [3]}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_original_in_the_folder_of_results_is_never_replaced(here, record, overwrite):
    touch("in/a.mp4", "in/out/a.mp4")
    if record:
        Path("in/out/vaectl.json").write_text(record)
    with pytest.raises(UsageError, match=r"^in/out/a\.mp4: is an input of this run, as no record .* remove it if a st"):
        planned("in", "in/out", overwrite=overwrite)


def test_a_clip_that_failed_has_no_result_to_replace(here):
    touch("in/b.mp4")
    encode(Path("in/a.mp4"), 1, size=(32, 32))
    run(Path("in"), Path("in/out"))
    touch("in/out/b.mp4")
    with pytest.raises(UsageError, match=r"in/out/b\.mp4: is an input of this run"):
        planned("in", "in/out", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["a.mp4", RECORD, "folder/b.mp4"])
def test_only_a_file_is_replaced(here, name, overwrite):
    touch("in/a.mov", "in/folder/b.mov")
    Path("out/folder").mkdir(parents=True)
    Path("out", name).mkdir() if name.startswith("folder") else os.mkfifo(Path("out", name))
    kind = "folder" if name.startswith("folder") else "device, pipe or socket"
    with pytest.raises(UsageError, match=f"^out/{name}: is a {kind}; give another `rec_path`"):
        planned("in", "out", overwrite=overwrite)


def test_a_file_in_the_place_of_a_folder_is_found_before_the_work(here):
    touch("in/a/deep/b.mov", "out/a")
    with pytest.raises(UsageError, match=r"^out/a/deep/b\.mp4: cannot write there \(Not a directory\); give another"):
        planned("in", "out", overwrite=True)


def test_no_result_is_a_folder_of_others(here):
    touch("in/a.mov", "in/a.mp4/x.mp4", "in/b.avi", "in/b.mov", "in/b.mov.mp4/x.avi")
    touch("in/vaectl.json/notes.txt")
    with pytest.raises(UsageError, match=r"^b\.mov: its result would have the name of the folder b\.mov\.mp4; rename"):
        planned("in", "out")
    Path("in/b.avi").unlink()
    assert planned("in", "out") == {
        "in/a.mov": "out/a.mov.mp4",
        "in/a.mp4/x.mp4": "out/a.mp4/x.mp4",
        "in/b.mov": "out/b.mp4",
        "in/b.mov.mp4/x.avi": "out/b.mov.mp4/x.mp4",
    }
    touch("in/vaectl.json/x.mov")
    with pytest.raises(UsageError, match=r"in/vaectl\.json/x\.mov: the results have a file vaectl\.json of their own"):
        planned("in", "out")


def test_results_may_lie_above_the_tree(here):
    touch("in/sub/a.mov")
    assert planned("in/sub", "in") == {"in/sub/a.mov": "in/a.mp4"}


@pytest.mark.parametrize("target", ["in", "in/", "./in", "in/../in", "link"])
def test_results_cannot_replace_the_tree(here, target):
    touch("in/a.mov")
    Path("link").symlink_to("in")
    with pytest.raises(UsageError, match="holds all the videos of in; name another folder"):
        planned("in", target, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "target", ["a.mp4", "./a.mp4", "sub/../a.mp4", "symlink.mp4", "hardlink.mp4", "{here}/a.mp4", "."]
)
def test_a_target_is_never_the_source(here, target, overwrite):
    touch("a.mp4")
    Path("sub").mkdir()
    Path("symlink.mp4").symlink_to("a.mp4")
    os.link("a.mp4", "hardlink.mp4")
    before = files(here)
    with pytest.raises(UsageError, match="is an input of this run; give another `rec_path`"):
        planned("a.mp4", target.format(here=here), overwrite=overwrite)
    assert files(here) == before


def test_a_target_is_never_another_source(here):
    touch("in/sub/a.mov", "in/sub/sub/a.mp4", "in/a.mp4")
    Path("in/sub/b.mp4").symlink_to("../a.mp4")
    with pytest.raises(UsageError, match=r"in/a\.mp4: is an input of this run"):
        planned("in/sub", "in", overwrite=True)


def test_the_record_does_not_replace_the_configuration(here):
    touch("a.mov", "out/vaectl.json", "b.mp4.vaectl.json")
    with pytest.raises(UsageError, match="is an input of this run"):
        planned(".", "out", config=Path("out/vaectl.json"), overwrite=True)
    with pytest.raises(UsageError, match="is an input of this run"):
        planned("a.mov", "b.mp4", config=Path("b.mp4.vaectl.json"), overwrite=True)


@pytest.mark.parametrize("existing", ["out/a.mp4", "out/b/a.mp4", f"out/{RECORD}", "link"])
def test_what_exists_is_kept_without_overwrite(here, existing):
    touch("in/a.mov", "in/b/a.mov")
    if existing == "link":
        existing = "out/a.mp4"
        Path("out").mkdir()
        Path(existing).symlink_to("nowhere")
    else:
        touch(existing)
    with pytest.raises(UsageError, match=f"{existing}: exists already; pass `overwrite`"):
        planned("in", "out")
    assert len(planned("in", "out", overwrite=True)) == 2


def test_how_many_exist_is_told(here):
    touch("in/a.mov", "in/b.mov", "in/c.mov", "out/a.mp4", "out/c.mp4", f"out/{RECORD}")
    with pytest.raises(UsageError, match=r"^out/a\.mp4 and 1 more: exists already"):
        planned("in", "out")


def test_a_tree_does_not_go_into_a_file(here):
    touch("in/a.mov", "out.mp4")
    with pytest.raises(UsageError, match=r"out\.mp4: is a file, but in is a folder"):
        planned("in", "out.mp4", overwrite=True)


def test_a_name_that_is_too_long_is_refused_before_the_work(here):
    touch("a.mp4")
    with pytest.raises(UsageError, match=r"x{300}.*: File name too long; check the path"):
        planned("a.mp4", "x" * 300 + ".mp4")


@pytest.mark.parametrize("stem", ["n" * 239, "n" * 240, "n" * 251, "ü" * 125 + "n"])
def test_a_target_may_have_the_longest_name_there_is(here, stem):
    encode(Path("a.mp4"), 1, size=(32, 32))
    run(Path("a.mp4"), Path(f"{stem}.mp4"))
    record = next(name for name in files(here) if name.endswith(RECORD))
    assert set(files(here)) == {"a.mp4", f"{stem}.mp4", record}
    assert record == f"{stem}.mp4.{RECORD}" or len(os.fsencode(record)) in (254, 255)
    assert record.startswith(stem[:100])
    with pytest.raises(UsageError, match="exists already"):
        planned("a.mp4", f"{stem}.mp4")


def test_the_longest_names_of_a_tree_keep_their_results_apart(here):
    long = "n" * 250
    touch(f"in/{long}a.mov", f"in/{long}a.avi", f"in/{'m' * 252}.ts")
    targets = [Path(target) for target in planned("in", "out").values()]
    assert len(set(targets)) == 3
    assert all(len(target.name) <= 255 and target.suffix == ".mp4" for target in targets)


def test_a_mixed_tree_goes_through_and_one_bad_file_does_not_stop_it(here):
    Path("in/sub").mkdir(parents=True)
    for number, name in enumerate(["in/[x] ü 日本.mp4", "in/-a.mp4", "in/-a.avi", "in/sub/c.webm"]):
        codec = "libvpx-vp9" if name.endswith("webm") else "libx264" if name.endswith("mp4") else "mpeg4"
        pictures = encode(Path(name), 3 + number, codec=codec, size=(32, 32))
        assert pictures.exists()
    encode(Path("in/sub/i.png"), 1, size=(19, 17), codec="png", pix_fmt="rgb24")
    touch("in/bad.mp4", "in/sub/bad.png")
    Path("in/gone.mp4").symlink_to("nowhere")
    listener = Listener()
    result = run(Path("in"), Path("out"), listener, side_by_side=True)

    failed = {str(clip.source) for clip in result.clips if clip.error}
    assert failed == {"in/bad.mp4", "in/gone.mp4", "in/sub/bad.png"}
    assert all(str(clip.source) in clip.error for clip in result.clips if clip.error)
    assert set(files(Path("out"))) == {
        "[x] ü 日本.mp4", "-a.mp4.mp4", "-a.avi.mp4", "sub", "sub/c.mp4", "sub/i.png", RECORD,
    }  # fmt: skip
    assert read_video("out/sub/i.png").frames.shape == (1, 3, 17, 38)
    shown = read_video("out/sub/c.mp4").frames[..., :32]
    assert [number_of(frame) for frame in shown] == list(range(6))
    assert [done for _, _, done in listener.clips] == [5, 4, 3, 6, 1]
    assert listener.run == (8, 0, "")
    assert [name for name, _, _ in listener.ended] == [str(clip.source) for clip in result.clips]
    assert {reason for _, reason, failed in listener.ended if failed} == {clip.error for clip in result.clips} - {None}
    last = result.clips[-1]
    assert listener.ended[-1][1] == f"1 frame, PSNR {last.psnr:.2f} dB, {last.seconds:.1f} s"


def test_an_overwritten_file_is_whole_and_a_failed_run_keeps_it(here):
    encode(Path("a.mp4"), 2, size=(32, 32))
    touch("out.mp4", "bad.mp4", "out.mp4.vaectl.json")
    kept = files(here)
    with pytest.raises(VaectlError, match=r"bad\.mp4"):
        run(Path("bad.mp4"), Path("out.mp4"), overwrite=True)
    assert files(here) == kept
    run(Path("a.mp4"), Path("out.mp4"), overwrite=True)
    assert read_video("out.mp4").frames.shape == (2, 3, 32, 32)


def test_a_link_as_target_is_replaced_and_not_followed(here):
    encode(Path("a.mp4"), 1, size=(32, 32))
    touch("precious.mp4")
    Path("out.mp4").symlink_to("precious.mp4")
    run(Path("a.mp4"), Path("out.mp4"), overwrite=True)
    assert Path("precious.mp4").read_bytes() == b"precious.mp4"
    assert not Path("out.mp4").is_symlink()


def test_a_tree_of_bad_files_leaves_nothing(here):
    touch("in/a.mp4", "in/b.mp4")
    result = run(Path("in"), Path("out"))
    assert [clip.error is None for clip in result.clips] == [False, False]
    assert not Path("out").exists()


def test_each_clip_of_a_tree_is_sampled_as_if_it_were_alone(here):
    Path("in").mkdir()
    encode(Path("in/a.mp4"), 2, size=(32, 32))
    encode(Path("in/b.mp4"), 2, size=(32, 32))
    run(Path("in"), Path("out"), lossless=True, sample=True)
    assert torch.equal(read_video("out/a.mkv").frames, read_video("out/b.mkv").frames)


def test_files_and_folders_go_into_one_folder(here):
    touch("a.mov", "in/b.mp4", "in/deep/c.png", "in/out/old.mp4", "more/d.avi", "more/a.mp4")
    assert planned(("a.mov", "in", "more/d.avi"), "in/out") == {
        "a.mov": "in/out/a.mp4",
        "in/b.mp4": "in/out/b.mp4",
        "in/deep/c.png": "in/out/deep/c.png",
        "more/d.avi": "in/out/d.mp4",
    }
    both = planned(("a.mov", "more"), "out")
    assert (both["a.mov"], both["more/a.mp4"]) == ("out/a.mov.mp4", "out/a.mp4.mp4")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (("in/a.mp4", "more/a.mp4"), "in/a.mp4 and more/a.mp4: their results share a name; "),
        (("in", "more"), "in/a.mp4 and more/a.mp4: their results share a name; "),
        (("in", "in/a.mp4"), "in/a.mp4: is given twice; "),
        (("in/a.mp4", "none.mp4"), "none.mp4: no such file or folder; "),
    ],
)
def test_two_results_of_one_name_are_refused(here, sources, said):
    touch("in/a.mp4", "more/a.mp4")
    with pytest.raises(UsageError) as caught:
        planned(sources, "out")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("sources", "target", "said"),
    [
        ("in", "x.mp4", "x.mp4: is the name of a file, but in is a folder; name a folder, as in `rec_path=x`"),
        (("in/a.mp4", "b.mp4"), "x.PNG", "x.PNG: is the name of a file, but there are 2 inputs; name a folder"),
        (("in/a.mp4", "b.mp4"), "file", "file: is a file, but there are 2 inputs; name a folder"),
    ],
)
def test_several_results_do_not_go_into_one_file(here, sources, target, said):
    touch("in/a.mp4", "b.mp4", "file")
    with pytest.raises(UsageError) as caught:
        planned(sources, target)
    assert str(caught.value).startswith(said)


def test_a_number_after_a_dot_is_no_extension(here):
    touch("in/a.mp4")
    assert planned("in/a.mp4", "out-v1.0") == {"in/a.mp4": "out-v1.0/a.mp4"}
    assert planned("in", "out-v1.0") == {"in/a.mp4": "out-v1.0/a.mp4"}
    Path("x.mp4").mkdir()
    assert planned("in", "x.mp4") == {"in/a.mp4": "x.mp4/a.mp4"}


def test_equal_sources_have_no_mirror():
    with pytest.raises(ValueError, match="two sources have the same name"):
        mirror([Path("a.mp4"), Path("a.mp4")], [".mp4", ".mp4"])


def test_several_clips_share_a_record_and_go_on_after_a_broken_one(here):
    encode(Path("a.mp4"), 3, size=(32, 32))
    touch("b.mp4")
    result = run((Path("a.mp4"), Path("b.mp4")), Path("out"))
    assert [clip.error is None for clip in result.clips] == [True, False]
    assert {"out/a.mp4", "out/vaectl.json"} <= {f"out/{name}" for name in files(Path("out"))}
