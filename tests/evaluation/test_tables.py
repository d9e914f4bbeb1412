from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.evaluation.statistics import (
    Interval,
    SlideResult,
    Summary,
    TukeyTest,
    summarize,
    tukey,
)
from qpannot.evaluation.tables import (
    ECE,
    PAPER_METRICS,
    PValue,
    Table,
    design_table,
    group_table,
    p_value_table,
    runtime_table,
)
from qpannot.evaluation.typesetting import shown, table_rows, to_csv, to_latex, to_markdown


def result(design: str, slide: str, recall: float, precision: float, dice: float) -> SlideResult:
    grade = {"s1": "I", "s2": "I", "s3": "II"}.get(slide)
    metrics = {"recall": recall, "precision": precision, "dice": dice, "ece": 1 - dice}
    return SlideResult(design, slide, metrics, {"grade": grade} if grade else {})


RESULTS = [
    result("Otsu", "s1", 1.0, 0.4, 0.5),
    result("Otsu", "s2", 1.0, 0.6, 0.7),
    result("Otsu", "s3", 1.0, 0.5, 0.6),
    result("Mob-PW", "s1", 0.8, 0.9, 0.8),
    result("Mob-PW", "s2", 0.9, math.nan, 0.9),
    result("Mob-PW", "s3", 0.7, 0.7, 0.7),
    result("Mob-PW-UNet", "s1", 0.9, 0.9, 0.9),
    result("Mob-PW-UNet", "s2", 0.9, 0.8, 0.9),
    result("Mob-PW-UNet", "s3", 0.9, 0.7, 0.9),
]


def test_designs_are_shown_as_in_the_papers_first_table() -> None:
    table = design_table(RESULTS, baselines={"Otsu"})
    assert table.columns == ("Designs", "Recall", "Precision", "DSC")
    assert table_rows(table) == [
        ["Otsu", "1.000 ± 0.000", "0.500 ± 0.100", "0.600 ± 0.100"],
        ["Mob-PW", "0.800 ± 0.100", "0.800 ± 0.141 (n=2)", "0.800 ± 0.100"],
        ["Mob-PW-UNet", "0.900 ± 0.000", "0.800 ± 0.100", "0.900 ± 0.000"],
    ]
    # two precisions are the best one; Otsu's recall is not, as the paper has it
    assert table.bold == {(2, 1), (1, 2), (2, 2), (2, 3)}
    assert "3 slides" in table.notes[0]


def test_the_best_error_is_the_smallest_and_one_design_is_no_contest() -> None:
    assert design_table(RESULTS, [ECE]).bold == {(2, 1)}
    assert not design_table(RESULTS[:3], PAPER_METRICS).bold


def test_grades_are_columns_that_say_how_many_slides_they_have() -> None:
    table = group_table([*RESULTS, result("Otsu", "s4", 0, 0, 0.0)], "grade")
    assert table.columns == ("Designs", "Grade I (2)", "Grade II (1)", "No grade (1)")
    assert table.spanning == "DSC (n=4)"
    assert table_rows(table) == [
        ["Otsu", "0.600 ± 0.141", "0.600", "0.000"],
        ["Mob-PW", "0.850 ± 0.071", "0.700", "–"],
        ["Mob-PW-UNet", "0.900 ± 0.000", "0.900", "–"],
    ]


def test_values_that_say_their_key_are_not_told_it_again_and_keep_apart() -> None:
    results = [
        SlideResult("A", "s", {"dice": 0.5}, {"grade": "I"}),
        SlideResult("A", "t", {"dice": 0.25}, {"grade": "Grade I"}),
    ]
    table = group_table(results, "grade")
    assert table.columns[1:] == ("Grade I (1)", "Grade I (1)")
    assert sorted(table_rows(table)[0][1:]) == ["0.250", "0.500"]


def test_runtimes_are_shown_as_in_the_papers_third_table() -> None:
    runs = {"patch-wise": [57.1, 57.5], "refinement": [0.75, 0.75]}
    table = runtime_table({"OpenVINO": runs, "torch": {"patch-wise": [80.0, 81.0]}})
    assert table.columns == ("Backend", "patch-wise", "refinement")
    assert table_rows(table) == [
        ["OpenVINO", "57.30 ± 0.28", "0.75 ± 0.00"],
        ["torch", "80.50 ± 0.71", "–"],
    ]
    assert table.notes == ("Mean ± standard deviation of 2 runs.",)


def test_p_values_are_shown_with_what_was_not_compared() -> None:
    p_values = np.array([[np.nan, 0.0121], [0.0121, np.nan]])
    table = p_value_table(TukeyTest(("A", "B"), p_values, np.zeros((2, 2)), {}))
    assert table_rows(table) == [["A", "–", "0.012"], ["B", "0.012", "–"]]
    assert table.bold == {(0, 2), (1, 1)}
    left = p_value_table(tukey({"A": [1, 2], "B": [1]}))
    assert "B was not compared: one value." in left.notes and not left.bold
    assert (shown(PValue(0.0004)), shown(PValue(1.0))) == ("<0.001", "1.000")


