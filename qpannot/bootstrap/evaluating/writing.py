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
from qpannot.evaluation.typesetting import to_csv, to_latex, to_markdown
from qpannot.qupath.files import write_atomically
from qpannot.sampling import value_of

REPORT, RESULTS = "report.html", "results.json"


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
    svgs = {name: to_svg(figure) for name, figure in figures.items()}
    contents = {"slides.csv": slides_csv(evaluation).encode()}
    for name, table in tables.items():
        stem = f"tables/{_safe(name)}"
        contents[f"{stem}.csv"] = to_csv(table).encode()
        contents[f"{stem}.md"] = to_markdown(table).encode()
        contents[f"{stem}.tex"] = to_latex(table, f"tab:{_label(name)}").encode()
    for name, figure in figures.items():
        contents[f"figures/{_safe(name)}.svg"] = svgs[name].encode()
        contents[f"figures/{_safe(name)}.png"] = to_png(figure)
    contents[REPORT] = render(evaluation, tables, svgs, list(slides), date).encode()
    for name in _written(folder / RESULTS) - set(contents):
        (folder / name).unlink(missing_ok=True)  # of other slides or designs, it would mislead
    values = {**evaluation.values(), "date": date, "files": list(contents)}
    contents[RESULTS] = (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return folder / REPORT


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


def _written(path: Path) -> set[str]:
    """Return the tables and figures that an earlier evaluation wrote."""
    try:
        files = json.loads(path.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    parts = ("tables/", "figures/")
    return {name for name in files if name.startswith(parts) and ".." not in name}


def _safe(name: str) -> str:
    """Return a file name that every file system takes."""
    return quote(name, safe=" +").replace("%20", " ")


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)
