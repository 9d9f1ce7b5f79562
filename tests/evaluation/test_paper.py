"""Tables as papers print them: marks, names with any letters, Markdown and LaTeX."""

import re
from dataclasses import replace
from math import inf

import pytest

from tests.evaluation.results import PROTOCOL, evaluation
from vaectl.evaluation.comparison import Comparison
from vaectl.evaluation.paper import cost_columns, metric_columns, write_latex, write_markdown
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
    assert rows[0][:5] == ["Model", "PSNR (dB) ↑", "LPIPS ↓", "FVD ↓", "Parameters (M)"]
    assert rows[2][:5] == ["a", "<ins>30.50</ins>", "<ins>0.2500</ins>", "<ins>60.00</ins>", "-"]
    assert rows[3][1:6] == ["**31.00**", "**0.2000**", "**9.00**", "5.5", "4x8x8"]
    assert len({len(row) for row in rows[:4]}) == 1  # a | in the name makes no column
    unescaped = re.sub(r"\\(.)", r"\1", rows[3][0])
    assert unescaped == HOSTILE
    assert "2 clips: 2 frames, shorter side to 64, crop 64x64 from the middle." in text
    assert ["PSNR ↑", unescaped, "+0.5000"] == [re.sub(r"\\(.)", r"\1", cell) for cell in rows[6][:3]]
    assert text.rstrip().endswith("-->")
    assert "/home/me" not in text


def test_latex(tmp_path):
    write_latex(tmp_path / "t.tex", Comparison((A, B)))
    text = (tmp_path / "t.tex").read_text()
    assert r"a & \underline{30.50} & \underline{0.2500} & \underline{60.00} & - &" in text
    assert r"\textbf{31.00} & \textbf{0.2000} & \textbf{9.00} & 5.5 & 4$\times$8$\times$8 & 16" in text
    assert r"Model & PSNR (dB) $\uparrow$ & LPIPS $\downarrow$ & FVD $\downarrow$ & Parameters (M)" in text
    escaped = (
        r"{[}a]{*}\_50\%\_of\textbar{}`x`\#1\&2\textasciitilde{}3\textasciicircum{}4\textbackslash{}\{5\}\$6\$-{}-"
        r"\textless{}b\textgreater{}"
    )
    assert f"\n{escaped} & " in text
    tables = re.findall(r"\\begin{tabular}{(\w+)}\n(.*?)\\end{tabular}", text, flags=re.DOTALL)
    assert len(tables) == 2
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert [line for line in text.splitlines() if re.search(r"(?<!\\)%", line)] == text.splitlines()[:2]


def test_costs_that_are_not_known_have_no_column_and_no_number():
    columns = {f"{column.name} {column.unit}": column.cells for column in cost_columns(Comparison((A, B)))}
    assert columns["encode frames/s"] == (("", 0), ("33.3", 0))
    assert columns["encode GiB"] == (("", 0), ("1.00", 0))
    assert "decode GiB" not in columns
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
