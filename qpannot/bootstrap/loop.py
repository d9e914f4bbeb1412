"""One step of the loop: what ``qpannot bootstrap`` does each time it is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from qpannot.bootstrap.first_round import FirstRound
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.outcome import Outcome
from qpannot.bootstrap.proposing import finish_broken_off
from qpannot.bootstrap.states import mirror, remember, survey
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

    Round 1 proposes a tissue threshold's outlines (AN1, H2G-Net sec. 2.1) for every unannotated
    image, or for as many as the recipe allows to wait for a person at one time. Images that a
    person annotated are never touched. Each image is finished before the next is begun, so that
    a run that was broken off goes on where it was.

    Parameters
    ----------
    project
        Opened for writing.
    recipe
        Remembered as the project's (`Ledger.recipe`), unless it is tried on some images only.
    only
        Propose for these images alone, and anew: also where a person deleted the proposal or
        nothing was found before, and in place of proposals that nobody touched. Images with a
        person's work are left alone all the same.
    mpp
        Resolution of slides of which neither the project nor the file tells it. It is stated in
        the project, and holds from then on.
    each
        Told before each image of the stage of work (``Looking``, ``Proposing``), the image's name,
        how many are done in this stage, and how many there are.

    Raises
    ------
    LockedError
        When another ``bootstrap`` works on the project.
    """
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
        first = FirstRound(project, ledger, recipe, mpp)
        targets = first.targets(statuses, asked)
        chosen = {image.id for image in targets}
        outcome = Outcome(recipe)
        for status in statuses:
            if asked is not None and status.image.id not in asked:
                continue
            if status.error:
                outcome.failed.append((status.image, status.error))
            elif asked is not None and status.image.id not in chosen:
                outcome.left_alone.append(status)
        if targets:
            first.round.propose(targets, first.find, outcome, each)
        outcome.statuses = survey(project, ledger)
        return outcome


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
