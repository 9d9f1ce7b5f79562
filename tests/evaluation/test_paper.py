"""Tables as papers print them: marks, names with any letters, Markdown and LaTeX."""

import re
from dataclasses import replace
from math import inf

import pytest

from tests.evaluation.results import PROTOCOL, evaluation
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import (
    codec_remarks,
    cost_columns,
    cost_remarks,
    difference_blocks,
    difference_table,
    incomplete,
    marked,
    metric_columns,
    metric_remarks,
    remarks,
    two_digits,
)
from vaectl.evaluation.paper_files import write_latex, write_markdown
from vaectl.evaluation.results import Cost

HOSTILE = "[a]*_50%_of|`x`#1&2~3^4\\{5}$6$--<b>"
COST = Cost(5_500_000, (4, 8), 16, 0.125, 33.3, 22.2, 2**30)
A = evaluation("a", {"fvd": 60.0}, psnr=[30, 31], lpips=[0.2, 0.3])
B = replace(evaluation(HOSTILE, {"fvd": 9.0}, psnr=[31, 31], lpips=[0.1, 0.3]), cost=COST)
C = evaluation("c", {"fvd": 55.0}, psnr=[20, 22], lpips=[0.2, 0.3])


def cells(comparison, name):
    return next(column.cells for column in metric_columns(comparison) if column.name == name)


def test_the_best_and_the_second_of_each_metric_are_ranked():
    comparison = Comparison((A, B, C))
    assert cells(comparison, "psnr") == (("30.50", 2), ("31.00", 1), ("21.00", 0))
    assert cells(comparison, "lpips") == (("0.2500", 2), ("0.2000", 1), ("0.2500", 2))  # as equal as they look
    assert cells(comparison, "fvd") == (("60.00", 0), ("9.00", 1), ("55.00", 2))  # equal decimals


@pytest.mark.parametrize(
    ("psnr", "found"),
    [
        ([50, 51], ["+20.00", "+0.000030"]),
        ([9.5, 8.5], ["-21.50", "+0.000030"]),
        ([30.001, 31.001], ["+0.0010", "+0.000030"]),
    ],
)
def test_all_differences_in_a_metric_have_as_many_decimals_as_the_least_needs(psnr, found):
    a, b = evaluation("a", psnr=[30, 31], ssim=[0.9, 0.9]), evaluation("b", psnr=psnr, ssim=[0.90002, 0.90004])
    _, rows, names = difference_table(Comparison((a, b)))
    assert [row[names] for row in rows] == found
    assert rows[1][names + 1] == "-0.000097 to +0.000157"


def test_decimals_depend_on_the_metric_alone():
    low = evaluation("low", {"fvd": 0.5}, psnr=[9, 9], vmaf=[1, 1], ssim=[0, 0])
    high = evaluation("high", {"fvd": 600}, psnr=[31, 31], vmaf=[99, 99], ssim=[1, 1])
    comparison = Comparison((low, high))
    shown = {column.name: [text for text, _ in column.cells] for column in metric_columns(comparison)}
    assert shown == {
        "psnr": ["9.00", "31.00"],
        "vmaf": ["1.00", "99.00"],
        "ssim": ["0.0000", "1.0000"],
        "fvd": ["0.50", "600.00"],
    }
    assert low.clips[0].figures == "psnr 9.00, vmaf 1.00, ssim 0.0000"


def test_the_table_of_differences_in_parts():
    titles, blocks = difference_blocks(Comparison((A, B, C), all_pairs=True))
    assert titles == ["metric", "difference", "95 % interval", "wins", "p"]
    assert list(blocks) == [(HOSTILE, "a"), ("c", "a"), ("c", HOSTILE)]
    assert [row[:2] for row in blocks["c", "a"]] == [["psnr ↑", "-9.50"], ["lpips ↓", "+0.0000"]]


