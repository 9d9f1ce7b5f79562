"""The report as a reader meets it: the page in a real browser, its numbers, its videos, its buttons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.evaluation.browser import Browser
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.report import ReportBuilder
from vaectl.evaluation.results import ClipScores, Evaluation
from vaectl.metrics import FACTS, MetricFacts

pytestmark = pytest.mark.usefixtures("one_thread")

PSNR = FACTS["psnr"]
LPIPS = FACTS["lpips"]
FLICKER = FACTS["flicker"]
FVD = FACTS["fvd"]
RATE = Fraction(30000, 1001)
FRAMES = 9
LEFT, RIGHT = 40, 250
"""Levels of grey of the first frames; each next original is brighter by 20, each next generated frame darker."""


def greys(first: int, step: int, width: int = 48, height: int = 32, num_frames: int = FRAMES) -> Tensor:
    levels = torch.arange(num_frames, dtype=torch.int64) * step + first
    return levels.clamp(0, 255).byte()[:, None, None, None].expand(num_frames, 3, height, width).contiguous()


def clip(
    name: str, width: int = 48, height: int = 32, num_frames: int = FRAMES, **values: Sequence[float]
) -> ClipScores:
    numbers = {metric: tuple(series) for metric, series in values.items()}
    return ClipScores(name, Path(f"real/{name}.mp4"), None, num_frames, width, height, numbers)


def evaluation(metrics: Sequence[MetricFacts], clips: Sequence[ClipScores], **more: Any) -> Evaluation:
    facts = {"set_values": {}, "protocol": {}, "left_out": {}, "seconds": 1.0, "decode_seconds": 0.5, "peak_memory": 1}
    return Evaluation(tuple(metrics), tuple(clips), **(facts | more))


def write(
    path: Path, metrics: Sequence[MetricFacts], clips: Sequence[ClipScores], media: int = 12, **more: Any
) -> Evaluation:
    """The report of `clips`, all with frames of rising and falling grey."""
    found = evaluation(metrics, clips, **more)
    report = ReportBuilder(metrics, clips_with_media=media)
    for one in clips:
        size = one.width, one.height, one.num_frames
        report.add([one], greys(LEFT, 20, *size), [greys(RIGHT, -20, *size)], RATE)
    report.write(path, Comparison((found,)))
    return found


def three(path: Path) -> Evaluation:
    generator = torch.Generator().manual_seed(1)

    def some(scale: float, count: int = FRAMES) -> list[float]:
        return (torch.rand(count, generator=generator, dtype=torch.float64) * scale + scale).tolist()

    clips = [clip(name, psnr=some(20), lpips=some(0.1), flicker=some(2, FRAMES - 1)) for name in ("b/x", "b/y", "a")]
    more = {"set_values": {"fvd": 54.3612}, "protocol": {"num_frames": 9, "model": {"dtype": "float32", "seed": None}}}
    return write(path, [PSNR, LPIPS, FLICKER, FVD], clips, left_out={"c": "c.mp4: is broken"}, **more)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return path, three(path)


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll({selector!r})].map((element) => element.innerText.trim())")


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({selector!r}).click()")


def rows(browser: Browser) -> list[list[str]]:
    return browser.run(
        "[...document.querySelectorAll('#rows tr')].map((row) => [...row.children].map((cell) => "
        "cell.querySelector('a')?.title ?? cell.innerText))"
    )


SHOWN = """(() => {
    const level = (screen, x) => {
        const copy = new OffscreenCanvas(screen.width, screen.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(screen, 0, 0);
        return copy.getImageData(x, Math.floor(screen.height / 2), 1, 1).data[1];
    };
    const screens = [...document.querySelectorAll("#screens canvas")].filter((screen) => screen.clientWidth);
    const [last, right] = [screens.length - 1, screens[0].width - 1];
    return last ? screens.map((screen, side) => level(screen, side === last ? right : 0))
        : [level(screens[0], 0), level(screens[0], right)];
})()"""
"""The levels of grey at the left end of the first canvas, of those between, and at the right end of the last."""


def wait_for_frame(browser: Browser, frame: int) -> None:
    """Until the canvases show that frame of both sides, and the page says so."""
    browser.wait(f"parseInt(document.getElementById('position').textContent) === {frame}")
    left, right = LEFT + 20 * frame, RIGHT - 20 * frame
    browser.wait(f"(([l, r]) => Math.abs(l - {left}) < 5 && Math.abs(r - {right}) < 5)({SHOWN})")


def set_value(browser: Browser, selector: str, value: object) -> None:
    """As somebody who moves a slider or picks from a list."""
    browser.run(
        f"(() => {{ const field = document.querySelector({selector!r}); field.value = {str(value)!r};"
        "field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change')); })()"
    )


def test_the_numbers_are_those_of_the_evaluation(browser, page):
    path, found = page
    browser.look(1280, 900)
    browser.open(path)
    for metric, decimals in (("psnr", 2), ("lpips", 4), ("flicker", 4), ("fvd", 2)):
        summary = found.summary(metric)
        assert texts(browser, f"[data-metric={metric}] .mean")[0].split()[0] == f"{summary.mean:.{decimals}f}"
        if metric != "fvd":
            interval = f"95 % interval {summary.low:.{decimals}f} to {summary.high:.{decimals}f}"
            assert texts(browser, f"[data-metric={metric}] .interval") == [interval]
            assert texts(browser, f"[data-metric={metric}] .worst a") == [summary.worst]
    assert rows(browser) == [
        [one.name, f"{one.mean('psnr'):.2f}", f"{one.mean('lpips'):.4f}", f"{one.mean('flicker'):.4f}"]
        for one in found.worst_first("psnr")
    ]
    assert browser.problems == []


def test_decimals_are_those_of_the_metric_for_any_value(browser, tmp_path):
    clips = [clip(f"{at}", psnr=[9.16 + at] * FRAMES, lpips=[11.5 + at] * FRAMES) for at in range(2)]
    write(tmp_path / "report.html", [PSNR, LPIPS], clips)
    browser.open(tmp_path / "report.html", "#clip=0&frame=3")
    assert texts(browser, ".card .mean") == ["9.66 dB", "12.0000"]
    assert texts(browser, ".card .worst b") == ["9.16", "12.5000"]
    assert texts(browser, ".readout b") == ["9.16 dB", "11.5000"]
    assert rows(browser) == [["0", "9.16", "11.5000"], ["1", "10.16", "12.5000"]]
    assert all(len(number.split(".")[1]) == 2 for number in texts(browser, ".card .interval")[0].split()[3::2])


def test_every_frame_of_every_metric_can_be_read(browser, page):
    path, found = page
    browser.open(path, "#clip=2&frame=0")
    assert texts(browser, "#name") == ["a"]
    values = found.clips[2].values
    for frame in range(FRAMES):
        expected = [f"{values['psnr'][frame]:.2f} dB", f"{values['lpips'][frame]:.4f}"]
        # A change is that of its second frame: the first has none.
        expected.append(f"{values['flicker'][frame - 1]:.4f} levels" if frame else "none")
        assert texts(browser, ".readout b") == expected
        click(browser, "#forward")


def test_what_was_done_and_what_is_missing_is_said(browser, page):
    browser.open(page[0])
    click(browser, "#protocol summary")
    assert texts(browser, "#protocol tr") == ["num frames\t9", "model · dtype\tfloat32", "model · seed\tnone"]
    assert texts(browser, "details[open] summary")[0] == "1 clip left out"
    assert "c.mp4: is broken" in texts(browser, "main")[0]


def test_the_table_is_sorted_by_any_column_and_filtered_by_name(browser, page):
    path, found = page
    browser.open(path)

    def order() -> list[str]:
        return [row[0] for row in rows(browser)]

    lpips = [one.name for one in found.worst_first("lpips")]
    click(browser, "#columns th:nth-child(3) button")
    assert order() == lpips
    assert browser.run("document.querySelector('#columns th:nth-child(3)').ariaSort") == "descending"
    click(browser, "#columns th:nth-child(3) button")
    assert order() == lpips[::-1]
    assert browser.run("document.querySelector('#columns th:nth-child(3)').ariaSort") == "ascending"
    click(browser, "#columns th:first-child button")
    assert order() == ["a", "b/x", "b/y"]
    browser.run("document.getElementById('filter').focus()")
    browser.call("Input.insertText", text="B/")
    assert order() == ["b/x", "b/y"]
    assert texts(browser, "#count") == ["2 of 3 clips"]


def test_both_sides_play_in_step_and_stop_at_any_frame(browser, page):
    browser.open(page[0], "#clip=1&frame=3")
    wait_for_frame(browser, 3)
    assert browser.run("document.querySelector('#frame').max") == str(FRAMES - 1)
    for frame in (8, 0, 5, 4):
        set_value(browser, "#frame", frame)
        wait_for_frame(browser, frame)
    click(browser, "#back")
    wait_for_frame(browser, 3)
    click(browser, "#forward")
    wait_for_frame(browser, 4)
    browser.run("document.querySelector('#frame').focus()")
    browser.press("ArrowRight")
    wait_for_frame(browser, 5)

    click(browser, "#play")
    browser.wait("document.querySelector('#play').title === 'Pause'")
    browser.wait("window.seen ??= new Set(), seen.add(document.querySelector('#position').textContent), seen.size > 4")
    left, right = browser.run(SHOWN)
    assert left - LEFT == pytest.approx(RIGHT - right, abs=8)
    click(browser, "#play")
    browser.wait("document.querySelector('#play').title === 'Play'")
    stopped = int(texts(browser, "#position")[0].split()[0])
    wait_for_frame(browser, stopped)
    browser.wait(f"location.hash === '#clip=1&frame={stopped}'")
    assert browser.problems == []


def test_the_video_has_all_frames_and_their_time(page, tmp_path):
    from base64 import b64decode
    from json import loads

    from vaectl.video import VideoReader

    data = loads(page[0].read_text().split('id="data">')[1].split("</script>")[0])
    for one in data["media"].values():
        file = tmp_path / "preview.mp4"
        file.write_bytes(b64decode(one["video"].split(",")[1]))
        with VideoReader(file) as reader:
            assert reader.timestamps() == tuple(number / RATE for number in range(FRAMES))
            assert (reader.info.codec, reader.info.pixel_format) == ("h264", "yuv420p")


def test_a_click_into_a_plot_leads_there_and_the_pointer_reads_all_plots(browser, page):
    browser.open(page[0], "#clip=0&frame=0")
    wait_for_frame(browser, 0)
    browser.run("document.querySelector('#plots').scrollIntoView()")
    box = browser.run(
        "(() => { const b = document.querySelectorAll('.plot svg')[1].getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height]; })()"
    )
    x, y = box[0] + 52 + (box[2] - 60) * 6 / (FRAMES - 1), box[1] + box[3] / 2
    browser.mouse("mouseMoved", x, y)
    values = page[1].clips[0].values
    read = [f"{values['psnr'][6]:.2f} dB", f"{values['lpips'][6]:.4f}", f"{values['flicker'][5]:.4f} levels"]
    assert texts(browser, ".readout b") == read
    assert texts(browser, "#position") == ["0 / 8"]
    browser.mouse("mousePressed", x, y, button="left", clickCount=1, buttons=1)
    browser.mouse("mouseReleased", x, y, button="left", clickCount=1)
    wait_for_frame(browser, 6)


def test_one_side_can_be_wiped_over_the_other(browser, page):
    browser.open(page[0], "#clip=0&frame=0")
    wait_for_frame(browser, 0)
    set_value(browser, "#view", "wipe")
    wait_for_frame(browser, 0)
    browser.run("document.querySelector('#wipe').focus()")
    for _ in range(50):
        browser.press("ArrowRight")
    assert browser.run(SHOWN) == pytest.approx([LEFT, LEFT], abs=4)
    set_value(browser, "#wipe", 0.1)
    assert browser.run(SHOWN) == pytest.approx([LEFT, RIGHT], abs=4)


def test_the_worst_frame_is_shown_exactly_beside_its_errors(browser, page):
    path, found = page
    worst = found.clips[0].values["psnr"].index(min(found.clips[0].values["psnr"]))
    browser.open(path, "#clip=0&frame=0")
    assert texts(browser, "#worst-title") == [f"WORST FRAME BY PSNR: {worst}"]
    for side, level in (("real", LEFT + 20 * worst), ("generated", RIGHT - 20 * worst)):
        pixel = browser.run(f"""(async () => {{
            const image = document.querySelector(".worst-{side}");
            await image.decode();
            const canvas = Object.assign(document.createElement("canvas"), {{ width: 48, height: 32 }});
            canvas.getContext("2d").drawImage(image, 0, 0);
            return [image.naturalWidth, image.naturalHeight, ...canvas.getContext("2d").getImageData(9, 9, 1, 1).data];
        }})()""")
        assert pixel == [48, 32, level, level, level, 255]
    click(browser, "#to-worst")
    wait_for_frame(browser, worst)


def test_another_clip_is_chosen_by_its_link_and_by_the_address(browser, page):
    browser.open(page[0])
    click(browser, "#rows a[title='b/y']")
    browser.wait("document.querySelector('#name').textContent === 'b/y'")
    assert browser.run("document.querySelector('[aria-current]').title") == "b/y"
    assert texts(browser, "#rows tr.chosen a[aria-current]")[0].startswith("b/y")
    for nonsense in ("#clip=99&frame=x", "#frame=-3", "#%%%", "#clip=length", "#clip=0&frame=999"):
        browser.open(page[0], nonsense)
        assert len(rows(browser)) == 3, nonsense
        assert texts(browser, "#name")[0] in ("a", "b/x", "b/y")
        assert browser.problems == []
    assert texts(browser, "#position") == ["8 / 8"]


PLAYER_IN_VIEW = """(() => {
    const { top, bottom } = document.getElementById("player").getBoundingClientRect();
    return top >= document.getElementById("tabs").getBoundingClientRect().height && bottom <= innerHeight;
})()"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_link_to_a_clip_scrolls_to_it(browser, page, width):
    browser.look(width, 600)
    browser.open(page[0])
    assert not browser.run(PLAYER_IN_VIEW)
    browser.run("location.hash = '#clip=1&frame=2'")
    browser.wait(PLAYER_IN_VIEW)
    browser.open(page[0], "#clip=2&frame=3")
    browser.wait(PLAYER_IN_VIEW)
    browser.run("scrollTo(0, 0)")
    click(browser, ".card .worst a")
    browser.wait(PLAYER_IN_VIEW)
    browser.look(1280, 900)


def test_the_address_names_no_clip_before_one_is_chosen_and_a_click_in_the_table_next_to_it_does_not_scroll(
    browser, page
):
    browser.look(1280, 600)
    browser.open(page[0])
    wait_for_frame(browser, int(texts(browser, "#position")[0].split()[0]))
    browser.run("new Promise((done) => setTimeout(done, 300))")
    assert browser.run("location.hash") == ""
    browser.run("scrollTo(0, document.documentElement.scrollHeight)")
    before = browser.run("scrollY")
    click(browser, "#rows a[title='b/y']")
    browser.wait("document.querySelector('#name').textContent === 'b/y' && location.hash.includes('frame')")
    assert browser.run("scrollY") == before
    browser.look(1280, 900)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_of_the_window(browser, page, width):
    browser.look(width, 800)
    browser.open(page[0])
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.look(1280, 900)


@pytest.mark.parametrize("height", [600, 900, 1000, 1100, 1200, 2000])
def test_plots_are_as_wide_as_their_place_whether_the_page_scrolls_or_not(browser, page, height):
    browser.look(1280, height)
    browser.open(page[0])
    browser.wait("document.querySelector('.plot svg').clientWidth === document.querySelector('#plots').clientWidth")


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    levels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("system", "chosen", "dark"), [
    ("light", "", False), ("dark", "", True), ("light", "dark", True), ("dark", "light", False),
])  # fmt: skip
def test_light_and_dark_follow_the_system_or_the_choice_and_stay_readable(browser, page, system, chosen, dark):
    browser.look(1280, 900, system)
    browser.open(page[0])
    set_value(browser, "#theme", chosen)

    def color(selector: str, name: str = "color") -> float:
        return luminance(browser.run(f"getComputedStyle(document.querySelector({selector!r}))['{name}']"))

    paper, sheet = color("body", "backgroundColor"), color(".card", "backgroundColor")
    assert (paper < 0.05) == dark
    for selector, ground in (
        ("body", paper),
        (".muted", paper),
        ("figcaption", paper),
        (".readout", paper),
        (".card .interval", sheet),
        (".card a", sheet),
        (".table thead button", sheet),
    ):
        lighter, darker = max(ground, color(selector)), min(ground, color(selector))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector
    browser.look(1280, 900)


