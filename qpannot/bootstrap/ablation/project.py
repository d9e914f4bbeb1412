"""The ablation study of a project: every design trained, and all of them compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from qpannot.bootstrap.ablation.comparison import Comparison, averaged
from qpannot.bootstrap.ablation.planning import Plan, check_plans, plan_designs, with_patches
from qpannot.bootstrap.ablation.study import Study, open_study
from qpannot.bootstrap.ablation.training import HEATMAPS, Trainings, model_of, train_plans
from qpannot.bootstrap.evaluating import (
    Design,
    Measured,
    ModelDesign,
    Store,
    TissueDesign,
    baseline,
    measure_designs,
    select,
)
from qpannot.bootstrap.evaluating.project import complete, once
from qpannot.bootstrap.evaluating.refined import RefinedDesign
from qpannot.bootstrap.evaluating.seen import strictest, with_patients
from qpannot.bootstrap.evaluating.selecting import Wanted, parts_of, warnings_of
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.truth import metadata_of
from qpannot.bootstrap.work import Work
from qpannot.console import Each, silent
from qpannot.errors import LockedError, QpannotError
from qpannot.geometry import Mpp
from qpannot.qupath import Project
from qpannot.qupath.locking import ProjectLock
from qpannot.recipe import Recipe
from qpannot.sampling import Part
from qpannot.training.results import MODEL

REFINED = "refined"


def run_ablation(
    project: Project,
    recipe: Recipe,
    folder: Path,
    *,
    wanted: Sequence[str] = (),
    seeds: Sequence[int] = (),
    part: Wanted = "auto",
    by: Sequence[str] = (),
    repeat: int = 0,
    mpp: Mpp | None = None,
    each: Each = silent,
) -> tuple[Comparison, Path]:
    """Train the designs of a recipe on one split, compare them, and write a report.

    Repeated with the same folder it goes on where it was, within an epoch; what is trained is not
    trained again, what is measured not measured again. The slides, and what each is for, stay
    those of the first run. The project is only read.

    Parameters
    ----------
    folder
        Where everything goes; made where it is missing.
    wanted
        Names or numerals of designs; none: all that the recipe lists.
    seeds
        Each design is trained with each of them; none: with the recipe's ``training.seed``.
    part, by, repeat
        As for `qpannot.bootstrap.evaluating.evaluate_project`.
    mpp, each
        As for `qpannot.bootstrap.jobs.train_alone`.

    Returns
    -------
    Comparison, Path
        What was found, and the report.

    Raises
    ------
    QpannotError
        A design is not known or cannot be trained at all, there is nothing to learn from or to
        compare with, or another process works on the folder.
    TrainingInterrupted
        It was asked to stop.
    """
    plans = plan_designs(recipe, wanted)
    seeds = tuple(dict.fromkeys(seeds)) or (recipe.training.seed,)
    # what has a model was tried before; a network takes seconds to make
    check_plans(
        [
            plan
            for plan in with_patches(plans)
            if not all((plan.folder(folder, seed) / MODEL).is_dir() for seed in seeds)
        ]
    )
    work = Work(project, Ledger.of(project), recipe, mpp, each)
    with _locked(folder):
        study = open_study(work, folder)
        trainings = train_plans(study, plans, seeds)
        return _compare(study, plans, seeds, trainings, part, by, repeat)


def _compare(
    study: Study,
    plans: Sequence[Plan],
    seeds: tuple[int, ...],
    trainings: Trainings,
    part: Wanted,
    by: Sequence[str],
    repeat: int,
) -> tuple[Comparison, Path]:
    work, recipe = study.work, study.work.recipe
    designs = {
        plan.label: {
            seed: _design(study, plan, seed, trainings)
            for seed in (seeds if plan.is_trained else seeds[:1])
            if not plan.is_trained or (plan.settings.name, seed) in trainings.done
        }
        for plan in plans
    }
    flat = [design for own in designs.values() for design in own.values()]
    if not flat:
        raise _nothing_trained(trainings)
    known = with_patients(study.parts, metadata_of(work.project), recipe.split.by)
    selection = select(study.lessons, parts_of(study.lessons, known, flat), part)
    store = Store(study.folder / "measured")
    found = measure_designs(work, flat, selection.lessons, study.openers, store)
    of_design: dict[str, list[Measured]] = {}
    for own in found.measured:
        of_design.setdefault(own.design, []).append(own)
    measured = {
        label: {seed: of_design.get(design.name, []) for seed, design in own.items()}
        for label, own in designs.items()
    }
    shown = [replace(next(iter(own.values())), name=label) for label, own in designs.items() if own]
    comparison = Comparison(
        project=work.project.path,
        recipe=recipe,
        designs=shown,
        selection=selection,
        measured=[one for label, own in measured.items() for one in averaged(label, own)],
        warnings=[
            *_failures(trainings),
            *warnings_of(selection, _of_one_mind(shown), recipe.split.by),
            *_newer(study),
        ],
        groups=tuple(dict.fromkeys((*recipe.evaluation.groups, *by))),
        folder=study.folder,
        reused=found.reused,
        failed=once([*study.failed, *trainings.failed, *found.failed]),
        notes=(study.told, *_told(plans, seeds, trainings)),
        seeds=seeds,
        by_seed={plan.label: measured[plan.label] for plan in plans if plan.is_trained},
        trainings=trainings,
    )
    report = complete(work, comparison, study.openers, store, by=by, repeat=repeat)
    return comparison, report


def _design(
    study: Study, plan: Plan, seed: int, trainings: Trainings
) -> TissueDesign | ModelDesign | RefinedDesign:
    """Return a design of a seed as it is evaluated, under a name of its own."""
    if not plan.is_trained:
        found = baseline("tissue", plan.recipe)
        return replace(found, name=plan.label, mpp=study.work.recipe.evaluation.mpp)
    trained = trainings.done[plan.settings.name, seed]
    name = f"{plan.label}, seed {seed}"
    folder, model = plan.folder(study.folder, seed), model_of(study, plan, seed)
    colors = {own.name: own.color for own in study.work.project.classes if own.color}
    seen: dict[str, Part] = {
        key: part for key, part in study.parts.items() if part is not Part.TEST
    }
    for part, used in ((Part.VALIDATION, trained.choose), (Part.TRAIN, trained.teach)):
        seen |= {key: strictest(part, seen.get(key, Part.TEST)) for key in used}
    seen = with_patients(seen, metadata_of(study.work.project), study.work.recipe.split.by)
    if plan.settings.stage == "patch":
        return ModelDesign(name, model, plan.recipe, folder / HEATMAPS, seen, colors)
    patch = plan.patch and _design(study, plan.patch, seed, trainings)
    assert patch is None or isinstance(patch, ModelDesign)
    return RefinedDesign(name, model, patch, folder / REFINED, seen, colors)


def _of_one_mind(designs: Sequence[Design]) -> list[Design]:
    """Return a design for each set of slides that some know alike, named after all of them."""
    trained = [design for design in designs if not design.is_baseline]
    groups: list[list[Design]] = []
    for design in trained:
        alike = next((own for own in groups if own[0].seen == design.seen), None)
        if alike is None:
            groups.append(alike := [])
        alike.append(design)
    names = (
        ["Every trained design"]
        if len(groups) == 1 and len(trained) > 1
        else [
            "Each of " + ", ".join(o.name for o in own) if own[1:] else own[0].name
            for own in groups
        ]
    )
    return [_renamed(own[0], name) for own, name in zip(groups, names, strict=True)]


def _renamed(design: Design, name: str) -> Design:
    assert isinstance(design, TissueDesign | ModelDesign | RefinedDesign)
    return replace(design, name=name)


def _failures(trainings: Trainings) -> list[str]:
    return [
        f"{own.plan.label} was not trained with seed {own.seed}: {own.error.message}"
        for own in trainings.not_done
    ]


def _newer(study: Study) -> list[str]:
    if not study.newer:
        return []
    return [
        f"Left out, as reviewed since the study began: {', '.join(study.newer)}. "
        "Begin anew in another folder to have them in."
    ]


def _told(plans: Sequence[Plan], seeds: Sequence[int], trainings: Trainings) -> list[str]:
    """Return what a reader of any table has to know of how the designs were trained."""
    found = [f"Trained with seed {seeds[0]}."]
    if len(seeds) > 1:
        listed = ", ".join(str(seed) for seed in seeds)
        found = [f"Trained with seeds {listed}; of each slide the mean over seeds."]
    protocols = {own.protocol for own in trainings.done.values() if own.protocol}
    whose = {
        "paper": "of the slides that had taught the patch network (the paper's protocol)",
        "held_out": "of slides that the patch network had not been fitted to",
    }
    for protocol in sorted(protocols):
        found.append(f"Refinement networks learned from heatmaps {whose[protocol]}.")
    reasons = [own.reason for own in trainings.done.values() if own.reason and own.protocol]
    return found + list(dict.fromkeys(reasons))


def _nothing_trained(trainings: Trainings) -> QpannotError:
    lines = [
        f"  {own.plan.label}, seed {own.seed}: {own.error.message}" for own in trainings.not_done
    ]
    hints = dict.fromkeys(own.error.hint for own in trainings.not_done if own.error.hint)
    return QpannotError(
        "\n".join(["No design could be trained:", *lines]), hint=" ".join(hints) or None
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second run from working in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = ProjectLock(folder / "run.lock")
    try:
        lock.acquire(0)
    except LockedError as error:
        raise LockedError(
            folder,
            "another 'qpannot ablation' is working in this folder.",
            hint="Wait until it is done, or name another folder: -o FOLDER",
        ) from error
    try:
        yield
    finally:
        lock.release()
