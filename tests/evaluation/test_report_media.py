"""Which clips a report shows, and that its pictures are what they say."""

from __future__ import annotations

import math
import tempfile
from base64 import b64decode
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.evaluation.test_report import PSNR, clip, evaluation
from vaectl.errors import UsageError, VaectlError
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.report import ReportBuilder, builder, media
from vaectl.evaluation.report.builder import worst_frame
from vaectl.evaluation.report.media import LONGEST_SIDE, Media, heat_maps, image, picture
from vaectl.metrics import FACTS, MetricFacts
from vaectl.video import read_video

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(frames: int = 2, height: int = 16, width: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=generator)


def decoded(uri: str, folder: Path, ending: str) -> Tensor:
    """The frames of a data URI."""
    file = folder / f"decoded{ending}"
    file.write_bytes(b64decode(uri.split(",")[1]))
    return read_video(file).frames


def kept(report: ReportBuilder) -> list[str]:
    return [one.name for _, _, one in report._kept]


@pytest.mark.parametrize("order", [range(9), range(8, -1, -1), (4, 8, 0, 2, 6, 1, 7, 3, 5)])
def test_the_worst_clips_are_shown_in_whatever_order_they_come(order):
    report = ReportBuilder([PSNR], clips_with_media=3)
    for number in order:
        report.add([clip(str(number), psnr=[20.0 + number] * 2, num_frames=2)], noise(), [noise(seed=1)], Fraction(25))
    assert kept(report) == ["0", "1", "2"]


def test_the_worst_are_the_largest_where_less_is_better():
    lpips = FACTS["lpips"]
    report = ReportBuilder([FACTS["fvd"], lpips], clips_with_media=1)
    for number in range(3):
        report.add([clip(str(number), lpips=[number / 10] * 2, num_frames=2)], noise(), [noise(seed=1)], Fraction(25))
    assert kept(report) == ["2"]


