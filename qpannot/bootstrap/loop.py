"""One step of the loop: what ``qpannot bootstrap`` does each time it is run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import qpannot
from qpannot.bootstrap.first_round import FirstRound
from qpannot.bootstrap.image_record import now
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.outcome import Outcome
from qpannot.bootstrap.proposing import finish_broken_off
from qpannot.bootstrap.scripts import keep_scripts, show_heatmaps_of
from qpannot.bootstrap.states import ImageStatus, State, survey
from qpannot.bootstrap.steps import Kind, next_step
from qpannot.bootstrap.truth import lessons_of
from qpannot.bootstrap.words import mirror, remember
from qpannot.bootstrap.work import Work
from qpannot.console import Each, silent
from qpannot.errors import LockedError, ProjectError
from qpannot.geometry import Mpp
from qpannot.linking import state_mpp
from qpannot.qupath import Project, ProjectImage
from qpannot.qupath.locking import ProjectLock
from qpannot.recipe import Recipe


def bootstrap(
    project: Project,
    recipe: Recipe,
    *,
    only: Sequence[ProjectImage] | None = None,
    mpp: Mpp | None = None,
    each: Each = silent,
) -> Outcome:
    """Do the next step of the loop.

    Round 1 proposes a tissue threshold's outlines (AN1, H2G-Net sec. 2.1) for unannotated images.
    Every later round trains a network on the reviewed ones, judges it on those it was not fitted
    to, does the same with one that refines its heatmaps where the recipe asks for it (sec. 2.6),
    and proposes by what comes of them (AN2) for the others; `qpannot.bootstrap.steps` says when it
    begins. Images that a person annotated are never touched. What was finished is not done again,
    so that a run that was broken off goes on where it was.

    Parameters
    ----------
    project
        Opened for writing.
    recipe
        Remembered as the project's (`Ledger.recipe`), unless it is tried on some images only.
    only
        Propose for these images alone, and anew, by the network if there is one: also where a
        person deleted the proposal or nothing was found before, and in place of proposals that
        nobody touched. Images with a person's work are left alone all the same.
    mpp
        Resolution of slides of which neither the project nor the file tells it. It is stated in
        the project, and holds from then on.
    each
        Told before each image, or batch of a training, of the stage of work (``Looking``,
        ``Proposing``), the image's name, how many are done in this stage, and how many there are.

    Raises
    ------
    LockedError
        When another ``bootstrap`` works on the project.
    QpannotError
        When a network cannot be trained; it says why and what to do.
    """
    if recipe.refinement.enabled:
        from qpannot.bootstrap.refinement.of_round import check_refinement  # loads torch

        check_refinement(recipe)
    ledger = Ledger.of(project)
    with _run_lock(project, ledger):
        if only is None:
            ledger.save_recipe(recipe)
        if mpp:
            state_mpp(project, project.images if only is None else only, mpp)
        statuses = survey(project, ledger, each)
        finish_broken_off(ledger, statuses)
        remember(ledger, statuses)
        mirror(project, ledger, statuses)

        asked = None if only is None else {image.id for image in only}
        outcome = Outcome(recipe, scripts=keep_scripts(project))
        outcome.failed += [
            (status.image, status.error)
            for status in statuses
            if status.error and (asked is None or status.image.id in asked)
        ]
        work = Work(project, ledger, recipe, mpp, each)
        step = next_step(statuses, ledger, recipe)
        if step.kind is Kind.LEARN and asked is None:
            _learn_and_propose(work, step.round, statuses, outcome)
        elif ledger.kept_model():
            _propose(work, step.round, statuses, asked, outcome)
        else:
            _outline_tissue(work, statuses, asked, outcome)
        outcome.statuses = survey(project, ledger)
        mirror(project, ledger, outcome.statuses)  # the queue's order, which the round decided
        show_heatmaps_of(ledger, recipe)
        return outcome


def _outline_tissue(
    work: Work,
    statuses: Sequence[ImageStatus],
    asked: Collection[str] | None,
    outcome: Outcome,
) -> None:
    first = FirstRound(work.project, work.ledger, work.recipe, work.mpp)
    targets = first.targets(statuses, asked)
    _leave_alone(statuses, asked, {image.id for image in targets}, outcome)
    if targets:
        first.round.propose(targets, first.find, outcome, work.each)


def _propose(
    work: Work,
    number: int,
    statuses: Sequence[ImageStatus],
    asked: Collection[str] | None,
    outcome: Outcome,
) -> None:
    from qpannot.bootstrap.network_round import NetworkRound  # loads torch

    kept = work.ledger.kept_model()
    assert kept is not None
    network = NetworkRound(work, number, kept)
    targets = network.targets(statuses, asked)
    _leave_alone(statuses, asked, {status.image.id for status in targets}, outcome)
    if targets:
        network.propose(targets, _waiting(statuses), outcome, limited=asked is None)


def _learn_and_propose(
    work: Work, number: int, statuses: Sequence[ImageStatus], outcome: Outcome
) -> None:
    from qpannot.bootstrap.learning import corrections_of, gather, judge, learn  # load torch
    from qpannot.bootstrap.network_round import NetworkRound
    from qpannot.bootstrap.refinement.of_round import refine

    ledger = work.ledger
    outcome.round = number
    record = ledger.round(number) or RoundRecord(
        number=number,
        method=f"AN2: {work.recipe.network.encoder}",
        started=now(),
        qpannot=qpannot.__version__,
        recipe=work.recipe.model_dump(mode="json"),
    )
    lessons, failed = lessons_of(statuses, ledger, work.recipe, work.each)
    material = gather(work, lessons, ledger.house / "patches")
    if record.judgement and not ledger.has_model(record.judgement.kept):
        record.judgement = None
    if record.judgement is None:
        if record.training is None or not ledger.has_model(record.training.model):
            record.corrections |= corrections_of(work, lessons, ledger.learned(work.recipe))
            learn(work, record, lessons, material)
        judge(work, record, lessons, material)
    assert record.judgement is not None
    outcome.failed += [*failed, *material.failed]
    if work.recipe.refinement.enabled:
        outcome.failed += refine(work, record, lessons)
    network = NetworkRound(work, number, record.judgement.kept)
    targets = network.targets(statuses, None)
    if targets:
        network.propose(targets, _waiting(statuses), outcome)
    record = ledger.round(number) or record
    record.is_complete = True
    record.finished = now()
    ledger.save_round(record)
    outcome.learned = record


def _waiting(statuses: Sequence[ImageStatus]) -> int:
    return sum(status.state is State.PROPOSED for status in statuses)


def _leave_alone(
    statuses: Sequence[ImageStatus],
    asked: Collection[str] | None,
    chosen: Collection[str],
    outcome: Outcome,
) -> None:
    """Name the images that were asked for but hold a person's work."""
    outcome.left_alone += [
        status
        for status in statuses
        if asked is not None
        and status.image.id in asked
        and status.image.id not in chosen
        and not status.error
    ]


@contextmanager
def _run_lock(project: Project, ledger: Ledger) -> Iterator[None]:
    lock = ProjectLock(ledger.house / "run.lock")
    try:
        ledger.house.mkdir(exist_ok=True)
        lock.acquire(0)
    except OSError as error:
        raise ProjectError(
            project.folder,
            f"the project folder cannot be written ({error.strerror or error}).",
            hint="Check its permissions and free space, or copy the project to a folder of your "
            "own.",
        ) from error
    except LockedError as error:
        raise LockedError(
            project.path,
            "another 'qpannot bootstrap' is working on this project.",
            hint="Wait until it is done; 'qpannot status' shows how far it is.",
        ) from error
    try:
        yield
    finally:
        lock.release()
