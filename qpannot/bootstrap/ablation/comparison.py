"""What an ablation study found: an evaluation over seeds, and how each design was trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

from qpannot.bootstrap.ablation.training import TrainedDesign, Trainings
from qpannot.bootstrap.evaluating import Evaluation, Measured
from qpannot.evaluation.measuring import METRICS, ClassMeasures
from qpannot.evaluation.statistics import summarize
from qpannot.evaluation.tables import DICE, Cell, Spread, Table
from qpannot.evaluation.typesetting import NOTHING

BySeed = Mapping[str, Mapping[int, Sequence[Measured]]]
"""What was measured with each seed, by the designs' labels; of designs that are trained."""

PROTOCOLS = {"held_out": "of new slides", "paper": "of the same slides", None: NOTHING}


@dataclass
class Comparison(Evaluation):
    """An evaluation of designs that were trained alike.

    Where there are several seeds, ``measured`` has their means, slide by slide.

    Parameters
    ----------
    seeds
        With which each design was trained.
    by_seed
        What the means are of.
    trainings
        How each was trained, and which could not be.
    """

    kind: str = "ablation study"
    seeds: tuple[int, ...] = ()
    by_seed: BySeed = field(default_factory=dict)
    trainings: Trainings = field(default_factory=Trainings)

    @property
    def judged(self) -> str | None:
        """The trained design of the highest mean Dice; without any, the first that is measured."""
        trained = {key: own for key, own in self._means().items() if key not in self.baselines}
        return max(trained, key=trained.__getitem__, default=super().judged)

    def _means(self) -> dict[str, float]:
        """Return the mean Dice of each design that has one."""
        names = dict.fromkeys(each.design for each in self.measured)
        means = {
            name: summarize(
                each.result().metrics[DICE.key] for each in self.measured if each.design == name
            ).mean
            for name in names
        }
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}

    @property
    def headline(self) -> str:
        """The best design and its mean Dice, in words; empty where nothing was measured.

        A baseline that is better than what was trained is named, too.
        """
        said, means = super().headline, self._means()
        if not said or self.judged in self.baselines:
            return said
        better = [
            f"{name}, without training: {mean:.{DICE.decimals}f}"
            for name, mean in means.items()  # in the order of the tables
            if name in self.baselines and mean > means.get(self.judged or "", math.inf)
        ]
        if better:
            return f"Highest mean of what was trained: {said}. Higher is {'; '.join(better)}"
        return f"Highest mean on these very slides: {said}"

    def tables(self) -> dict[str, Table]:
        """Return the tables of the evaluation, the spread between seeds, and the trainings."""
        found = super().tables()
        if found and len(self.seeds) > 1:
            found["seeds"] = self._noted(self._seeds())
        if self.trainings.done:
            found["trainings"] = self._trainings()
        return found

    def values(self) -> dict[str, Any]:
        """Return what was found, for scripts; what could not be measured is ``None``."""
        return {
            **super().values(),
            "notes": list(self.notes),
            "seeds": list(self.seeds),
            "by_seed": {
                label: {str(seed): _summaries_of(own) for seed, own in seeds.items()}
                for label, seeds in self.by_seed.items()
            },
            "trainings": [each.model_dump(exclude={"format", "key"}) for each in self._done()],
            "trainings_reused": self.trainings.reused,
            "not_trained": [
                {
                    "design": own.plan.label,
                    "seed": own.seed,
                    "error": own.error.message,
                    "next": own.error.hint,
                }
                for own in self.trainings.not_done
            ],
        }

    def _done(self) -> Iterable[TrainedDesign]:
        return self.trainings.done.values()

    def _seeds(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        slides = len({each.image.id for each in self.measured})
        for label, seeds in self.by_seed.items():
            dices = {
                seed: summarize(each.result().metrics[DICE.key] for each in own)
                for seed, own in seeds.items()
            }
            cells = (
                Spread(dices[seed], DICE.decimals, slides) if seed in dices else NOTHING
                for seed in self.seeds
            )
            between = summarize(own.mean for own in dices.values())
            rows.append((label, *cells, Spread(between, DICE.decimals, len(self.seeds))))
        columns = (*(f"Seed {seed}" for seed in self.seeds), "Mean of seeds")
        return Table(
            f"{DICE.label} by seed",
            ("Designs", *columns),
            tuple(rows),
            notes=(
                "Of each seed mean ± standard deviation over slides; last the mean of these means "
                "± their standard deviation, which is what another seed may change.",
            ),
        )

    def _trainings(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (
                own.label,
                f"{own.seed}",
                f"{len(own.teach)}",
                f"{len(own.choose)}",
                PROTOCOLS[own.protocol],
                f"{own.epochs}",
                f"{own.best_epoch}",
                f"{own.seconds / 60:.1f}" + (" (end)" if own.was_resumed else ""),
            )
            for own in self._done()
        ]
        resumed = any(own.was_resumed for own in self._done())
        return Table(
            "Trainings",
            ("Designs", "Seed", "Teach", "Choose", "Heatmaps", "Epochs", "Best", "Minutes"),
            tuple(rows),
            notes=(
                "Slides that teach, and that choose the best epoch. Heatmaps: whether a refinement "
                "network learned from those of slides that were new to the patch network, or of "
                "the same that had taught it, as in the paper.",
                *(("(end): of the last run, after one that was broken off.",) if resumed else ()),
            ),
        )


def averaged(label: str, seeds: Mapping[int, Sequence[Measured]]) -> list[Measured]:
    """Return the means over seeds, slide by slide, in the order of the first seed's slides.

    Parameters
    ----------
    label
        What the design is called without its seed.
    seeds
        What was measured with each seed. A slide that failed with some has the mean of the others.
    """
    by_slide: dict[str, list[Measured]] = {}
    for measured in seeds.values():
        for own in measured:
            by_slide.setdefault(own.image.id, []).append(own)
    return [
        replace(
            some[0],
            design=label,
            classes={name: _mean([own.classes[name] for own in some]) for name in some[0].classes},
        )
        for some in by_slide.values()
    ]


def _summaries_of(measured: Sequence[Measured]) -> dict[str, dict[str, float | None]]:
    """Return mean and standard deviation over slides, by metric; ``None`` where there is none."""
    found = {}
    for metric in METRICS:
        summary = summarize(own.result().metrics[metric] for own in measured)
        values = {"mean": summary.mean, "sd": summary.sd}
        found[metric] = {k: None if math.isnan(value) else value for k, value in values.items()}
    return found


def _mean(measures: Sequence[ClassMeasures]) -> ClassMeasures:
    bins = [own.reliability for own in measures if own.reliability is not None]
    return ClassMeasures(
        {key: summarize(own.metrics[key] for own in measures).mean for key in measures[0].metrics},
        measures[0].true_mm2,
        summarize(own.predicted_mm2 for own in measures).mean,
        reduce(add, bins) if bins else None,
    )