def test_no_more_is_kept_than_a_page_should_weigh(monkeypatch):
    one = picture("one", noise(2, 64, 64), [noise(2, 64, 64, seed=1)], Fraction(25), 0).size
    monkeypatch.setattr(builder, "MEDIA_BYTES", one * 5 // 2)
    seen = []
    monkeypatch.setattr(builder, "picture", lambda name, *others: (seen.append(name), picture(name, *others))[1])
    report = ReportBuilder([PSNR])
    for number in range(9):
        scores = clip(str(number), psnr=[20.0 + number] * 2, num_frames=2)
        report.add([scores], noise(2, 64, 64), [noise(2, 64, 64, seed=1)], Fraction(25))
    assert kept(report) == ["0", "1"]
    assert seen == ["0", "1", "2"]  # the others were not even encoded
    monkeypatch.setattr(builder, "MEDIA_BYTES", 1)
    report = ReportBuilder([PSNR])
    report.add([clip("only", psnr=[20.0] * 2, num_frames=2)], noise(), [noise(seed=1)], Fraction(25))
    assert kept(report) == ["only"]


@pytest.mark.parametrize(("values", "frames", "better", "worst"), [
    ([3.0, 1.0, 2.0], 3, "higher", 1),
    ([3.0, 1.0, 2.0], 3, "lower", 0),
    ([3.0, 1.0, 2.0], 4, "lower", 1),
    ([float("inf"), 50.0, float("inf")], 3, "higher", 1),
    ([float("inf")] * 3, 3, "higher", 0),
    ([1.0, float("nan"), 0.5], 3, "higher", 1),
    ([], 1, "lower", 0),
])  # fmt: skip
def test_the_worst_frame_is_that_of_the_worst_number(values, frames, better, worst):
    assert worst_frame([values], frames, MetricFacts("m", "", better, of_set=False)) == worst


def test_of_several_candidates_their_mean_decides():
    report = ReportBuilder([PSNR], ("a", "b"), clips_with_media=2)
    values = {"first": (30.0, 20.0), "both": (24.0, 22.0), "second": (19.0, 40.0), "exact": (math.inf, 10.0)}
    for name, pair in values.items():
        scores = [clip(name, psnr=[value] * 2, num_frames=2) for value in pair]
        report.add(scores, noise(), [noise(seed=1), noise(seed=2)], Fraction(25))
    assert kept(report) == ["both", "first"]
    assert worst_frame([[30.0, 24.0, 19.0], [20.0, 22.0, 40.0]], 3, PSNR) == 1
    assert worst_frame([[math.inf] * 3, [31.0, 30.0, 32.0]], 3, PSNR) == 1  # the exact candidate hides nothing


def test_pictures_are_exact_and_the_video_is_close(tmp_path, samples):
    real = read_video(samples / "bigbuckbunny.mp4", num_frames=3).frames[..., 200:345, 300:541]  # odd: 241x145
    generated = (real.int() - 40).clamp(0).byte()
    shown = picture("bunny", real, [generated], Fraction(25), 1)
    assert decoded(shown.real, tmp_path, ".png").equal(real[1:2])
    assert decoded(shown.generated[0], tmp_path, ".png").equal(generated[1:2])
    assert (shown.width, shown.height) == (241, 145)
    both = decoded(shown.video, tmp_path, ".mp4")
    assert both.shape == (3, 3, 146, 484)
    for side, exact in (both[..., :145, :241], real), (both[..., :145, 242:483], generated):
        assert float((side.float() - exact.float()).square().mean()) < 255**2 / 10**3.5  # above 35 dB


def test_the_sides_of_a_video_are_in_rows_in_the_given_order(tmp_path):
    levels = (20, 60, 100, 140, 180, 220)
    sides = [torch.full((2, 3, 16, 24), level, dtype=torch.uint8) for level in levels]
    shown = picture("many", sides[0], sides[1:], Fraction(25), 0)
    frames = decoded(shown.video, tmp_path, ".mp4")
    assert (shown.columns, frames.shape) == (4, (2, 3, 32, 96))
    for side, level in enumerate((*levels, 0, 0)):
        row, column = divmod(side, 4)
        cell = frames[..., row * 16 + 3 : row * 16 + 13, column * 24 + 3 : column * 24 + 21]
        assert float((cell.float() - level).abs().max()) < 8, side
    assert [len(shown.generated), len(shown.errors)] == [5, 5]


def test_many_candidates_are_shown_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "VIDEO_PIXELS", 4 * 2 * 32 * 32)
    monkeypatch.setattr(media, "PICTURE_PIXELS", 7 * 16 * 16)
    sides = [noise(2, 64, 64, seed=seed) for seed in range(4)]
    shown = picture("many", sides[0], sides[1:], Fraction(25), 0)
    assert (shown.width, shown.height) == (32, 32)
    assert (shown.picture_width, shown.picture_height) == (16, 16)
    for uri in (shown.real, *shown.generated, *shown.errors):
        assert decoded(uri, tmp_path, ".png").shape == (1, 3, 16, 16)


def test_without_a_number_the_frame_with_most_error_is_shown():
    real = torch.full((5, 3, 8, 8), 90, dtype=torch.uint8)
    generated = real.clone()
    generated[3] += 9
    assert picture("name", real, [generated], Fraction(25), None).frame == 3


def test_large_and_long_clips_are_shown_smaller(tmp_path, monkeypatch):
    shown = picture("large", noise(1, 40, 1024), [noise(1, 40, 1024, seed=1)], Fraction(25), 0)
    assert (shown.width, shown.height) == (LONGEST_SIDE, 20)
    assert decoded(shown.errors[0], tmp_path, ".png").shape == (1, 3, 20, LONGEST_SIDE)
    monkeypatch.setattr(media, "VIDEO_PIXELS", 2 * 50 * 32 * 32)
    shown = picture("long", noise(50, 64, 64), [noise(50, 64, 64, seed=1)], Fraction(25), 0)
    assert (shown.width, shown.height) == (32, 32)
    assert decoded(shown.real, tmp_path, ".png").shape == (1, 3, 64, 64)


