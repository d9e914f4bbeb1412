"""The evaluation of a project: which slides, and what is written of them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from qpannot.bootstrap.evaluating.asked import ModelAsked, Named, designs_of
from qpannot.bootstrap.evaluating.designs import Design, ModelDesign
from qpannot.bootstrap.evaluating.evaluation import Evaluation
from qpannot.bootstrap.evaluating.refined import RefinedDesign
from qpannot.bootstrap.evaluating.rows import slide_rows
from qpannot.bootstrap.evaluating.running import measure_designs, time_designs
from qpannot.bootstrap.evaluating.seen import with_patients
from qpannot.bootstrap.evaluating.selecting import Selection, Wanted, parts_of, select, warnings_of
from qpannot.bootstrap.evaluating.store import Store
from qpannot.bootstrap.evaluating.writing import write_evaluation
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.predicting import openers_of
from qpannot.bootstrap.records import AND
from qpannot.bootstrap.states import REVIEWED, survey
from qpannot.bootstrap.truth import Failures, Lesson, lessons_of, metadata_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each, counted, silent
from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.qupath import Project, ProjectImage
from qpannot.recipe import Recipe
from qpannot.sampling import Opener


def evaluate_project(
    project: Project,
    recipe: Recipe,
    folder: Path,
    *,
    models: Sequence[ModelAsked] = (),
    named: Sequence[Named] = (),
    wanted: Wanted = "auto",
    only: Collection[ProjectImage] | None = None,
    by: Sequence[str] = (),
    repeat: int = 0,
    mpp: Mpp | None = None,
    each: Each = silent,
) -> tuple[Evaluation, Path]:
    """Evaluate designs on the reviewed slides of a project, and write a report.

    Repeated, it measures only what changed.

    Parameters
    ----------
    folder
        Where everything goes; made where it is missing.
    models, named
        See `designs_of`.
    wanted, only
        Which slides: see `qpannot.bootstrap.evaluating.selecting.select`.
    by
        Keys of metadata to tell results apart by, besides the recipe's.
    repeat
        How often a slide is predicted to see how long it takes; 0: not at all.
    mpp, each
        As for `qpannot.bootstrap.jobs.train_alone`.

    Returns
    -------
    Evaluation, Path
        What was found, and the report.

    Raises
    ------
    QpannotError
        There is nothing to evaluate, or nothing to compare with.
    """
    ledger = Ledger.of(project)
    work = Work(project, ledger, recipe, mpp, each)
    designs = designs_of(project, recipe, folder, models, named)
    statuses = survey(project, ledger, each)
    lessons, failed = lessons_of(statuses, ledger, recipe, each)
    asked = None if only is None else {image.id for image in only}
    failed += [(status.image, status.error) for status in statuses if status.error]
    failed = [own for own in failed if asked is None or own[0].id in asked]
    if asked is not None:
        failed += [
            (status.image, QpannotError("not reviewed: there is nothing to compare with."))
            for status in statuses
            if status.image.id in asked and not status.error and status.state not in REVIEWED
        ]
    if asked is not None and asked.isdisjoint(lesson.image.id for lesson in lessons):
        raise _none_is_reviewed(project, asked)
    known = with_patients(ledger.parts(), metadata_of(project), recipe.split.by)
    selection = select(lessons, parts_of(lessons, known, designs), wanted, asked)
    openers, unreadable = openers_of(work, [lesson.image for lesson in selection.lessons])
    store = Store(folder / "measured")
    found = measure_designs(work, designs, selection.lessons, openers, store)
    evaluation = Evaluation(
        project=project.path,
        recipe=recipe,
        designs=designs,
        selection=selection,
        measured=found.measured,
        warnings=warnings_of(selection, designs, recipe.split.by),
        groups=tuple(dict.fromkeys((*recipe.evaluation.groups, *by))),
        folder=folder,
        reused=found.reused,
        failed=once([*failed, *unreadable, *found.failed]),
    )
    evaluation.warnings += _leanings(ledger, designs, selection)
    return evaluation, complete(work, evaluation, openers, store, by=by, repeat=repeat)


def complete(
    work: Work,
    evaluation: Evaluation,
    openers: Mapping[str, Opener],
    store: Store,
    *,
    by: Sequence[str],
    repeat: int,
) -> Path:
    """Add to an evaluation what is measured last, write all of it, and return the report.

    Parameters
    ----------
    openers
        What opens the slides, by image ID.
    store
        Where runtimes are kept.
    by, repeat
        As for `evaluate_project`.
    """
    evaluation.warnings += [
        f"The slides do not differ in the metadata {key}: there is no table by it."
        for key in by
        if key not in evaluation.known_groups
    ]
    if repeat:
        lessons = evaluation.selection.lessons
        runtimes, timed, not_timed = time_designs(
            work, evaluation.designs, lessons, openers, repeat, store
        )
        evaluation.runtimes = runtimes
        evaluation.timed = _described(timed) if timed else ""
        evaluation.failed = once([*evaluation.failed, *not_timed])
    rows = list(slide_rows(work, evaluation, openers))
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return write_evaluation(evaluation, rows, date)


def _none_is_reviewed(project: Project, asked: Collection[str]) -> QpannotError:
    names = [image.name for image in project.images if image.id in asked]
    return QpannotError(
        f"{', '.join(names)}: not reviewed, so that there is nothing to compare with.",
        hint="Annotate in QuPath, or say that what is there is right: "
        f"qpannot approve {shlex.join(names)} -p {shlex.quote(str(project.path))}",
    )


def _leanings(ledger: Ledger, designs: Sequence[Design], selection: Selection) -> list[str]:
    """Return which models' own proposals became the annotations they are judged by."""
    made: Counter[str] = Counter()
    for lesson in selection.lessons:
        standing = ledger.image(lesson.image.id, lesson.image.name).standing
        models = {name for each in standing for name in (each.model or "").split(AND)}
        made.update(
            design.name
            for design in designs
            if isinstance(design, ModelDesign | RefinedDesign)
            and any(name and design.model == ledger.model_folder(name).resolve() for name in models)
        )
    return [
        f"On {counted(count, 'slide')} the annotations began as proposals of {name} that a person "
        "corrected or accepted: they lean towards it."
        for name, count in made.items()
    ]


def _described(lesson: Lesson) -> str:
    """Return which slide was timed, in words."""
    server = lesson.image.server
    at = f", {server.mpp.mean:.3g} µm per pixel" if server.mpp else ""
    return f"{lesson.image.name} ({server.size}{at})"


def once(failed: Failures) -> Failures:
    """Return each slide with its first error."""
    found = {image.id: (image, error) for image, error in reversed(failed)}
    return list(reversed(found.values()))
