"""What a round's report is made of: the ledger, the project, and pictures of slides."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean

from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.advice import labels
from qpannot.bootstrap.areas import areas_by_class
from qpannot.bootstrap.charts import Curve, RoundScore, SlideScore
from qpannot.bootstrap.cropping import Cropped, crop_to_tissue
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.outcome import Outcome
from qpannot.bootstrap.readers.telling import report_of_readers
from qpannot.bootstrap.refinement.telling import report_of
from qpannot.bootstrap.report import (
    PICTURES,
    CorrectionRow,
    EffortRow,
    JudgedRow,
    ProposalRow,
    RoundReport,
    comparison_picture,
    render_report,
)
from qpannot.bootstrap.scoring import mean_dice
from qpannot.bootstrap.truth import truth_in
from qpannot.errors import QpannotError
from qpannot.geometry import Size
from qpannot.linking import open_image
from qpannot.pictures import COMPARED_PX, outlined, small_png
from qpannot.qupath import Project, ProjectImage
from qpannot.qupath.files import write_atomically
from qpannot.recipe import Recipe

CURVES = ("loss", "dice")
"""What of a training is drawn; ``curves.csv`` has more."""

OVERVIEW_PX = 3 * COMPARED_PX
"""The longer side of the overviews that pictures are cut from."""


def write_report(project: Project, outcome: Outcome, next_steps: Sequence[str]) -> Path | None:
    """Write the report of the round that was worked on, and return where it is.

    ``None`` where there was nothing to do, and an earlier run came to write the last round's.
    """
    ledger = Ledger.of(project)
    rounds = ledger.rounds()
    number = outcome.round or (rounds[-1].number if rounds else None)
    record = ledger.round(number) if number is not None else None
    if record is None:
        return None
    path = ledger.house / "reports" / f"round-{record.number:03d}.html"
    if outcome.round is None and _is_of(path, record):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render_report(_report(project, ledger, record, outcome, next_steps))
    write_atomically(path, page.encode())
    return path


def _is_of(path: Path, record: RoundRecord) -> bool:
    """Tell whether a report was written after the last work on its round."""
    finished = datetime.fromisoformat(record.finished or record.started)
    return path.is_file() and path.stat().st_mtime >= finished.timestamp()


def _report(
    project: Project,
    ledger: Ledger,
    record: RoundRecord,
    outcome: Outcome,
    next_steps: Sequence[str],
) -> RoundReport:
    called = labels(project.images)
    rounds = [each for each in ledger.rounds() if each.number <= record.number]
    training, judgement = record.training, record.judgement
    card = None
    if judgement is not None:
        from qpannot.models.bundle import read_card  # loads torch

        card = read_card(ledger.model_folder(judgement.kept))
    return RoundReport(
        project=project.path.parent.name,
        round=record.number,
        method=record.method,
        states=Counter(status.state.value for status in outcome.statuses),
        date=_shown(record.finished or record.started),
        recipe=str(record.recipe["name"]),
        scores=tuple(_scores(rounds, called)),
        judged=tuple(_judged(record, called)),
        helped=judgement.helped if judgement else None,
        model=training.model if training else None,
        kept_model=judgement.kept if judgement else None,
        model_digest=card.weights_sha256[:12] if card else None,
        refined=report_of(record.refinement, called) if record.refinement else None,
        curves=tuple(_curves_of(ledger, record)),
        corrections=tuple(_corrections(project, ledger, record, outcome.recipe, called)),
        effort=tuple(_effort(rounds, ledger, called)),
        readers=report_of_readers(outcome.statuses, ledger, record, outcome.recipe, called),
        proposals=tuple(_proposals(project, record, called)),
        failures=tuple((called[image.id], error.message) for image, error in outcome.failed),
        next_steps=tuple(next_steps),
        versions=card.versions if card else {"qpannot": record.qpannot},
    )


def _scores(rounds: Iterable[RoundRecord], called: dict[str, str]) -> Iterable[RoundScore]:
    """Yield how the model of each round did: on the test slides, on validation where are none."""
    for record in rounds:
        training, judgement = record.training, record.judgement
        if training is None or judgement is None:
            continue
        own = judgement.scores.get(training.model, {})
        parts = {key: training.parts[key] for key in own}
        shown = "test" if "test" in parts.values() else "validation"
        yield RoundScore(
            record.number,
            tuple(
                SlideScore(f"{called.get(key, key)} ({shown})", score.dice)
                for key, score in own.items()
                if parts[key] == shown
            ),
            kept=judgement.kept == training.model,
            part=shown,
        )


def _judged(record: RoundRecord, called: dict[str, str]) -> Iterable[JudgedRow]:
    """Yield what the model before and the round's are worth on the same slides, if both were."""
    training, judgement = record.training, record.judgement
    if training is None or judgement is None or training.before not in judgement.scores:
        return
    before, now = judgement.scores[training.before], judgement.scores.get(training.model, {})
    for part in ("validation", "test"):
        own = [key for key in now if training.parts[key] == part and key in before]
        for key in own:
            yield JudgedRow(called.get(key, key), part, before[key].dice, now[key].dice)
        if len(own) > 1:
            was, now_is = (mean_dice(scores[key] for key in own) for scores in (before, now))
            yield JudgedRow(f"mean of {len(own)}", part, was, now_is, is_mean=True)