def test_paper_is_white_and_shows_the_whole_table(browser, page):
    browser.look(800, 1100, "dark", media="print")
    browser.open(page[0])
    assert browser.run("getComputedStyle(document.body).colorScheme") == "light"
    assert browser.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
    assert browser.run("getComputedStyle(document.querySelector('#scroller')).overflow") == "visible"
    browser.look(1280, 900)


def test_names_are_only_names(browser, tmp_path):
    names = [
        "</script><script>window.caught = 1</script>",
        "<img src=x onerror='window.caught = 2'>",
        "\"' onmouseover=window.caught=3 & &amp; ${window.caught=4} $title <!--",
        "名前 ünï 🎬 \u202eright to left",
        "\udcff no text",
    ]
    clips = [clip(name, psnr=[20.0 + number] * 2, num_frames=2) for number, name in enumerate(names)]
    protocol = {"<b>key</b>": "</table><script>window.caught = 5</script>", "path": "\udcfe"}
    write(tmp_path / "report.html", [PSNR], clips, protocol=protocol, left_out={names[1]: names[0]})
    browser.open(tmp_path / "report.html")
    assert [row[0] for row in rows(browser)] == names
    for number, name in enumerate(names):
        click(browser, f"#rows tr:nth-child({number + 1}) a")
        browser.wait(f"location.hash.startsWith('#clip={number}')")
        assert browser.run("document.querySelector('#name').textContent") == name
    assert browser.run("[typeof window.caught, document.images.length, document.scripts.length]") == ["undefined", 4, 2]
    assert browser.problems == []