def test_nothing_is_best_where_all_are_equal_and_missing_numbers_have_no_rank():
    more = evaluation("b", psnr=[30, 31], ssim=[0.9, 0.9])
    assert cells(Comparison((A, more)), "psnr") == (("30.50", 0), ("30.50", 0))
    assert cells(Comparison((A, more)), "ssim") == (("", 0), ("0.9000", 0))
    exact = evaluation("exact", psnr=[inf, inf])
    assert cells(Comparison((A, exact)), "psnr") == (("30.50", 2), ("inf", 1))


def test_markdown(tmp_path):
    write_markdown(tmp_path / "t.md", Comparison((A, B)))
    text = (tmp_path / "t.md").read_text()
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == ["Candidate", "PSNR (dB) ↑", "LPIPS ↓", "FVD ↓"]
    assert rows[2] == ["a", "<ins>30.50</ins>", "<ins>0.2500</ins>", "<ins>60.00</ins>"]
    assert rows[3][1:] == ["**31.00**", "**0.2000**", "**9.00**"]
    assert rows[4][:6] == ["Candidate", "Params (M)", "Compression", "Channels", "Latent (bpp)", "Encode (fps)"]
    assert rows[7][1:] == ["5.5", "4x8x8", "16", "0.125", "33", "22", "1.0"]
    assert [len(row) for row in rows[:8]] == [4] * 4 + [8] * 4  # a | in the name makes no column
    unescaped = re.sub(r"\\(.)", r"\1", rows[3][0])
    assert unescaped == HOSTILE
    assert "\n- 2 clips: 2 frames, shorter side to 64, crop 64x64 from the middle\n- LPIPS: AlexNet\n" in text
    assert "\n- Speed and peak memory: on cpu, float32, 2 frames of 64x64\n" in text
    assert rows[8][:3] == ["Metric", "Candidate", "Difference"]
    assert ["PSNR ↑", unescaped, "+0.50"] == [re.sub(r"\\(.)", r"\1", cell) for cell in rows[10][:3]]
    assert text.rstrip().endswith("-->")
    assert "/home/me" not in text


def test_latex(tmp_path):
    write_latex(tmp_path / "a_b.tex", Comparison((A, B)))
    text = (tmp_path / "a_b.tex").read_text()
    assert "\na & \\underline{30.50} & \\underline{0.2500} & \\underline{60.00} \\\\\n" in text
    assert r"\textbf{31.00} & \textbf{0.2000} & \textbf{9.00} \\" in text
    assert "\n & PSNR $\\uparrow$ &  &  \\\\\nCandidate & (dB) & LPIPS $\\downarrow$ & FVD $\\downarrow$ \\\\\n" in text
    assert r"& 5.5 & 4$\times$8$\times$8 & 16 & 0.125 " in text
    assert "Candidate & (M) & Compr. & Ch. & (bpp) " in text
    assert r"\caption{2 clips: 2 frames of $64\times64$. LPIPS: AlexNet. Best in bold, second underlined.}" in text
    assert r"on cpu, float32, 2 frames of $64\times64$." in text
    assert re.findall(r"\\label{(.*)}", text) == ["tab:a-b", "tab:a-b-cost", "tab:a-b-differences"]
    escaped = (
        r"{[}a]{*}\_50\%\_of\textbar{}\textasciigrave{}x\textasciigrave{}\#1\&2\textasciitilde{}3\textasciicircum{}4\textbackslash{}\{5\}\$6\$-{}-"
        r"\textless{}b\textgreater{}"
    )
    assert f"\n{escaped} & " in text
    assert rf"\multicolumn{{5}}{{l}}{{{escaped} against a}} \\" in text
    tables = re.findall(r"\\begin{tabular}{(\w+)}\n(.*?)\\end{tabular}", text, flags=re.DOTALL)
    assert [columns for columns, _ in tables] == ["lrrr", "lrrrr", "lrrr", "lrrrr"]
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert [line for line in text.splitlines() if re.search(r"(?<!\\)%", line)] == text.splitlines()[:2]


