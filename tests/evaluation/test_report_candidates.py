"""The report of several candidates: the table, the tabs, the player with all sides, the plots, in a real browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.evaluation.browser import Browser
from tests.evaluation.test_report import (
    FRAMES,
    LPIPS,
    PLAYER_IN_VIEW,
    PSNR,
    RATE,
    SHOWN,
    click,
    clip,
    evaluation,
    greys,
    luminance,
    rows,
    set_value,
    texts,
)
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import cost_remarks, difference_remarks, difference_table
from vaectl.evaluation.report import ReportBuilder
from vaectl.evaluation.results import Cost, Evaluation
from vaectl.metrics import FACTS, MetricFacts

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("small", "<img src=x onerror='window.caught = 1'>", "runs/" + "very-long-name/" * 12 + "step-2000")
FVD = FACTS["fvd"]
SIDES = ((40, 10), (200, -10), (60, 5), (150, 0))
"""Grey of the first frame, and the change from frame to frame: the original, and each candidate."""
GROUP = 4


TABLE = "[...document.querySelectorAll('[aria-label=\"Table of candidates\"] tbody tr')]"

COSTS = "[...document.querySelectorAll('[aria-label=\"Cost of candidates\"] tbody tr')]"

DIFFERENCES = "[...document.querySelectorAll('#significance tbody tr')]"


def cost(bits: float) -> Cost:
    return Cost(9_400_000, (GROUP, 8), 16, bits, 31.25, 12.5, 2**29, 2**30)


def write(
    path: Path, names: Sequence[str], psnr: Sequence[Sequence[float]], bits: Sequence[float | None]
) -> tuple[Evaluation, ...]:
    """A report of clips with these means; each next frame is better by 0.1 dB."""
    metrics, report, of_clips = (PSNR, LPIPS, FVD), ReportBuilder((PSNR, LPIPS, FVD), names), []
    for number, means in enumerate(psnr):
        series = [[mean + 0.1 * (frame - FRAMES // 2) for frame in range(FRAMES)] for mean in means]
        scores = [clip(f"clip {number}", psnr=one, lpips=[value / 100 for value in one]) for one in series]
        sides = [greys(*SIDES[side % len(SIDES)]) for side in range(len(names) + 1)]
        report.add(scores, sides[0], sides[1:], RATE)
        of_clips.append(scores)
    evaluations = tuple(
        evaluation(
            metrics, [scores[number] for scores in of_clips], name=name, temporal_compression=GROUP,
            set_values={"fvd": 20.0 + number}, protocol={"num_frames": FRAMES, "model": {"path": name}},
            cost=None if rate is None else cost(rate),
        )
        for number, (name, rate) in enumerate(zip(names, bits, strict=True))
    )  # fmt: skip
    report.write(path, Comparison(evaluations))
    return evaluations


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Evaluation, ...]]:
    path = tmp_path_factory.mktemp("candidates") / "report.html"
    return path, write(path, NAMES, [[30, 32, 31], [20, 28, 27], [25, 24, 23.5]], [2.0, 0.5, None])


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ten") / "report.html"
    names = [f"{NAMES[2]}-{number}" for number in range(10)]
    write(path, names, [[20.0 + number for number in range(10)]], [1.0 + number % 3 for number in range(10)])
    return path


def wait_for_sides(browser: Browser, frame: int) -> None:
    """Until the page says that it shows this frame, and each side does."""
    browser.wait(f"parseInt(document.getElementById('position').textContent) === {frame}")
    levels = [first + step * frame for first, step in SIDES]
    browser.wait(f"((shown) => {levels}.every((level, side) => Math.abs(level - shown[side]) < 5))({SHOWN})")


def test_the_table_marks_the_best_and_the_second_and_knows_the_cost(browser, page):
    browser.look(1280, 900)
    browser.open(page[0])
    assert texts(browser, "h1") == ["3 candidates on 3 clips"]
    cells = browser.run(f"{TABLE}.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))")
    assert [row[0] for row in cells] == list(NAMES)
    for row, one in zip(cells, page[1], strict=True):
        means = [one.summary(name).mean for name in ("psnr", "lpips", "fvd")]
        shown = [cell.split("\n")[0] for cell in row[1:4]]
        assert shown == [f"{means[0]:.2f}", f"{means[1]:.4f}", f"{means[2]:.2f}"]
    for mark, expected in (("b", [1, 0, 0]), ("u", [2, 2, 1])):  # psnr: 25, 28, 27.17; lpips so too; fvd: 20, 21, 22
        for column, candidate in enumerate(expected, start=1):
            marked = browser.run(f"{TABLE}.map((row) => Boolean(row.cells[{column}].querySelector('{mark}')))")
            assert marked == [number == candidate for number in range(3)], (mark, column)
    assert [len(row) for row in cells] == [4] * 3
    costs = browser.run(f"{COSTS}.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))")
    assert costs == [
        [NAMES[0], "9.4", "4x8x8", "16", "2.000", "31", "12", "0.50", "1.0"],
        [NAMES[1], "9.4", "4x8x8", "16", "0.500", "31", "12", "0.50", "1.0"],
    ]
    assert texts(browser, ".overview > p")[1:] == list(cost_remarks(page[1]))


@pytest.mark.parametrize(("width", "count"), [(700, 4), (860, 5), (1280, 5)])
def test_the_tables_of_metrics_and_the_cost_need_no_scroll_bar(browser, tmp_path, width, count):
    names = ("psnr", "ssim", "lpips", "ms_ssim", "flicker")[:count]
    metrics = [MetricFacts(name, "dB" if name == "psnr" else "", "higher", of_set=False) for name in names]
    evaluations = [
        evaluation(
            metrics,
            [clip(f"{at}", **{name: [30.5 + number + at] * FRAMES for name in names}) for at in range(3)],
            name=f"candidate {number}", set_values={}, cost=cost(2.0),
        )
        for number in range(2)
    ]  # fmt: skip
    ReportBuilder(metrics, ["builtin", "checkpoint-00000200"]).write(
        tmp_path / "report.html", Comparison(tuple(evaluations))
    )
    browser.look(width, 800)
    browser.open(tmp_path / "report.html")
    widths = browser.run(
        "[...document.querySelectorAll('.overview > .scroll')].map((box) => box.scrollWidth - box.clientWidth)"
    )
    assert widths == [0, 0]
    browser.look(1280, 900)


def test_one_candidate_has_its_cost_too(browser, tmp_path):
    one = evaluation([PSNR], [clip("a", psnr=[30.0] * FRAMES)], cost=cost(2.0))
    ReportBuilder([PSNR], ["builtin"]).write(tmp_path / "report.html", Comparison((one,)))
    browser.open(tmp_path / "report.html")
    assert browser.run(f"{COSTS}.map((row) => row.cells[0].innerText + ' ' + row.cells[4].innerText)") == [
        "builtin 2.000"
    ]


def test_a_link_scrolls_to_the_clip_below_the_tabs(browser, page):
    browser.look(1280, 900)
    browser.open(page[0], "#candidate=1&clip=2&frame=3")
    browser.wait(PLAYER_IN_VIEW)
    browser.look(1280, 900)


def test_a_candidate_can_be_hidden_and_the_axes_follow(browser, page):
    browser.open(page[0], "#candidate=1&clip=0")
    bad = "#positions .legend button:nth-child(1)"

    def lines() -> list[int]:
        boxes = ("#rate-charts figure:first-child", "#position-charts figure:first-child", ".plot:first-child")
        return [browser.run(f"document.querySelectorAll('{box} path.line').length") for box in boxes]

    def lowest() -> float:
        ticks = "[...document.querySelectorAll('#position-charts figure:first-child .tick[text-anchor=end]')]"
        return min(map(float, browser.run(f"{ticks}.map((tick) => tick.textContent)")))

    assert lines() == [2, 3, 3]
    before = lowest()
    browser.run(f"document.querySelector('{bad}').focus()")
    browser.press(" ")
    assert lines() == [1, 2, 2]
    assert lowest() > before + 0.5
    pressed = "[...document.querySelectorAll('.legend button')].map((button) => button.ariaPressed)"
    assert browser.run(pressed) == ["false", "true", "true"] * 3
    assert len(texts(browser, ".plot:first-child .readout b")) == 2
    for number in (2, 3):  # the last one stays
        click(browser, f"#plots-key button:nth-child({number})")
    assert lines()[1:] == [1, 1]
    click(browser, bad)
    assert lines()[1:] == [2, 2]
    assert browser.problems == []


def test_significance_is_that_of_the_comparison(browser, page):
    path, found = page
    browser.open(path)
    click(browser, "#significance summary")
    _, expected, _ = difference_table(Comparison(found))
    shown = browser.run(f"{DIFFERENCES}.map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert shown == expected
    assert len(shown) == 4  # two metrics, two candidates against the first
    assert texts(browser, "#significance p") == list(difference_remarks(Comparison(found)))


def test_tabs_switch_by_mouse_key_and_address(browser, page):
    path, found = page
    browser.open(path, "#candidate=2&clip=1&frame=3")
    wait_for_sides(browser, 3)

    def shown() -> tuple[list[str], list[str], list[list[str]]]:
        chosen = browser.run(
            "[...document.querySelectorAll('[role=tab][aria-selected=true] span')].map((s) => s.title)"
        )
        return chosen, texts(browser, ".candidate:not([hidden]) [data-metric=psnr] .mean"), rows(browser)

    def expected(number: int) -> tuple[list[str], list[str], list[list[str]]]:
        table = [
            [one.name, f"{one.mean('psnr'):.2f}", f"{one.mean('lpips'):.4f}"]
            for one in found[number].worst_first("psnr")
        ]
        return [NAMES[number]], [f"{found[number].summary('psnr').mean:.2f} dB"], table

    assert shown() == expected(2)
    click(browser, "#tab-0")
    assert shown() == expected(0)
    browser.wait("location.hash === '#candidate=0&clip=1&frame=3'")
    browser.run("document.querySelector('#tab-0').focus()")
    browser.press("ArrowRight")
    assert shown() == expected(1)
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")  # around the end
    assert shown() == expected(2)
    assert browser.run("document.activeElement.id") == "tab-2"
    assert browser.run("[...document.querySelectorAll('[role=tab]')].map((tab) => tab.tabIndex)") == [-1, -1, 0]
    assert browser.run("document.querySelector('[role=tabpanel]').getAttribute('aria-labelledby')") == "tab-2"
    click(browser, ".candidates tbody tr:nth-child(2) a")
    browser.wait("document.querySelector('#tab-1').ariaSelected === 'true'")
    assert texts(browser, "#name") == ["clip 1"]
    click(browser, ".candidate:not([hidden]) .worst a")
    browser.wait("document.querySelector('#name').textContent === 'clip 2'")
    assert browser.run("document.querySelector('#tab-1').ariaSelected") == "true"
    for nonsense in ("#candidate=9", "#candidate=-1&clip=0", "#candidate=length"):
        browser.open(path, nonsense)
        assert shown() == expected(0), nonsense
    assert browser.problems == []


def test_all_sides_play_in_step_and_any_two_can_be_wiped(browser, page):
    browser.open(page[0], "#candidate=1&clip=0&frame=0")
    wait_for_sides(browser, 0)
    captions = "[...document.querySelectorAll('.caption')].map((one) => one.lastChild.title ?? one.innerText)"
    assert browser.run(captions) == ["original", *NAMES]
    for frame in (8, 3):
        set_value(browser, "#frame", frame)
        wait_for_sides(browser, frame)
    click(browser, "#forward")
    wait_for_sides(browser, 4)
    levels = [first + 4 * step for first, step in SIDES]
    set_value(browser, "#view", "wipe")
    assert browser.run(SHOWN) == pytest.approx([levels[0], levels[2]], abs=4)  # the candidate of the tab
    set_value(browser, "#right", 3)
    set_value(browser, "#left", 1)
    assert browser.run(SHOWN) == pytest.approx([levels[1], levels[3]], abs=4)
    click(browser, "#tab-0")
    browser.wait("document.querySelector('#right').value === '1' && document.querySelector('#left').value === '0'")
    browser.wait(f"Math.abs({SHOWN}[1] - {levels[1]}) < 5")
    assert browser.problems == []


def test_plots_have_a_line_for_each_candidate_with_its_numbers(browser, page):
    path, found = page
    browser.open(path, "#candidate=1&clip=2&frame=5")
    values = [one.clips[2].values for one in found]
    assert texts(browser, ".plots .readout b") == [
        *(f"{one['psnr'][5]:.2f}" for one in values),
        *(f"{one['lpips'][5]:.4f}" for one in values),
    ]
    assert browser.run("document.querySelectorAll('.plots svg path.line').length") == 6
    colors = (
        "[...document.querySelectorAll('.plots .plot:first-child path.line')].map((p) => getComputedStyle(p).stroke)"
    )
    assert len(set(browser.run(colors))) == 3
    assert browser.run("document.querySelectorAll('.plots .front').length") == 2
    assert browser.run("document.querySelectorAll('#pictures img').length") == 7


def test_rate_and_distortion_shows_the_candidates_whose_cost_is_known(browser, page):
    path, found = page
    browser.open(path)
    assert texts(browser, "#rate-charts h3") == ["PSNR (dB) ↑", "LPIPS ↓", "FVD ↓"]
    points = "[...document.querySelectorAll('#rate-charts figure:first-child .point')]"
    assert browser.run(f"{points}.map((point) => point.textContent)") == [
        f"{one.name}: {one.summary('psnr').mean:.2f} dB" for one in found[:2]
    ]
    across = browser.run(f"{points}.map((point) => Number(point.getAttribute('cx')))")
    assert across[0] > across[1]  # 2 bits, 0.5 bits


def test_error_by_position_has_both_charts_of_any_metric(browser, page):
    path, found = page
    browser.open(path)

    def points(chart: int) -> list[str]:
        found = f"[...document.querySelectorAll('#position-charts figure:nth-child({chart}) .point')]"
        return browser.run(f"{found}.map((point) => point.textContent)")

    def expected(number: int) -> list[str]:
        """Frame 0 of its own, then positions 0 to 3: frames 1 and 5, 2 and 6, ..."""
        middle = found[number].summary("psnr").mean
        return [f"{NAMES[number]}: {middle + offset:.2f} dB" for offset in (-0.4, -0.1, 0.0, 0.1, 0.2)]

    assert points(1) == [text for number in range(3) for text in expected(number)]
    assert len(points(2)) == 3 * FRAMES
    assert points(2)[0] == expected(0)[0]
    set_value(browser, "#position-metric", 1)
    assert texts(browser, "#position-charts h3") == ["LPIPS WITHIN A GROUP", "LPIPS OVER TIME"]


def test_names_of_candidates_are_only_names(browser, page):
    browser.open(page[0], "#candidate=1")
    click(browser, "#protocol summary")
    differing = texts(browser, "#protocol tr")
    assert differing[0].split("\t")[-3:] == list(NAMES)
    assert differing[1] == f"num frames\t{FRAMES}"
    assert differing[2].split("\t") == ["model · path", *NAMES]
    assert browser.run("[typeof window.caught, document.scripts.length]") == ["undefined", 2]
    assert browser.problems == []


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (1280, "dark")])
def test_ten_candidates_fit_any_window_and_their_lines_can_be_told_apart(browser, ten, width, scheme):
    browser.look(width, 800, scheme)
    browser.open(ten)
    assert browser.run("document.documentElement.scrollWidth") <= width
    lines = browser.run(
        "[...document.querySelectorAll('.plots .plot:first-child path.line')].map((path) => "
        "[getComputedStyle(path).stroke, getComputedStyle(path).strokeDasharray])"
    )
    assert len({tuple(line) for line in lines}) == 10
    paper = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    for color, _ in lines:
        lighter, darker = max(paper, luminance(color)), min(paper, luminance(color))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, color
    assert browser.run("document.querySelectorAll('#screens canvas').length") == 11
    assert browser.problems == []
    browser.look(1280, 900)


def test_without_a_known_cost_or_compression_their_plots_are_left_out(browser, tmp_path):
    path = tmp_path / "report.html"
    scores = [clip("only", psnr=[value] * FRAMES) for value in (30.0, math.inf)]
    report = ReportBuilder([PSNR], ("a", "exact"))
    report.add(scores, greys(*SIDES[0]), [greys(*side) for side in SIDES[1:3]], RATE)
    report.write(
        path, Comparison(tuple(evaluation([PSNR], [one], name=name) for name, one in zip("ab", scores, strict=True)))
    )
    browser.open(path)
    assert browser.run("document.querySelector('#rates').hidden")
    assert texts(browser, "#position-charts h3") == ["PSNR (dB) OVER TIME"]
    assert texts(browser, ".candidates b") == ["∞"]
    assert "NaN" not in texts(browser, "body")[0]
    assert browser.problems == []