def _effort(
    rounds: Iterable[RoundRecord], ledger: Ledger, called: dict[str, str]
) -> Iterable[EffortRow]:
    """Yield how much people had changed when each round began, by what had proposed."""
    for record in rounds:
        dices = defaultdict(list)
        for key, correction in record.corrections.items():
            kept = ledger.image(key, called.get(key, key)).standing
            made = [each for each in kept if each.round < record.number]
            if made:
                dices[made[-1].method].append(correction.overall.dice)
        for method, found in sorted(dices.items()):
            yield EffortRow(record.number, method, len(found), fmean(found))


def _curves_of(ledger: Ledger, record: RoundRecord) -> Iterable[Curve]:
    if record.training:
        yield from _curves(ledger, record.training.model, ("loss", "Dice of patches"))
    if record.refinement and record.refinement.training:
        names = ("refinement: loss", "refinement: Dice of pixels")
        yield from _curves(ledger, record.refinement.training.model, names)


def _curves(ledger: Ledger, model: str, panels: Sequence[str]) -> Iterable[Curve]:
    path = ledger.model_folder(model).parent / "curves.csv"
    if not path.is_file():
        return
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    for panel, shown in zip(CURVES, panels, strict=True):
        for part, label in (("train", "training"), ("validation", "validation")):
            key = f"{part}.{panel}"
            points = tuple((int(row["epoch"]), float(row[key])) for row in rows if row.get(key))
            if points:
                yield Curve(shown, label, points)


def _corrections(
    project: Project,
    ledger: Ledger,
    record: RoundRecord,
    recipe: Recipe,
    called: dict[str, str],
) -> Iterable[CorrectionRow]:
    images = {image.id: image for image in project.images}
    worst = sorted(record.corrections, key=lambda key: record.corrections[key].overall.dice)
    for place, key in enumerate(worst):
        if key not in images:
            continue
        picture = _comparison(images[key], ledger, recipe) if place < PICTURES else None
        for name, change in record.corrections[key].by_class.items():
            yield CorrectionRow(called[key], name, change, picture)
            picture = None


def _comparison(image: ProjectImage, ledger: Ledger, recipe: Recipe) -> bytes | None:
    own = ledger.image(image.id, image.name)
    kept = own.standing
    try:
        annotations = truth_in(image.annotations(), image, own, recipe)
        before, after = (
            areas_by_class((each.class_name, each.shape) for each in kept),
            areas_by_class((each.class_name, each.geometry) for each in annotations),
        )
        part = _cropped(image, [*before.values(), *after.values()])
    except QpannotError:
        return None  # the table has the numbers
    return comparison_picture(
        part.overview,
        part.full_size,
        {name: part.moved(area) for name, area in before.items()},
        {name: part.moved(area) for name, area in after.items()},
    )


def _proposals(
    project: Project, record: RoundRecord, called: dict[str, str]
) -> Iterable[ProposalRow]:
    images = {image.id: image for image in project.images}
    reasons = {each.image_id: each.reason for each in record.chosen}
    order = [*reasons, *(key for key in record.proposed if key not in reasons)]
    for place, key in enumerate(key for key in order if key in images):
        picture = _outlined(images[key]) if place < PICTURES else None
        yield ProposalRow(called[key], reasons.get(key, "it had no annotations"), picture)


def _outlined(image: ProjectImage) -> bytes | None:
    try:
        annotations = image.annotations()
        part = _cropped(image, [each.geometry for each in annotations])
    except QpannotError:
        return None  # it is named all the same
    moved = [each.with_changes(geometry=part.moved(each.geometry)) for each in annotations]
    return small_png(outlined(part.overview, part.full_size, moved))


def _cropped(image: ProjectImage, areas: Sequence[BaseGeometry]) -> Cropped:
    with open_image(image) as slide:
        overview = slide.thumbnail(Size(OVERVIEW_PX, OVERVIEW_PX))
        return crop_to_tissue(overview, slide.size, areas, longest_px=COMPARED_PX)


def _shown(time: str) -> str:
    """Return a time of the ledger as people write it."""
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M UTC")