@pytest.mark.parametrize(("metrics", "clips", "more"), [
    ([PSNR], [clip("exact", psnr=[math.inf] * FRAMES)], {}),
    ([PSNR], [clip("one", psnr=[math.inf, 30.0] + [31.0] * 7), clip("two", psnr=[30.0] * FRAMES)], {}),
    ([PSNR], [clip("one frame", num_frames=1, psnr=[30.0])], {}),
    ([FLICKER], [clip("changes", flicker=[1.0] * 7 + [2.0])], {}),
    ([FVD], [clip("x"), clip("y")], {"set_values": {"fvd": 12.5}}),
    ([FVD, PSNR], [clip("x", psnr=[20.0] * FRAMES), clip("y", psnr=[10.0] * FRAMES)], {"stopped_before": 3}),
    ([PSNR], [clip("odd", 33, 17, psnr=[30.0] * FRAMES)], {}),
    ([PSNR], [clip("tiny", 1, 1, psnr=[30.0] * FRAMES)], {}),
    ([PSNR], [clip("", psnr=[30.0] * FRAMES)], {}),
    ([PSNR], [clip("wide", 1400, 20, psnr=[30.0] * FRAMES)], {}),
    ([PSNR], [clip("no pictures", psnr=[30.0] * FRAMES)], {"media": 0}),
])  # fmt: skip
def test_there_is_no_dead_end(browser, tmp_path, metrics, clips, more):
    write(tmp_path / "report.html", metrics, clips, **more)
    browser.open(tmp_path / "report.html")
    if more.get("media") != 0:
        frame = int(texts(browser, "#position")[0].split()[0])
        wait_for_frame(browser, frame)
        browser.run("Promise.all([...document.images].map((image) => image.decode()))")
    for selector in ("#forward", "#back", "#to-worst"):
        click(browser, selector) if more.get("media") != 0 else None
    assert len(rows(browser)) == len(clips)
    page = texts(browser, "body")[0]
    assert "undefined" not in page
    assert "NaN" not in page
    assert ("Stopped early: 3 pairs" in page) == ("stopped_before" in more)
    assert ("The report has no video and no pictures." in page) == (more.get("media") == 0)
    assert browser.problems == []