def test_the_heat_map_shows_the_largest_error_of_the_channels_on_a_scale_that_fits():
    real = torch.full((3, 100, 10), 100, dtype=torch.uint8)
    generated = real.clone()
    assert heat_maps(real, [generated])[1:] == (4, False)
    generated[1, 0] -= 60  # one row in a hundred
    generated[2, 1:, 0] += 8
    (colors,), top, beyond = heat_maps(real, [generated])
    scale = media.color_scale()
    assert (top, beyond) == (8, True)
    assert colors[:, 0, 5].equal(scale[255])
    assert colors[:, 50, 0].equal(scale[255])
    assert colors[:, 50, 5].equal(scale[0])
    assert heat_maps(real, [255 - real])[1:] == (64, False)
    assert heat_maps(real * 0, [real * 0 + 255])[1:] == (255, False)


def test_heat_maps_of_candidates_have_one_scale_that_fits_the_better_half():
    real = torch.full((3, 10, 10), 100, dtype=torch.uint8)
    (near, middle, far), top, beyond = heat_maps(real, [real + 4, real + 14, real + 120])
    assert (top, beyond) == (16, True)
    scale = media.color_scale()
    assert near[:, 0, 0].equal(scale[4 * 255 // 16])
    assert middle[:, 0, 0].equal(scale[14 * 255 // 16])
    assert far[:, 0, 0].equal(scale[255])


def test_the_scale_of_the_heat_map_grows_brighter_from_end_to_end():
    brightness = media.color_scale().double() @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    assert bool((brightness.diff() >= 0).all())
    assert float(brightness[0]) < 15
    assert float(brightness[-1]) > 220


def failing(*_: object) -> Media:
    raise VaectlError("/full/preview.mp4: writing failed (No space left on device); free space or choose another place")


def test_a_full_disk_costs_pictures_and_no_numbers(tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    scores = [clip(name, psnr=[20.0] * 2, num_frames=2) for name in ("first", "second", "third")]
    report = ReportBuilder([PSNR])
    for one in scores:
        report.add([one], noise(), [noise(seed=1)], Fraction(25))
        monkeypatch.setattr(builder, "picture", failing)
    with pytest.raises(VaectlError, match=r"report.html: written, but lacks pictures: /full/preview.mp4: .*TMPDIR"):
        report.write(page, Comparison((evaluation([PSNR], scores),)))
    assert page.read_text().count("data:video/mp4") == 1
    assert '"name": "third"' in page.read_text()


def test_a_page_replaces_the_last_one_whole_or_not_at_all(tmp_path, monkeypatch):
    page = tmp_path / "new" / "report.html"
    report = ReportBuilder([PSNR])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    report.add([clip("a", psnr=[20.0] * 2, num_frames=2)], noise(), [noise(seed=1)], Fraction(25))
    report.write(page, Comparison((evaluation([PSNR], [clip("a", psnr=[20.0] * 2, num_frames=2)]),)))
    before = page.read_bytes()
    monkeypatch.setattr(builder, "document", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(page, Comparison((evaluation([PSNR], []),)))
    with pytest.raises(UsageError, match="is a folder"):
        report.write(page.parent, Comparison((evaluation([PSNR], []),)))
    assert page.read_bytes() == before
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_several_processes_kept_comes_together(monkeypatch):
    reports = []
    for rank in range(2):
        report = ReportBuilder([PSNR], clips_with_media=3)
        for number in range(rank, 8, 2):
            report.add(
                [clip(str(number), psnr=[20.0 + number] * 2, num_frames=2)], noise(), [noise(seed=1)], Fraction(25)
            )
        reports.append(report)
    monkeypatch.setattr(builder, "gather", lambda own: [own, (reports[1]._kept, reports[1]._failures)])
    reports[0].gather()
    assert kept(reports[0]) == ["0", "1", "2"]


def test_an_image_is_kept_as_it_is(tmp_path):
    frame = noise()[0]
    assert decoded(image(frame, 16, 16), tmp_path, ".png")[0].equal(frame)
