"""An evaluation in files: tables, figures, values for scripts, and a report to read."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from qpannot.bootstrap.evaluating.evaluation import Evaluation
from qpannot.bootstrap.evaluating.report import SlideRow, render
from qpannot.evaluation.drawing import to_png, to_svg
from qpannot.evaluation.measuring import METRICS
from qpannot.evaluation.statistics import value_of
from qpannot.evaluation.typesetting import to_csv, to_latex, to_markdown
from qpannot.qupath.files import write_atomically

REPORT = "report.html"


def write_evaluation(evaluation: Evaluation, slides: Iterable[SlideRow], date: str) -> Path:
    """Write an evaluation into its folder, in place of an earlier one, and return the report.

    Parameters
    ----------
    slides
        What the report shows of each slide, the worst first.
    date
        When it was made.
    """
    folder, tables, figures = evaluation.folder, evaluation.tables(), evaluation.figures()
    _put(folder / "results.json", _json(evaluation))
    _put(folder / "slides.csv", slides_csv(evaluation))
    kept = set()
    for name, table in tables.items():
        stem = folder / "tables" / _safe(name)
        for suffix, text in (
            (".csv", to_csv(table)),
            (".md", to_markdown(table)),
            (".tex", to_latex(table, f"tab:{_label(name)}")),
        ):
            kept.add(_put(stem.with_name(stem.name + suffix), text))
    for name, figure in figures.items():
        stem = folder / "figures" / _safe(name)
        kept.add(_put(stem.with_name(f"{stem.name}.svg"), to_svg(figure)))
        write_atomically(png := stem.with_name(f"{stem.name}.png"), to_png(figure))
        kept.add(png)
    for part in ("tables", "figures"):  # of other slides or designs, they would mislead
        for path in (folder / part).glob("*.*"):
            if path not in kept:
                path.unlink()
    page = render(
        evaluation, tables, {name: to_svg(own) for name, own in figures.items()}, list(slides), date
    )
    return _put(folder / REPORT, page)


def slides_csv(evaluation: Evaluation) -> str:
    """Return every measurement: a line a design, slide and class; ``mean`` is over the classes."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    several = len(evaluation.classes) > 1
    groups = evaluation.known_groups
    head = ("design", "image_id", "slide", *groups, "part", "known_to_the_design", "class")
    rows.writerow((*head, *METRICS, "true_mm2", "predicted_mm2"))
    for each in evaluation.measured:
        found = [(name, own.metrics, own) for name, own in each.classes.items()]
        lines = [
            (name, metrics, repr(own.true_mm2), repr(own.predicted_mm2))
            for name, metrics, own in found
        ]
        if several:
            lines.append(("mean", each.result().metrics, "", ""))
        for name, metrics, *areas in lines:
            rows.writerow(
                (
                    each.design,
                    each.image.id,
                    each.slide,
                    *(value_of(each.image.metadata, key) for key in groups),
                    evaluation.selection.parts[each.image.id].value,
                    each.seen.value if each.seen else "",
                    name,
                    *("" if math.isnan(metrics[key]) else repr(metrics[key]) for key in METRICS),
                    *areas,
                )
            )
    return written.getvalue()


def _json(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.values(), indent=1, ensure_ascii=False) + "\n"


def _put(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path


def _safe(name: str) -> str:
    """Return a file name that every file system takes."""
    return quote(name, safe=" +").replace("%20", " ")


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)
