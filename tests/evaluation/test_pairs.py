"""Originals and results find each other by manifest or by name, and what is left open is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaectl.errors import UsageError
from vaectl.evaluation.manifest import Manifest, ManifestClip, ManifestModel
from vaectl.evaluation.pairs import Pair, find_pairs, match_by_name
from vaectl.evaluation.protocol import ClipProtocol
from vaectl.io.output_paths import mirror


def tree(root: Path, *names: str) -> Path:
    """Files of these names below `root`; only names matter here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def paired(real: Path, generated: Path, manifest: Manifest | None = None, **options) -> dict[str, str]:
    """The name of each pair, with its result below the folder of results."""
    pairs = find_pairs(real, generated, manifest, **options).pairs
    assert all(pair.generated for pair in pairs)
    return {pair.name: pair.generated.relative_to(generated).as_posix() for pair in pairs if pair.generated}


def missing(real: Path, generated: Path, manifest: Manifest | None = None, **options) -> dict[str, str]:
    return find_pairs(real, generated, manifest, **options).missing


def manifest_of(*clips: ManifestClip, **options) -> Manifest:
    model = ManifestModel(None, "WFVAEModel", "", "cpu", "float32")
    return Manifest({}, model, ClipProtocol(33, 1, 256, 256), options, "/elsewhere", clips)


def prepared(source: str, **facts) -> ManifestClip:
    name = source.rpartition(".")[0]
    return replace(
        ManifestClip(name, source, (1, 1), f"{name}.mkv", f"origin/{name}.mkv", "ok"),
        **facts,
    )


@pytest.fixture
def real(tmp_path) -> Path:
    return tree(tmp_path / "real", "a.mp4", "deep/b.webm")


@pytest.fixture
def results(tmp_path) -> Path:
    return tree(tmp_path / "results", "a.mkv", "deep/b.mkv")


def test_a_result_has_the_path_of_its_original_with_another_extension(real, results):
    assert paired(real, results) == {"a": "a.mkv", "deep/b": "deep/b.mkv"}
    assert missing(real, results) == {}


def test_what_went_into_the_network_is_no_result(real, results):
    tree(results, "origin/a.mkv", "origin/deep/b.mkv")
    assert paired(real, results) == {"a": "a.mkv", "deep/b": "deep/b.mkv"}


@pytest.mark.parametrize("listed", [True, False])
def test_what_went_into_the_network_can_be_the_originals(results, listed):
    tree(results, "origin/a.mkv", "origin/deep/b.mkv")
    manifest = manifest_of(prepared("a.mp4"), prepared("deep/b.webm")) if listed else None
    assert paired(results / "origin", results, manifest) == {"a": "a.mkv", "deep/b": "deep/b.mkv"}


def test_results_can_be_compared_with_other_results(results, tmp_path):
    others = tree(tmp_path / "others", "a.mkv", "deep/b.mkv", "origin/a.mkv", "manifest.json")
    assert missing(others, results, manifest_of(prepared("a.mp4"), prepared("deep/b.webm"))) == {}
    assert missing(others, results) == {}


def test_results_may_lie_among_the_originals(real):
    results = tree(real / "results", "a.mkv", "deep/b.mkv")
    assert paired(real, results) == {"a": "a.mkv", "deep/b": "deep/b.mkv"}


def test_originals_that_differ_in_their_extension_have_results_that_keep_it(tmp_path):
    real = tree(tmp_path / "real", "a.avi", "a.mp4")
    assert paired(real, tree(tmp_path / "made", "a.avi.mkv", "a.mp4.mkv")) == {
        "a.avi": "a.avi.mkv",
        "a.mp4": "a.mp4.mkv",
    }
    assert paired(real, tree(tmp_path / "same", "a.avi", "a.mp4")) == {"a.avi": "a.avi", "a.mp4": "a.mp4"}


@given(st.lists(st.from_regex(r"\A[ab]{1,2}(\.[ab])?\.(mp4|mkv|avi)\Z"), unique=True, min_size=1))
def test_everything_finds_back_from_where_it_is_put(names):
    real, results = Path("real"), Path("results")
    targets = mirror([Path(name) for name in names], [".mkv"] * len(names))
    partners = match_by_name([real / name for name in names], real, [results / target for target in targets], results)
    assert partners == {real / name: results / target for name, target in zip(names, targets, strict=True)}


def test_names_that_leave_open_whose_result_it_is_are_refused(tmp_path):
    real, results = tree(tmp_path / "real", "a.mp4", "a.mp4.avi"), tree(tmp_path / "results", "a.mp4.mkv")
    with pytest.raises(UsageError, match=r"a\.mp4\.mkv: may belong to a\.mp4 or to a\.mp4\.avi"):
        find_pairs(real, results, None)


def test_a_result_that_could_be_of_two_originals_is_refused(tmp_path):
    real, results = tree(tmp_path / "real", "a.avi", "a.mp4"), tree(tmp_path / "results", "a.mkv")
    with pytest.raises(UsageError, match=r"a\.mkv: may belong to a\.avi or to a\.mp4 .* for example a\.avi\.mkv$"):
        find_pairs(real, results, None)