def test_columns_that_do_not_fit_a_page_in_latex_are_tables_below_each_other(tmp_path):
    a, b = (replace(each, name=each.name * 30) for each in (A, evaluation("b", psnr=[31, 31], lpips=[0.1, 0.3])))
    write_latex(tmp_path / "t.tex", Comparison((replace(a, cost=COST), b)))
    text = (tmp_path / "t.tex").read_text()
    assert re.findall(r"\\begin{tabular}{(\w+)}", text) == ["lrrr", "lrrrrr", "lrr", "lrrrr"]
    assert text.count(r"\begin{table}") == 3


def test_costs_that_are_not_known_have_no_column_and_no_number():
    columns = {f"{column.name} {column.unit}": column.cells for column in cost_columns(Comparison((A, B)))}
    assert columns["encode fps"] == (("", 0), ("33", 0))
    assert columns["encode peak GiB"] == (("", 0), ("1.0", 0))
    assert "decode peak GiB" not in columns
    assert cost_columns(Comparison((A, C))) == []


@pytest.mark.parametrize("write", [write_markdown, write_latex])
def test_one_candidate_has_a_row_and_no_marks(write, tmp_path):
    write(tmp_path / "t", Comparison((A,)))
    text = (tmp_path / "t").read_text()
    assert "30.50" in text
    assert not re.search(r"\*\*|<ins>|textbf|underline|bold", text)


@pytest.mark.parametrize("write", [write_markdown, write_latex])
def test_names_and_protocols_with_line_breaks_stay_in_their_line(write, tmp_path):
    clips = PROTOCOL["clips"] | {"resize": "a\n\\end{document}", "crop": "--> <script>"}
    bad = replace(A, name="x\ny", protocol=PROTOCOL | {"clips": clips})
    write(tmp_path / "bad", Comparison((bad, B)))
    write(tmp_path / "good", Comparison((A, B)))
    text, good = (tmp_path / "bad").read_text(), (tmp_path / "good").read_text()
    assert text.count("\n") == good.count("\n")
    assert write is write_latex or text.count("-->") == 1
    assert "\\end{document}" not in text.replace("\\\\end{document}", "")


@pytest.mark.parametrize("write", [write_markdown, write_latex])
def test_files_have_no_folders_of_the_user(write, tmp_path):
    lpips = {"net": "vgg", "weights": "/home/me/vgg.pth, SHA-256 01"}
    own = {"name": "/home/me/mine.toml", "changed": [], "hash": "0123456789", "metrics": {"lpips": lpips}}
    write(tmp_path / "t", Comparison((replace(A, protocol=PROTOCOL | own), B)))
    text = (tmp_path / "t").read_text()
    assert "/home/me" not in text
    assert "weights vgg.pth" in text
    assert "vgg.pth, SHA-256 01" in text
    assert "mine.toml" in text


def test_what_ffmpeg_computed_is_stated_for_the_candidates_that_have_it():
    facts = {"model": "vmaf_v0.6.1", "libvmaf": "3.2.0", "ffmpeg_of": "PyAV 19.0.2", "frames": "YUV 4:2:0"}
    protocol = PROTOCOL | {"metrics": {"vmaf": facts}}
    one, other = (replace(evaluation(name, vmaf=[99, 99]), protocol=protocol) for name in "xy")
    lines = list(remarks(Comparison((A, one, other))))
    assert lines[0] == "lpips: AlexNet"
    assert lines[1] == "vmaf: harmonic mean x 99.00, y 99.00, model vmaf_v0.6.1, libvmaf 3.2.0 of PyAV 19.0.2"
    assert lines[2] == "vmaf: of frames in YUV 4:2:0"
    assert list(codec_remarks([A])) == []