def test_an_interval_is_shown_where_there_is_one() -> None:
    def summarized(results: Sequence[SlideResult], metric: str) -> Summary:
        values = [result.metrics[metric] for result in results]
        return summarize(values, interval=Interval(0.25, 0.75))

    table = design_table(RESULTS[:3], PAPER_METRICS[2:], summarized=summarized)
    assert table_rows(table) == [["Otsu", "0.600 ± 0.100 [0.250, 0.750]"]]
    assert any("interval" in note for note in table.notes)
    assert to_csv(table).splitlines()[0] == "Designs,DSC mean,DSC sd,DSC n,DSC low,DSC high"
    assert to_csv(table).splitlines()[1].endswith(",3,0.25,0.75")


def test_csv_has_every_digit_and_is_empty_where_nothing_was_measured() -> None:
    results = [
        SlideResult('A, "a"', "s", {"recall": 1 / 3, "dice": math.nan}),
        SlideResult("B", "s", {"recall": 0.5, "dice": 0.5}),
    ]
    table = design_table(results, [PAPER_METRICS[0], PAPER_METRICS[2]])
    header, first, second = csv.reader(io.StringIO(to_csv(table)))
    assert header == [
        "Designs",
        *(f"{n} {p}" for n in ("Recall", "DSC") for p in ("mean", "sd", "n")),
    ]
    assert first == ['A, "a"', repr(1 / 3), "", "1", "", "", "0"]
    assert second[0] == "B"
    p_values = to_csv(p_value_table(tukey({"A": [1, 2, 4], "B": [1, 2, 3]}))).splitlines()
    assert p_values[0] == "Designs,A,B" and p_values[1].startswith("A,,0.")


def test_markdown_is_a_table_with_the_best_in_bold() -> None:
    text = to_markdown(group_table(RESULTS[3:], "grade"))
    assert text.splitlines()[:6] == [
        "DSC of the designs by grade: DSC (n=3)",
        "",
        "| Designs | Grade I (2) | Grade II (1) |",
        "| :--- | ---: | ---: |",
        "| Mob-PW | 0.850 ± 0.071 | 0.700 |",
        "| Mob-PW-UNet | **0.900 ± 0.000** | **0.900** |",
    ]


def test_latex_is_a_booktabs_table() -> None:
    text = to_latex(group_table(RESULTS[3:], "grade"), "tab:grades")
    assert text.splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\caption{DSC of the designs by grade. "
        r"Mean $\pm$ standard deviation over 3 slides; bold: the best mean.}",
        r"\label{tab:grades}",
        r"\begin{tabular}{lcc}",
        r"\toprule",
        r" & \multicolumn{2}{c}{DSC (n=3)} \\",
        r"\cmidrule(lr){2-3}",
        r"Designs & Grade I (2) & Grade II (1) \\",
        r"\midrule",
        r"Mob-PW & 0.850 $\pm$ 0.071 & 0.700 \\",
        r"Mob-PW-UNet & \textbf{0.900 $\pm$ 0.000} & \textbf{0.900} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    with pytest.raises(ValueError, match="label"):
        to_latex(Table("", ("A",), ()), "a}b")


def test_names_are_escaped_for_where_they_go() -> None:
    name = "50%_a & b\\c {d} $e #1 ~^ <f> |\n[g](h) *"
    table = Table("", ("Designs",), ((name,),))
    assert r"50\%\_a \& b\textbackslash{}c \{d\} \$e \#1 " in to_latex(table, "t")
    assert r"\textasciitilde{}\textasciicircum{} \textless{}f\textgreater{}" in to_latex(table, "t")
    row = to_markdown(table).splitlines()[4]
    assert row == r"| 50%\_a \& b\\c {d} \$e \#1 \~^ \<f\> \| [g]\(h) \* |"


@pytest.mark.parametrize("name", ["*A", "[A]"])
def test_a_name_is_no_argument_of_the_line_break_before_it(name: str) -> None:
    lines = to_latex(Table("", ("Designs",), (("B",), (name,))), "t").splitlines()
    (place,) = (index for index, line in enumerate(lines) if "A" in line)
    assert lines[place - 1].endswith(r"\\") and lines[place].startswith("{")


@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_no_name_breaks_a_table(name: str) -> None:
    table = Table("", ("Designs", "X"), ((name, "1"),))
    lines = to_latex(table, "t").splitlines()
    row = lines[lines.index(r"\midrule") + 1]
    assert row.endswith(r" & 1 \\") and lines[-1] == r"\end{table}"
    bare = row.removesuffix(r"\\")
    for escape in (r"\{", r"\}", r"\&", r"\%", r"\#", r"\$", r"\_"):
        bare = bare.replace(escape, "")
    assert bare.count("{") == bare.count("}") and bare.count("&") == 1
    assert not set(bare) & set("%#$_^~<>|")
    cells = to_markdown(table).splitlines()[4].replace("\\\\", "").replace("\\|", "")
    assert cells.count("|") == 3
    assert list(csv.reader(io.StringIO(to_csv(table), newline="")))[1][1] == "1"


def test_a_row_of_the_wrong_width_is_no_table() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Table("", ("A", "B"), (("a",),))


def test_stages_of_runtimes_are_in_order_whichever_design_comes_first() -> None:
    table = runtime_table(
        {
            "alone": {"Refinement": [1.0], "Total": [1.0]},
            "both": {"Patch-wise": [2.0], "Refinement": [1.0], "Total": [3.0]},
        }
    )
    assert table.columns[1:] == ("Patch-wise", "Refinement", "Total")
    assert table_rows(table)[0] == ["alone", "–", "1.00", "1.00"]
