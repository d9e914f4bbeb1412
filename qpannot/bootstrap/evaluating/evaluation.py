"""What an evaluation found, as tables, figures and plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from qpannot.bootstrap.evaluating.designs import Design
from qpannot.bootstrap.evaluating.running import Measured, Runtime
from qpannot.bootstrap.evaluating.selecting import Selection
from qpannot.bootstrap.truth import Failures
from qpannot.evaluation.drawing import Figure
from qpannot.evaluation.figures import Row, reliability_figure, spread_figure
from qpannot.evaluation.metrics import Reliability
from qpannot.evaluation.statistics import (
    SlideResult,
    Summary,
    by_design,
    grouped,
    summary_with_interval,
    tukey,
)
from qpannot.evaluation.tables import (
    DICE,
    DISTANCE,
    ECE,
    HD95,
    IOU,
    PRECISION,
    RECALL,
    Metric,
    Spread,
    Table,
    design_table,
    group_heading,
    group_table,
    p_value_table,
    runtime_table,
)
from qpannot.evaluation.typesetting import shown
from qpannot.recipe import Recipe

OVERLAPS = (RECALL, PRECISION, DICE, IOU)
BORDERS = (HD95, DISTANCE, ECE)


@dataclass
class Evaluation:
    """Designs on slides, and all that is said of them.

    Parameters
    ----------
    project
        Its name.
    warnings
        What a reader must know before believing the figures.
    groups
        Keys of the slides' metadata by which results are told apart.
    reused
        How many measurements an earlier run had made.
    runtimes, timed
        How long one slide took, and which; empty where it was not asked for.
    folder
        Where it is written.
    kind
        What the report is called.
    notes
        Said below every table of metrics.
    """

    project: Path
    recipe: Recipe
    designs: Sequence[Design]
    selection: Selection
    measured: Sequence[Measured]
    warnings: list[str]
    groups: tuple[str, ...]
    folder: Path
    reused: int = 0
    runtimes: Sequence[Runtime] = ()
    timed: str = ""
    failed: Failures = field(default_factory=list)
    kind: str = "evaluation"
    notes: tuple[str, ...] = ()
    _summaries_made: dict[str, Summary] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What the project is called: its folder's name, as in QuPath."""
        return self.project.parent.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that were told apart."""
        return self.recipe.labels.classes

    @property
    def baselines(self) -> frozenset[str]:
        """Names of the designs that are no candidates."""
        return frozenset(design.name for design in self.designs if design.is_baseline)

    @property
    def judged(self) -> str | None:
        """The design whose worst slides are shown: the first that is no baseline, else the first.

        ``None`` where no slide could be measured.
        """
        names = list(dict.fromkeys(each.design for each in self.measured))
        return next((name for name in names if name not in self.baselines), next(iter(names), None))

    @property
    def known_groups(self) -> list[str]:
        """The keys in which the slides differ."""
        return [key for key in self.groups if len(grouped(self.results(), key)) > 1]

    @property
    def headline(self) -> str:
        """The mean Dice of the judged design, in words; empty where nothing was measured."""
        own = [each for each in self.results() if each.design == self.judged]
        if not own:
            return ""
        summary = self.summary(own, DICE.key)
        cell = shown(Spread(summary, DICE.decimals, len(own)))
        return f"{self.judged}: {DICE.label} {cell}"

    def results(self, class_name: str | None = None) -> list[SlideResult]:
        """Return the metrics of a class, or the means over the classes, of all slides."""
        return [each.result(class_name) for each in self.measured]

    def summary(self, results: Sequence[SlideResult], metric: str) -> Summary:
        """Return mean, standard deviation and interval of a metric over slides."""
        settings = self.recipe.evaluation
        # thousands of draws each, and the same ones for tables, figures and values
        told = repr([(own.slide, own.metrics.get(metric)) for own in results])
        if told not in self._summaries_made:
            self._summaries_made[told] = summary_with_interval(
                results,
                metric,
                seed=settings.seed,
                unit=self.recipe.split.by,
                confidence=settings.confidence,
                resamples=settings.resamples,
            )
        return self._summaries_made[told]

    def tables(self) -> dict[str, Table]:
        """Return the tables by the names of their files, in the paper's form and order."""
        results = self.results()
        if not results:
            return {}
        several = len(self.classes) > 1
        of = f", means over {len(self.classes)} classes" if several else ""
        found = {
            "designs": self._designs(results, OVERLAPS, f"Segmentation performance{of}"),
            "borders": self._designs(results, BORDERS, f"Borders and calibration{of}"),
        }
        if several:
            for name in self.classes:
                metrics = (*OVERLAPS, *BORDERS)
                found[f"class-{name}"] = self._designs(
                    self.results(name), metrics, f"Segmentation performance for {name}"
                )
        for key in self.known_groups:
            table = group_table(
                results, key, DICE, baselines=self.baselines, summarized=self.summary
            )
            found[f"by-{key}"] = self._noted(table)
        if (p_values := self._p_values(results)) is not None:
            found["p-values"] = p_values
        if self.runtimes:
            found["runtime"] = self._runtime()
        return found

    def figures(self) -> dict[str, Figure]:
        """Return the figures by the names of their files."""
        results = self.results()
        if not results:
            return {}
        found = {"dice": spread_figure(self._rows({"": results}), DICE.label)}
        for key in self.known_groups:
            found[f"dice-by-{key}"] = spread_figure(
                self._rows(grouped(results, key), key), f"{DICE.label} by {key}"
            )
        for name in self.classes:
            pooled = self._reliability(name)
            if any(pooled.values()):
                found[f"calibration-{name}"] = reliability_figure(pooled, name)
        return found

    def values(self) -> dict[str, Any]:
        """Return what was found, for scripts; what could not be measured is ``None``."""
        settings = self.recipe.evaluation
        results = self.results()
        return {
            "project": str(self.project),
            "part": self.selection.part,
            "slides": len(self.selection.lessons),
            "settings": settings.model_dump(mode="json"),
            "warnings": self.warnings,
            "designs": {
                design.name: {
                    "baseline": design.is_baseline,
                    "metrics": self._summaries(results, design.name),
                    "classes": {
                        name: self._summaries(self.results(name), design.name)
                        for name in self.classes
                    },
                }
                for design in self.designs
            },
            "measured": [
                {
                    "design": each.design,
                    "image_id": each.image.id,
                    "name": each.image.name,
                    "part": self.selection.parts[each.image.id].value,
                    "known_to_the_design": each.seen.value if each.seen else None,
                    "metrics": _finite(each.result().metrics),
                    "classes": {
                        name: _finite(
                            {
                                **own.metrics,
                                "true_mm2": own.true_mm2,
                                "predicted_mm2": own.predicted_mm2,
                            }
                        )
                        for name, own in each.classes.items()
                    },
                }
                for each in self.measured
            ],
            "runtime": {
                "slide": self.timed,
                "runs": [
                    {"design": each.design, "engine": each.engine, "seconds": each.seconds}
                    for each in self.runtimes
                ],
            }
            if self.runtimes
            else None,
            "failed": [
                {
                    "image_id": image.id,
                    "name": image.name,
                    "error": error.message,
                    "next": error.hint,
                }
                for image, error in self.failed
            ],
            "folder": str(self.folder),
        }

    def _designs(
        self, results: Sequence[SlideResult], metrics: Sequence[Metric], caption: str
    ) -> Table:
        table = design_table(results, metrics, baselines=self.baselines, summarized=self.summary)
        return self._noted(replace(table, caption=caption))

    def _noted(self, table: Table) -> Table:
        """Return a table that says on which slides, so that it can be pasted anywhere."""
        settings = self.recipe.evaluation
        said = (
            f"On {self.selection.told}, at {settings.mpp:g} µm per pixel and threshold "
            f"{settings.threshold:g}."
        )
        known = [
            f"{name} {count}"
            for name in dict.fromkeys(each.design for each in self.measured)
            if (count := sum(e.seen is not None for e in self.measured if e.design == name))
        ]
        notes = [f"Slides that a design was fitted to or chosen by: {'; '.join(known)}."]
        return replace(table, notes=(*table.notes, said, *(notes if known else ()), *self.notes))

    def _p_values(self, results: Sequence[SlideResult]) -> Table | None:
        groups = by_design(results, DICE.key)
        candidates = {name: own for name, own in groups.items() if name not in self.baselines}
        # the paper leaves its baseline out; with fewer designs than two there is nothing else
        compared = candidates if len(candidates) > 1 else groups
        if len(compared) < 2:
            return None
        return self._noted(p_value_table(tukey(compared)))

    def _runtime(self) -> Table:
        several = len({each.design for each in self.runtimes}) > 1
        rows = {
            f"{each.design}, {each.engine}" if several else each.engine: each.seconds
            for each in self.runtimes
        }
        table = runtime_table(rows)
        said = f"{self.timed}; after one run that does not count; from pixels to heatmap."
        return replace(table, notes=(*table.notes, said))

    def _rows(self, groups: Mapping[str, Sequence[SlideResult]], key: str = "") -> list[Row]:
        names = list(dict.fromkeys(each.design for each in self.measured))
        rows = []
        for value, own in groups.items():
            for name in names:
                some = [each for each in own if each.design == name]
                group = f"{group_heading(key, value)}: " if key else ""
                values = [(each.slide, each.metrics[DICE.key]) for each in some]
                summary = self.summary(some, DICE.key)
                rows.append(Row(f"{group}{name}", values, summary, names.index(name)))
        return rows

    def _reliability(self, class_name: str) -> dict[str, Reliability | None]:
        """Return the calibration of each design over the pixels of all slides, if it has one."""
        found: dict[str, list[Reliability]] = {}
        for each in self.measured:
            known = found.setdefault(each.design, [])
            own = each.classes[class_name].reliability
            if own is not None:
                known.append(own)
        return {name: reduce(add, some) if some else None for name, some in found.items()}

    def _summaries(self, results: Sequence[SlideResult], design: str) -> dict[str, Any]:
        own = [each for each in results if each.design == design]
        found = {}
        for metric in (*OVERLAPS, *BORDERS):
            summary = self.summary(own, metric.key)
            low_high = summary.interval
            found[metric.key] = _finite(
                {
                    "mean": summary.mean,
                    "sd": summary.sd,
                    "slides": summary.count,
                    "low": low_high.low if low_high else math.nan,
                    "high": low_high.high if low_high else math.nan,
                }
            )
        return found


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values as JSON has them, which knows no NaN."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}
