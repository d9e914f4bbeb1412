"""Tables as text: for a terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re

from qpannot.evaluation.tables import Cell, PValue, Spread, Table

NOTHING = "–"
"""Stands for what could not be measured."""


def shown(cell: Cell) -> str:
    """Return a cell as people read it: ``0.933 ± 0.069``, ``<0.001``."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, PValue):
        if math.isnan(cell.value):
            return NOTHING
        return "<0.001" if cell.value < 0.001 else f"{cell.value:.3f}"
    found, decimals = cell.summary, cell.decimals
    if not found.count:
        return NOTHING
    parts = [f"{found.mean:.{decimals}f}"]
    if found.count > 1:
        parts.append(f"± {found.sd:.{decimals}f}")
    if found.interval is not None and not math.isnan(found.interval.low):
        parts.append(f"[{found.interval.low:.{decimals}f}, {found.interval.high:.{decimals}f}]")
    if found.count != cell.of:
        parts.append(f"(n={found.count})")
    return " ".join(parts)


def table_rows(table: Table) -> list[list[str]]:
    """Return the rows as `qpannot.console.show_table` takes them, beside ``table.columns``."""
    return [[shown(cell) for cell in row] for row in table.rows]


def to_csv(table: Table) -> str:
    """Return a table for programs: every digit, a column each for what a cell is made of.

    A column ``DSC`` becomes ``DSC mean``, ``DSC sd``, ``DSC n``, and ``DSC low`` and ``DSC high``
    where an interval was asked for. What could not be measured is empty.
    """
    header: list[str] = []
    rows: list[list[str]] = [[] for _ in table.rows]
    for place, name in enumerate(table.columns):
        cells = [row[place] for row in table.rows]
        spreads = [cell for cell in cells if isinstance(cell, Spread)]
        parts = ["mean", "sd", "n"] if spreads else [""]
        if any(cell.summary.interval for cell in spreads):
            parts += ["low", "high"]
        header += [f"{name} {part}".strip() for part in parts]
        for row, cell in zip(rows, cells, strict=True):
            row += [_part(cell, part) for part in parts]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(
        [" ".join(text.split()) for text in row] for row in (header, *rows)
    )
    return written.getvalue()


def to_markdown(table: Table) -> str:
    """Return a table as GitHub and most other readers of Markdown show it."""
    rows = [
        [
            f"**{_markdown(shown(cell))}**" if (i, k) in table.bold else _markdown(shown(cell))
            for k, cell in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
    marks = [":---", *["---:"] * (len(table.columns) - 1)]
    lines = [[_markdown(name) for name in table.columns], marks, *rows]
    caption = f"{table.caption}: {table.spanning}" if table.spanning else table.caption
    parts = [_markdown(caption), "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join([*parts, *map(_markdown, table.notes)]) + "\n"


def to_latex(table: Table, label: str) -> str:
    r"""Return a table for a paper; it needs ``\usepackage{booktabs}``.

    Parameters
    ----------
    label
        What ``\ref`` calls it; ASCII letters, digits and ``:.-``.

    Raises
    ------
    ValueError
        The label has other characters.
    """
    if not re.fullmatch(r"[A-Za-z0-9:.-]+", label):
        raise ValueError(f"a label is made of letters, digits and ':.-', not {label!r}")
    width = len(table.columns)
    rows = [
        [
            rf"\textbf{{{_latex(shown(cell))}}}" if (i, k) in table.bold else _latex(shown(cell))
            for k, cell in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
    above = []
    if table.spanning and width > 1:
        spanning = _latex(table.spanning)
        above = [
            rf" & \multicolumn{{{width - 1}}}{{c}}{{{spanning}}} \\",
            rf"\cmidrule(lr){{2-{width}}}",
        ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(' '.join([f'{table.caption}.', *table.notes]))}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}",
            r"\toprule",
            *above,
            rf"{' & '.join(_latex(name) for name in table.columns)} \\",
            r"\midrule",
            *(rf"{' & '.join(row)} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _part(cell: Cell, part: str) -> str:
    """Return what a cell has for a column of a CSV file."""
    if isinstance(cell, str):
        return cell if part in ("", "mean") else ""
    if isinstance(cell, PValue):
        return _number(cell.value)
    found = cell.summary
    if part == "n":
        return str(found.count)
    if part in ("low", "high"):
        return _number(getattr(found.interval, part)) if found.interval else ""
    return _number(found.mean if part == "mean" else found.sd)


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    # brackets as such would be taken for formulas, if escaped
    escaped = re.sub(r"([\\`*_<>|#~&$])", r"\\\1", " ".join(text.split()))
    return escaped.replace("](", "]\\(")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "µ": r"\textmu{}",
    "μ": r"\textmu{}",
    "–": "--",
    # at the start of a row these two would be arguments of the line break before
    "*": "{*}",
    "[": "{[}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def _latex(text: str) -> str:
    """Return text that LaTeX sets as it is, on one line."""
    return "".join(_LATEX.get(mark, mark) for mark in " ".join(text.split()))
