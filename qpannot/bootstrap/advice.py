"""What the person should do next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.states import REVIEWED, ImageStatus, State
from qpannot.bootstrap.steps import LEAST_REVIEWED, Kind, next_step
from qpannot.console import counted
from qpannot.errors import FormatError, QpannotError
from qpannot.qupath import ProjectImage
from qpannot.recipe import Recipe


def labels(images: Iterable[ProjectImage]) -> dict[str, str]:
    """Return by image ID what images are called: by their name, where that is shared with its ID.

    Parameters
    ----------
    images
        Every image of the project.
    """
    known = list(images)
    count = Counter(image.name for image in known)
    return {
        image.id: image.name if count[image.name] == 1 else f"{image.name} (ID {image.id})"
        for image in known
    }


def next_steps(
    statuses: Sequence[ImageStatus], project: Path, ledger: Ledger, recipe: Recipe
) -> tuple[str, ...]:
    """Return what to do next, in plain sentences, the most pressing first.

    Parameters
    ----------
    statuses
        Every image of the project.
    project
        The ``.qpproj`` file, for commands that can be copied.
    recipe
        The one the next run will have.
    """
    at_once = recipe.round.slides
    if not statuses:
        folder = shlex.quote(str(project.parent))
        return (f"the project has no images; add slides: qpannot init SLIDES... -o {folder}",)
    named = shlex.quote(str(project))
    count = Counter(status.state for status in statuses)
    called = labels(status.image for status in statuses)

    def names(of: Sequence[ImageStatus]) -> str:
        shown = ", ".join(called[status.image.id] for status in of[:5])
        return shown if len(of) <= 5 else f"{shown} and {len(of) - 5} more"

    steps = []
    about_network, is_due = _about_network(statuses, ledger, recipe, named)
    if is_due:
        steps.append(about_network)
    if waiting := count[State.PROPOSED]:
        steps += (
            f"{counted(waiting, 'slide')} to be corrected: open {project} in QuPath (reopen it if "
            "it is open already), correct the proposals with the brush, save; or in napari: "
            f"qpannot review {named}",
            "a changed proposal counts as reviewed; where one is right as it is, say so: "
            f"qpannot approve IMAGE -p {named}, or in QuPath: Automate > Project scripts > qpannot",
        )
    if about_network and not is_due:
        steps.append(about_network)
    settled = [status for status in statuses if status.rejected or status.nothing_found]
    if settled:
        setting = "outlines.threshold=0.3" if ledger.kept_model() else "tissue.threshold=220"
        steps.append(
            f"{counted(len(settled), 'slide')} where nothing was found or the proposal was deleted "
            f"({names(settled)}): annotate by hand, try other settings (qpannot bootstrap "
            f"{named} --image NAME --set {setting}), or say that there is nothing to "
            "annotate: "
            f"qpannot approve IMAGE --empty -p {named}"
        )
    left = [
        status
        for status in statuses
        if status.state is State.UNANNOTATED
        and not (status.rejected or status.nothing_found or status.error)
        and not status.slide_is_missing
    ]
    if left and at_once is not None and waiting >= at_once:
        steps.append(
            f"{counted(len(left), 'slide')} without annotations: the recipe lets {at_once} wait "
            f"for a person at one time. Correct some, then: qpannot bootstrap {named}; or propose "
            f"for all now: qpannot bootstrap {named} --set round.slides=null"
        )
    elif left:
        steps.append(
            f"{counted(len(left), 'slide')} without annotations; propose for them: "
            f"qpannot bootstrap {named}"
        )
    if missing := [status for status in statuses if status.slide_is_missing]:
        steps.append(
            f"{counted(len(missing), 'slide')} missing ({names(missing)}); tell where slides are: "
            f"qpannot relink {named} FOLDER"
        )
    if broken := [each for each in statuses if each.error and not is_of_ledger(each.error, ledger)]:
        steps.append(
            f"{counted(len(broken), 'image')} whose annotations cannot be read ({names(broken)}): "
            "put a snapshot back, 'qpannot snapshots "
            f"{named} --image NAME'; do not save them in QuPath, which shows them as empty"
        )
    if not steps:
        kept, refinement = ledger.kept_model(), ledger.kept_refinement()
        refined = f", refined by {ledger.model_folder(refinement)}" if refinement else ""
        steps.append(
            "every slide is reviewed. A second reader can confirm: "
            f"qpannot approve IMAGE --second-reader -p {named}"
            + (f". The model is {ledger.model_folder(kept)}{refined}" if kept else "")
        )
    if stalled := _stalled(ledger):
        steps.append(stalled)
    return tuple(steps)


def is_of_ledger(error: QpannotError, ledger: Ledger) -> bool:
    """Tell whether a record of the ledger is what cannot be read; its error says what to do."""
    return isinstance(error, FormatError) and ledger.house in Path(error.path).parents


def _about_network(
    statuses: Sequence[ImageStatus], ledger: Ledger, recipe: Recipe, named: str
) -> tuple[str, bool]:
    """Return what to say of the next training, and whether it comes with the next run."""
    step = next_step(statuses, ledger, recipe)
    command = f"qpannot bootstrap {named}"
    if step.kind is Kind.LEARN:
        if step.is_broken_off:
            return f"round {step.round} is not finished; go on with it: {command}", True
        news = counted(step.newly_reviewed, "slide")
        return f"{news} newly reviewed; train the network on them: {command}", True
    reviewed = sum(status.state in REVIEWED for status in statuses)
    if not step.newly_reviewed:
        return "", False
    if reviewed < LEAST_REVIEWED:
        return (
            "the network needs two reviewed slides at least, one to learn from and one to choose "
            "the model by",
            False,
        )
    return (
        f"{step.newly_reviewed} of {recipe.round.train_after} newly reviewed slides until the "
        f"network is trained; to train it now: {command} "
        f"--set round.train_after={step.newly_reviewed}",
        False,
    )


def _stalled(ledger: Ledger) -> str:
    """Return what to say where the last two rounds made the network no better."""
    judged = [record.judgement for record in ledger.rounds() if record.judgement]
    if len(judged) < 3 or any(each.helped is not False for each in judged[-2:]):
        return ""
    return (
        "the last two rounds did not raise the Dice on the held-out slides: more of the same will "
        "hardly help. Correct slides of another kind, or take the model as it is: "
        f"{ledger.model_folder(judged[-1].kept)}"
    )