def test_the_networks_of_lpips_and_fvd_are_stated_without_folders():
    def lines(evaluation, **settings):
        return list(metric_remarks([replace(evaluation, protocol=PROTOCOL | {"metrics": settings})]))

    i3d = {"detector": "I3D of DeepMind, trained on Kinetics-400"}
    assert lines(A, lpips={"net": "vgg", "weights": "/home/me/vgg.pth, SHA-256 01"}, fvd=i3d) == [
        "lpips: VGG16, weights vgg.pth",
        "fvd: I3D, 2 clips of 2 frames; it depends on the number of clips, and is too high for so few",
    ]
    many = evaluation("many", {"fvd": 60.0}, psnr=[30] * 400)
    windows = replace(many, clips=(*many.clips[1:], replace(many.clips[0], num_frames=6, windows=3)))
    assert lines(windows, fvd={"detector": "/home/me/i3d.pt, SHA-256 01"}) == [
        "fvd: detector i3d.pt, 402 clips of 2 frames; it depends on the number of clips"
    ]
    assert lines(replace(many, set_values={}), fvd=i3d) == []  # stopped by Ctrl-C
    assert lines(A, lpips="?", fvd=None) == []


def test_where_cost_was_measured_is_stated():
    assert list(cost_remarks([A])) == []
    assert list(cost_remarks([A, B])) == ["speed and peak memory: on cpu, float32, 2 frames of 64x64"]
    gpu = PROTOCOL["model"] | {"device": "cuda", "dtype": "bfloat16", "tiles": True}
    other = replace(C, cost=replace(COST, warm=False), protocol=PROTOCOL | {"model": gpu})
    compiled = replace(B, protocol=PROTOCOL | {"model": PROTOCOL["model"] | {"compiled": True}})
    assert list(cost_remarks([compiled])) == ["speed and peak memory: on cpu, float32, 2 frames of 64x64, compiled"]
    assert list(cost_remarks([A, replace(B, name="b"), other])) == [
        "speed and peak memory of b: on cpu, float32, 2 frames of 64x64",
        "speed and peak memory of c: on cuda, bfloat16, 2 frames of 64x64, in tiles, without warm-up",
    ]


def test_two_significant_digits():
    values = (0.04361, 0.996, 1.0, 7.83, 9.96, 12.5001, 143.0, 1430.0, 0.0, inf, None)
    assert [two_digits(value) for value in values] == [
        *("0.044", "1.0", "1.0", "7.8", "10", "13", "140", "1400", "0.0", "Infinity", ""),
    ]


@pytest.mark.parametrize("write", [write_markdown, write_latex])
def test_what_was_not_compared_is_stated(write, tmp_path):
    stopped = replace(A, stopped_before=7, left_out={"x": "x: broken", "y": "y: broken"})
    write(tmp_path / "t.txt", Comparison((stopped, B)))
    text = (tmp_path / "t.txt").read_text()
    assert "Stopped: 7 more clips were not compared" in text
    assert f"Left out: 2 of {2 + len(A.clips)} clips" in text
    assert list(incomplete([replace(A, stopped_before=1)])) == ["stopped: 1 more clip was not compared"]
    assert list(incomplete([A])) == []


def test_names_are_names_in_latex_even_if_they_look_like_figures(tmp_path):
    names = ("inf", "-1.5", "3x4", "a`b")
    write_latex(tmp_path / "t.tex", Comparison(tuple(replace(A, name=name) for name in names)))
    rows = [line.split(" & ")[0] for line in (tmp_path / "t.tex").read_text().splitlines()]
    for name in (*names[:3], r"a\textasciigrave{}b"):
        assert name in rows


def test_one_clip_and_one_frame_are_singular(tmp_path):
    frame = PROTOCOL | {"clips": PROTOCOL["clips"] | {"num_frames": 1}}
    one = [replace(evaluation(name, psnr=[(number,)]), protocol=frame) for name, number in (("a", 30.0), ("b", 31.0))]
    comparison = Comparison(tuple(replace(each, clips=(replace(each.clips[0], num_frames=1),)) for each in one))
    write_markdown(tmp_path / "t.md", comparison)
    text = (tmp_path / "t.md").read_text()
    assert "1 clip: 1 frame, shorter side" in text
    assert "mean over 1 clip, paired" in text
    assert not marked(Comparison((A, replace(A, name="same"))))
    assert marked(comparison)
