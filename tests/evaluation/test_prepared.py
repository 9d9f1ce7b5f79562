"""What the manifests of prepared folders say about a request: which folder is which, and which options hold."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation import test_pairs
from tests.evaluation.test_pairs import prepared, tree
from tests.jobs import Listener
from vaectl.errors import UsageError
from vaectl.evaluation.frames import how_to_read
from vaectl.evaluation.manifest import Manifest, ManifestModel, read_manifest, write_manifest
from vaectl.evaluation.pairs import find_pairs
from vaectl.evaluation.prepared import manifest_of
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.options import EvalOptions
from vaectl.options.candidates import NamedPath

CLIPS, OUT, ORIGIN = Path("clips"), Path("out"), Path("out/origin")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    """Originals in `clips`, prepared in `out`; only names and sizes matter here."""
    monkeypatch.chdir(tmp_path)
    tree(CLIPS, "a.mp4", "deep/b.webm")
    (CLIPS / "a.mp4").write_text("an original")
    tree(OUT, "a.mkv", "deep/b.mkv", "origin/a.mkv", "origin/deep/b.mkv")
    clips = (prepared("a.mp4", source_stamp=(11, 1)), prepared("deep/b.webm"))
    change(lambda: replace(test_pairs.manifest_of(*clips), real_video_dir=str(CLIPS.resolve())))


def change(manifest) -> None:
    write_manifest(OUT, manifest())


def changed(**facts) -> None:
    """Let `out` be prepared otherwise."""
    manifest = read_manifest(OUT)
    assert manifest
    change(lambda: replace(manifest, **facts))


def read(real: Path = CLIPS, generated: Path | None = OUT, listener: Listener | None = None, **options):
    manifest = manifest_of(generated) if generated else None
    results = (NamedPath("", generated),) if generated else ()
    chosen = EvalOptions(real_video_dir=real, generated_video_dir=results, **options)
    return how_to_read(chosen, [manifest], listener or Listener())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"num_frames": 17}, "with `num_frames=33`, not 17"),
        ({"sample_rate": 2}, "with `sample_rate=1`, not 2"),
        ({"resolution": 128}, "with `resolution=256`, not 128"),
        ({"crop_size": 128}, "with `crop_size=256`, not 128"),
        ({"crop_size": 0}, "with `crop_size=256`, not 0"),
        ({"rgb_conversion": "swscale"}, "with `rgb_conversion=accurate`, not swscale"),
        ({"subset_size": 4}, "with `subset_size=3`, not 4"),
        ({"dtype": "bfloat16"}, "with `dtype=float32`, not bfloat16"),
        ({"sample": True}, "without `sample`"),
    ],
)
def test_an_option_that_contradicts_the_manifest_is_an_error_with_both_values(asked, said):
    changed(options={"subset_size": 3, "sample": False, "seed": 0})
    with pytest.raises(UsageError) as error:
        read(**asked)
    assert str(error.value) == (
        f"out: its clips were prepared {said}; leave these options out, pass `as_prepared` to ignore them, or prepare"
        " the clips again"
    )
    listener = Listener()
    assert read(listener=listener, **asked, as_prepared=True).protocol == ClipProtocol(33, 1, 256, 256)
    assert listener.notes == [f"out: its clips were prepared {said}: they are measured as prepared"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"as_prepared": True},
        {"num_frames": 33, "sample_rate": 1, "resolution": 256, "crop_size": 256},
        {"resolution": 256},
        {"subset_size": 2},
        {"dtype": "float32", "seed": 3},
        {"dtype": "auto"},
    ],
    ids=str,
)
def test_equal_values_and_smaller_subsets_contradict_nothing(asked):
    changed(options={"subset_size": 3})
    listener = Listener()
    assert read(listener=listener, **asked).protocol == ClipProtocol(33, 1, 256, 256)
    assert (listener.notes, listener.warnings) == ([], [])


def test_whole_frames_are_a_crop_of_0_and_a_crop_may_be_larger_than_the_default_resolution():
    changed(protocol=ClipProtocol(33, 1, 512, None))
    assert read(crop_size=0).protocol.crop_size is None
    changed(protocol=ClipProtocol(33, 1, 512, 512))
    assert read(crop_size=512).protocol.crop_size == 512
    with pytest.raises(UsageError, match="`crop_size=512` does not fit into a `resolution` of 256"):
        read(generated=CLIPS, crop_size=512)


def test_a_sample_of_another_seed_is_a_contradiction():
    changed(options={"sample": True, "seed": 3})
    assert read(sample=True, seed=3)
    with pytest.raises(UsageError, match="with `seed=3`, not 4"):
        read(sample=True, seed=4)
    with pytest.raises(UsageError, match="with `seed=3`, not 0"):
        read(seed=0)
    assert read(sample=True)


def test_the_model_that_runs_now_has_options_of_its_own():
    reading = read(OUT, None, model=(NamedPath("", Path("builtin")),), dtype="bfloat16", sample=True)
    assert reading.real_is_prepared
    with pytest.raises(UsageError, match="out: its clips were prepared with `num_frames=33`, not 17"):
        read(OUT, None, model=(NamedPath("", Path("builtin")),), num_frames=17)


def test_options_of_a_model_without_a_model_are_noted():
    listener = Listener()
    read(generated=tree(Path("made"), "a.mkv"), listener=listener, dtype="bfloat16")
    read(generated=Path("made"), listener=listener, seed=0)
    assert listener.notes == ["`dtype`, `sample` and `seed` have no effect: no model runs"] * 2


def test_without_a_manifest_nothing_is_as_prepared():
    with pytest.raises(UsageError, match=r"clips: has no manifest\.json, so it is unknown how its clips were prepared"):
        read(generated=CLIPS, as_prepared=True)


def test_two_prepared_folders_with_other_frames_are_refused():
    other = tree(Path("other"), "a.mkv")
    model = ManifestModel(None, "WFVAEModel", "", "cpu", "float32")
    write_manifest(other, Manifest({}, model, ClipProtocol(33, 2, 256, None), {}, "/elsewhere", ()))
    with pytest.raises(
        UsageError,
        match=r"out and other: were prepared with different frames: `sample_rate=1` and 2, `crop_size=256` and 0; prep",
    ):
        read(other)


SWAPPED = "give `real_video_dir={}` and `generated_video_dir={}`"


@pytest.mark.parametrize(
    ("real", "generated", "said", "right"),
    [
        (OUT, CLIPS, "clips: has originals, not reconstructions", (CLIPS, OUT)),
        (OUT, Path("copy"), "copy: has originals, not reconstructions", (Path("copy"), OUT)),
        (OUT, CLIPS / "a.mp4", "clips/a.mp4: has originals, not reconstructions", (CLIPS / "a.mp4", OUT)),
        (OUT, Path("link"), "link: has originals, not reconstructions", (Path("link"), OUT)),
        (OUT, ORIGIN, "out/origin: has originals, not reconstructions", (ORIGIN, OUT)),
        (
            OUT / "a.mkv",
            CLIPS / "a.mp4",
            "clips/a.mp4: has originals, not reconstructions",
            (CLIPS / "a.mp4", OUT / "a.mkv"),
        ),
        (ORIGIN, CLIPS, "clips: has originals, not reconstructions", (CLIPS, OUT)),
        (
            OUT / "deep" / "b.mkv",
            CLIPS / "deep" / "b.webm",
            "clips/deep/b.webm: has originals, not reconstructions",
            (CLIPS / "deep" / "b.webm", OUT / "deep" / "b.mkv"),
        ),
        (
            OUT / "deep",
            CLIPS / "deep",
            "clips/deep: has originals, not reconstructions",
            (CLIPS / "deep", OUT / "deep"),
        ),
        (
            OUT / "a.mkv",
            ORIGIN / "a.mkv",
            "out/origin/a.mkv: has originals, not reconstructions",
            (ORIGIN / "a.mkv", OUT / "a.mkv"),
        ),
        (CLIPS, ORIGIN, "out/origin: has originals, not reconstructions", (CLIPS, OUT)),
        (
            CLIPS / "a.mp4",
            ORIGIN / "a.mkv",
            "out/origin/a.mkv: has originals, not reconstructions",
            (CLIPS / "a.mp4", OUT / "a.mkv"),
        ),
    ],
)
def test_swapped_folders_are_refused_with_the_right_order(real, generated, said, right):
    tree(Path("copy"), "deep/b.webm")
    (Path("copy") / "a.mp4").write_text("an original")
    Path("link").symlink_to(CLIPS)
    with pytest.raises(UsageError) as error:
        read(real, generated)
    assert str(error.value) == f"{said} (manifest.json of out says so); {SWAPPED.format(*right)}"
    assert read(*right).are_prepared == (True,)


def test_files_of_a_prepared_folder_are_read_as_prepared():
    reading = read(ORIGIN / "deep" / "b.mkv", OUT / "deep" / "b.mkv")
    assert (reading.real_is_prepared, reading.are_prepared) == (True, (True,))
    assert not read(CLIPS / "a.mp4", OUT / "a.mkv").real_is_prepared
    with pytest.raises(UsageError, match=r"out/a\.mkv: its clips were prepared with `sample_rate=1`, not 2"):
        read(CLIPS / "a.mp4", OUT / "a.mkv", sample_rate=2)
    (OUT / "manifest.json").write_text("[]")
    assert read(CLIPS / "a.mp4", OUT / "a.mkv").are_prepared == (False,)


@pytest.mark.parametrize("generated", [OUT, Path("link")])
def test_a_prepared_folder_for_both_is_refused_with_the_originals(generated):
    Path("link").symlink_to(OUT)
    with pytest.raises(UsageError, match="out: has reconstructions, not their originals") as error:
        read(OUT, generated)
    assert error.value.remedy == SWAPPED.format(CLIPS.resolve(), OUT)


@pytest.mark.parametrize("generated", [OUT / "a.mkv", OUT])
def test_a_result_is_not_its_own_original(generated):
    with pytest.raises(UsageError, match=r"out/a\.mkv: has reconstructions, not their originals") as error:
        read(OUT / "a.mkv", generated)
    assert error.value.remedy == SWAPPED.format(CLIPS.resolve() / "a.mp4", OUT / "a.mkv")


def test_a_manifest_holds_through_a_link_to_a_result():
    Path("link.mkv").symlink_to(OUT / "a.mkv")
    assert read(CLIPS / "a.mp4", Path("link.mkv")).are_prepared == (True,)
    with pytest.raises(UsageError, match=r"link\.mkv: its clips were prepared with `num_frames=33`, not 4"):
        read(CLIPS / "a.mp4", Path("link.mkv"), num_frames=4)


def test_a_manifest_holds_for_a_subfolder():
    for real in CLIPS / "deep", ORIGIN / "deep":
        assert read(real, OUT / "deep").protocol == ClipProtocol(33, 1, 256, 256)
        with pytest.raises(UsageError, match=r"out/deep: its clips were prepared with `num_frames=33`, not 4"):
            read(real, OUT / "deep", num_frames=4)
        pairing = find_pairs(real, OUT / "deep", manifest_of(OUT / "deep"))
        assert [(pair.name, pair.generated) for pair in pairing.pairs] == [("b", OUT / "deep" / "b.mkv")]
        assert pairing.missing == {}
    assert manifest_of(tree(OUT / "other", "c.mkv")) is None


def test_results_of_other_tools_may_be_compared_with_a_prepared_folder():
    others = tree(Path("others"), "a.mp4", "deep/b.webm")
    (others / "a.mp4").write_text("a result of another size")
    assert read(OUT, others).real_is_prepared
    assert read(ORIGIN, others).real_is_prepared
    assert not read(CLIPS, others).real_is_prepared