def test_two_results_of_one_original_are_refused(real, results):
    tree(results, "a.mp4")
    with pytest.raises(UsageError, match=r"a\.mkv and .*a\.mp4: both belong to .*a\.mp4; keep one"):
        find_pairs(real, results, None)


def test_clips_without_partner_are_named_on_both_sides(real, results):
    tree(real, "c.mp4")
    tree(results, "d.mkv")
    reasons = missing(real, results)
    assert reasons == {
        "c": f"{real}/c.mp4: has no partner in {results}",
        "d": f"{results}/d.mkv: has no original in {real}",
    }


def test_nothing_in_common_is_refused(real, tmp_path):
    with pytest.raises(UsageError, match=r"nothing there belongs to a clip of .* the first one here is x/y\.mkv$"):
        find_pairs(real, tree(tmp_path / "results", "x/y.mkv"), None)


def test_a_manifest_knows_the_result_whatever_its_name(real, tmp_path):
    results = tree(tmp_path / "results", "one.mkv", "two.mkv")
    manifest = manifest_of(prepared("a.mp4", generated="one.mkv"), prepared("deep/b.webm", generated="two.mkv"))
    assert paired(real, results, manifest) == {"a": "one.mkv", "deep/b": "two.mkv"}


def test_a_manifest_says_why_there_is_no_result(real, tmp_path):
    results = tree(tmp_path / "results", "a.mkv", "stray.mkv")
    tree(real, "c.mp4", "d.mp4")
    manifest = manifest_of(
        prepared("a.mp4"),
        prepared("deep/b.webm", status="failed", reason="b.webm: too short"),
        prepared("c.mp4", status="waiting"),
        prepared("d.mp4"),
    )
    reasons = missing(real, results, manifest)
    assert set(reasons) == {"deep/b", "c", "d", "stray"}
    assert reasons["deep/b"].endswith("could not be prepared: b.webm: too short")
    assert "run prepare-eval again" in reasons["c"]
    assert "is in the manifest but not in the folder" in reasons["d"]
    assert reasons["stray"] == f"{results}/stray.mkv: is not in manifest.json; prepare it again, or remove it"


def test_a_manifest_says_why_an_old_result_is_not_used(real, results):
    manifest = manifest_of(prepared("a.mp4"), prepared("deep/b.webm", status="failed", reason="b.webm: too short"))
    assert missing(real, results, manifest) == {
        "deep/b": f"{real}/deep/b.webm: could not be prepared: b.webm: too short"
    }
    assert paired(real, results, manifest) == {"a": "a.mkv"}
    assert missing(real, results, manifest, subset_size=1) == {}


def test_a_listed_result_without_its_original_says_so(real, results):
    tree(results, "c.mkv")
    manifest = manifest_of(*map(prepared, ("a.mp4", "deep/b.webm", "c.mp4")))
    assert missing(real, results, manifest) == {"c": f"{results}/c.mkv: has no original in {real}"}


def test_a_manifest_of_failures_alone_says_why(real, tmp_path):
    results = tree(tmp_path / "results", "stray.mkv")
    manifest = manifest_of(prepared("a.mp4", status="failed", reason="a.mp4: too short"))
    with pytest.raises(UsageError, match=r"could not be prepared: a\.mp4: too short"):
        find_pairs(real, results, manifest)


def test_originals_that_were_not_to_be_prepared_are_not_missing(real, tmp_path):
    results = tree(tmp_path / "results", "a.mkv")
    assert set(missing(real, results, manifest_of(prepared("a.mp4")))) == {"deep/b"}
    assert missing(real, results, manifest_of(prepared("a.mp4"), subset_size=1)) == {}


def test_a_subset_is_of_the_first_originals(real, results):
    assert paired(real, results, subset_size=1) == {"a": "a.mkv"}
    assert missing(real, results, subset_size=1) == {}
    assert [pair.name for pair in find_pairs(real, None, None, subset_size=1).pairs] == ["a"]


def test_numbered_images_are_one_clip(tmp_path):
    tree(tmp_path, "frames/01.png", "frames/02.png", "out.mp4")
    (pair,) = find_pairs(tmp_path / "frames" / "%02d.png", tmp_path / "out.mp4", None).pairs
    assert pair == Pair("frames", tmp_path / "frames" / "%02d.png", tmp_path / "out.mp4")


def test_still_images_count_only_where_one_frame_is_compared(real):
    tree(real, "photo.png")
    assert [pair.name for pair in find_pairs(real, None, None).pairs] == ["a", "deep/b"]
    assert [pair.name for pair in find_pairs(real, None, None, stills=True).pairs] == ["a", "deep/b", "photo"]


def test_only_images_are_no_videos(tmp_path):
    with pytest.raises(UsageError, match="`num_frames=1`"):
        find_pairs(tree(tmp_path, "photo.png"), None, None)


def test_two_files_are_a_pair_whatever_their_names(real, results):
    (pair,) = find_pairs(real / "a.mp4", results / "deep" / "b.mkv", None).pairs
    assert (pair.name, pair.generated) == ("a", results / "deep" / "b.mkv")


def test_one_original_finds_its_result_in_a_folder(real, results):
    (pair,) = find_pairs(real / "a.mp4", results, None).pairs
    assert (pair.name, pair.generated) == ("a", results / "a.mkv")
    assert missing(real / "a.mp4", results) == {}
