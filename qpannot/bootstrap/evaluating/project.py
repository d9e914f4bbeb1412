"""The evaluation of a project: which designs, which slides, and what is written of them."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from qpannot.bootstrap.cropping import crop_to_tissue
from qpannot.bootstrap.evaluating.designs import (
    Design,
    ModelDesign,
    baseline,
    check_classes,
    checked_card,
)
from qpannot.bootstrap.evaluating.evaluation import Evaluation
from qpannot.bootstrap.evaluating.refined import RefinedDesign
from qpannot.bootstrap.evaluating.report import SlideRow, number
from qpannot.bootstrap.evaluating.running import (
    Measured,
    measure_designs,
    time_designs,
    truth_of,
)
from qpannot.bootstrap.evaluating.seen import seen_by, strictest, with_patients
from qpannot.bootstrap.evaluating.selecting import Selection, Wanted, parts_of, select, warnings_of
from qpannot.bootstrap.evaluating.store import Store
from qpannot.bootstrap.evaluating.writing import write_evaluation
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.predicting import openers_of
from qpannot.bootstrap.records import AND
from qpannot.bootstrap.report import PICTURES
from qpannot.bootstrap.reporting import OVERVIEW_PX
from qpannot.bootstrap.states import REVIEWED, survey
from qpannot.bootstrap.truth import Failures, Lesson, lessons_of, metadata_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each, counted, silent
from qpannot.errors import QpannotError, UsageError
from qpannot.evaluation.measuring import predicted_area
from qpannot.geometry import Mpp, Size
from qpannot.models.bundle import read_card
from qpannot.models.folders import REFINEMENT, kind_of
from qpannot.models.refinement import read_refinement_card
from qpannot.pictures import COMPARED_PX, compared, small_png
from qpannot.qupath import Project, ProjectImage
from qpannot.recipe import Recipe
from qpannot.sampling import Opener, Part

Named = Literal["model", "refined", "otsu", "tissue"]
"""``model``: the patch network the project keeps. ``refined``: what it makes of that's heatmaps."""


@dataclass(frozen=True)
class ModelAsked:
    """A model to be evaluated; its name is made from its folder where none is given.

    Of a refinement network the patch network is found by its digest among the others asked for,
    or it is the one the project keeps.
    """

    folder: Path
    name: str = ""