def test_exact_frames_are_said_to_be_exact(browser, tmp_path):
    write(tmp_path / "report.html", [PSNR], [clip("exact", psnr=[math.inf] * 8 + [50.0]), clip("b", psnr=[40.0] * 9)])
    browser.open(tmp_path / "report.html", "#clip=0&frame=2")
    assert texts(browser, ".card .mean") == ["∞ dB"]
    assert "1 clip not finite" in texts(browser, ".card .ends")[0]
    assert dict(rows(browser)) == {"b": "40.00", "exact": "∞"}
    assert texts(browser, ".readout b") == ["∞ dB"]


def test_thousands_of_clips_open_at_once(browser, tmp_path):
    clips = [clip(f"folder/{number:04}", psnr=[20 + number / 100] * FRAMES) for number in range(3000)]
    write(tmp_path / "report.html", [PSNR], clips, media=2)
    assert (tmp_path / "report.html").stat().st_size < 2**20
    browser.open(tmp_path / "report.html")
    assert browser.run("performance.getEntriesByType('navigation')[0].domComplete") < 3000
    assert len(rows(browser)) == 200
    assert texts(browser, "#count") == ["3000 clips, the first 200 shown"]
    click(browser, "#more")
    assert len(rows(browser)) == 1200
    set_value(browser, "#filter", 2987)
    assert rows(browser) == [["folder/2987", "49.87"]]
    click(browser, "#rows a")
    browser.wait("document.querySelector('#name').textContent === 'folder/2987'")
    assert texts(browser, "#no-media") == ["The report has video and pictures of the 2 worst clips only, by psnr."]
    set_value(browser, "#frame", 4)
    assert texts(browser, ".readout b") == ["49.87 dB"]