def designs_of(
    project: Project,
    recipe: Recipe,
    folder: Path,
    models: Sequence[ModelAsked] = (),
    named: Sequence[Named] = (),
) -> list[Design]:
    """Return what is to be evaluated, thresholds first.

    Where nothing is asked for: what the project keeps, patch-wise and refined, if there is that,
    and both thresholds.

    Parameters
    ----------
    folder
        Of the evaluation; heatmaps of models that have no place of their own go there.

    Raises
    ------
    QpannotError
        A model is not there, does not know a class of the recipe, or two share a name.
    """
    ledger = Ledger.of(project)
    kept, refinement = ledger.kept_model(), ledger.kept_refinement()
    wanted: list[Named] = list(dict.fromkeys(named))
    if not models and not wanted:
        wanted = ["otsu", "tissue"]
        if kept:
            wanted.append("model")
        if refinement:
            wanted.append("refined")
    asked = list(models)
    if "model" in wanted:
        if kept is None:
            raise QpannotError(
                f"{project.path}: no model has been trained on this project.",
                hint="Name one with --model, or train one: qpannot bootstrap, qpannot train",
            )
        asked.insert(0, ModelAsked(ledger.model_folder(kept), kept))
    if "refined" in wanted:
        if refinement is None:
            raise QpannotError(
                f"{project.path}: the project keeps no refinement network.",
                hint="Train one, then evaluate it by --model refined/model: qpannot train "
                f"{shlex.quote(str(project.path))} --stage refinement -o refined\n"
                "Where the recipe has refinement.enabled: true, the next round of 'qpannot "
                "bootstrap' that trains a network makes one, and keeps it.",
            )
        asked.append(ModelAsked(ledger.model_folder(refinement), refinement))
    make = partial(_model_design, project, ledger, recipe, folder)
    refinements = [each for each in asked if kind_of(each.folder) == REFINEMENT]
    networks = [make(each) for each in asked if each not in refinements]
    known = list(networks)
    if kept and refinements:
        known.append(make(ModelAsked(ledger.model_folder(kept), kept)))
    found: list[Design] = [
        baseline(kind, recipe) for kind in wanted if kind != "model" and kind != "refined"
    ]
    found += networks
    found += [_refined_design(project, ledger, recipe, folder, each, known) for each in refinements]
    names = [design.name for design in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(
            f"Two designs are called {twice[0]}.", hint="Name them: --model first=FOLDER"
        )
    return found


def _model_design(
    project: Project, ledger: Ledger, recipe: Recipe, folder: Path, asked: ModelAsked
) -> ModelDesign:
    model = asked.folder.resolve()
    card = checked_card(model, recipe)
    training = model.parent.name if model.name == "model" else model.name
    heatmaps = folder / "heatmaps" / card.weights_sha256[:12]
    if model == ledger.model_folder(training).resolve() and _predicts_alike(recipe, ledger):
        heatmaps = ledger.heatmap_folder(training)
    elif (model.parent / "heatmaps").is_dir():  # as qpannot train leaves them
        heatmaps = model.parent / "heatmaps"
    return ModelDesign(
        asked.name or training,
        model,
        recipe,
        _where_to_write(heatmaps, folder / "heatmaps" / card.weights_sha256[:12]),
        with_patients(
            seen_by(model, ledger, {image.id: image.name for image in project.images}),
            metadata_of(project),
            recipe.split.by,
        ),
        {each.name: each.color for each in project.classes if each.color},
    )


def _where_to_write(folder: Path, instead: Path) -> Path:
    """Return a folder, or where it may only be read another one, with the heatmaps that it has."""
    there = next(own for own in (folder, *folder.parents) if own.exists())
    if os.access(there, os.W_OK):
        return folder
    for path in folder.glob("*.ome.tif"):
        instead.mkdir(parents=True, exist_ok=True)
        if not (instead / path.name).exists():
            shutil.copyfile(path, instead / path.name)
    return instead


def _refined_design(
    project: Project,
    ledger: Ledger,
    recipe: Recipe,
    folder: Path,
    asked: ModelAsked,
    networks: Sequence[ModelDesign],
) -> RefinedDesign:
    model = asked.folder.resolve()
    card = read_refinement_card(model)
    check_classes(model, card.classes, recipe)
    patch = None
    if card.takes_heatmap:
        digest = card.patch_model_sha256
        own = [each for each in networks if read_card(each.model).weights_sha256 == digest]
        if not own:
            raise UsageError(
                f"{asked.folder} refines the heatmaps of a patch network that is not among these.",
                hint="Name that one as well: --model FOLDER; its model.json has the weights_sha256 "
                f"{digest}",
            )
        patch = own[0]
    training = model.parent.name if model.name == "model" else model.name
    heatmaps = folder / "heatmaps" / card.weights_sha256[:12]
    if model == ledger.model_folder(training).resolve() and _predicts_alike(recipe, ledger):
        heatmaps = ledger.heatmap_folder(training)
    seen = dict(patch.seen) if patch else {}
    for key, part in seen_by(
        model, ledger, {image.id: image.name for image in project.images}
    ).items():
        seen[key] = strictest(part, seen.get(key, Part.TEST))
    return RefinedDesign(
        asked.name or training,
        model,
        patch,
        _where_to_write(heatmaps, folder / "heatmaps" / card.weights_sha256[:12]),
        with_patients(seen, metadata_of(project), recipe.split.by),
        {each.name: each.color for each in project.classes if each.color},
    )


def _predicts_alike(recipe: Recipe, ledger: Ledger) -> bool:
    """Tell whether heatmaps are those of the loop, which must not lose its own to a trial."""
    own = ledger.recipe()
    return own is not None and all(
        ours == theirs
        for ours, theirs in (
            (recipe.heatmap, own.heatmap),
            (recipe.tissue, own.tissue),
            (recipe.labels.min_tissue, own.labels.min_tissue),
        )
    )


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
    lessons, failed = lessons_of(statuses, ledger)
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
    rows = list(_slide_rows(work, evaluation, openers))
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


def _slide_rows(
    work: Work, evaluation: Evaluation, openers: Mapping[str, Opener]
) -> Iterable[SlideRow]:
    """Yield the slides of the design that is judged, the worst first, those pictured in front."""
    judged = [own for own in evaluation.measured if own.design == evaluation.judged]
    judged.sort(key=lambda own: (own.result().metrics["dice"], own.slide))
    lessons = {lesson.image.id: lesson for lesson in evaluation.selection.lessons}
    design = next((own for own in evaluation.designs if own.name == evaluation.judged), None)
    for place, own in enumerate(judged):
        key = own.image.id
        picture = None
        if design is not None and place < PICTURES:
            work.each("Drawing", own.slide, place, min(len(judged), PICTURES))
            picture = _picture(work, design, lessons[key], openers[key])
        metrics = own.result().metrics
        yield SlideRow(
            own.slide,
            (
                _part(own, evaluation.selection.parts[key]),
                *(number(metrics[name]) for name in ("dice", "recall", "precision")),
                number(metrics["hd95_um"], 1),
                number(metrics["ece"]),
            ),
            {
                other.design: other.result().metrics["dice"]
                for other in evaluation.measured
                if other.image.id == key
            },
            picture,
        )


def _part(own: Measured, part: Part) -> str:
    known = {Part.TRAIN: "fitted to", Part.VALIDATION: "chosen by"}
    return f"{part} ({known[own.seen]})" if own.seen in known else str(part)


def _picture(work: Work, design: Design, lesson: Lesson, opener: Opener) -> bytes | None:
    truth, _ = truth_of(lesson, work.recipe)
    settings = work.recipe.evaluation
    try:
        heatmap = design.heatmap(lesson.image.id, opener, lambda done, total: None)
        with opener() as slide:
            overview, size = slide.thumbnail(Size(OVERVIEW_PX, OVERVIEW_PX)), slide.size
    except QpannotError:
        return None  # the table has the numbers
    found = {name: predicted_area(heatmap, size, name, settings) for name in truth}
    part = crop_to_tissue(
        overview, size, [*truth.values(), *found.values()], longest_px=COMPARED_PX
    )
    before, after = (
        {name: part.moved(area) for name, area in areas.items()} for areas in (found, truth)
    )
    return small_png(compared(part.overview, part.full_size, before, after))


def _described(lesson: Lesson) -> str:
    """Return which slide was timed, in words."""
    server = lesson.image.server
    at = f", {server.mpp.mean:.3g} µm per pixel" if server.mpp else ""
    return f"{lesson.image.name} ({server.size}{at})"


def once(failed: Failures) -> Failures:
    """Return each slide with its first error."""
    found = {image.id: (image, error) for image, error in reversed(failed)}
    return list(reversed(found.values()))
