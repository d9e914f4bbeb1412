"""``qpannot bootstrap``, ``status`` and ``approve``: the loop and where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpannot.cli.common import (
    SKIPPED,
    BackendOption,
    JsonOption,
    MppOption,
    ProjectArgument,
    RecipeOption,
    SetOption,
    parse_mpp,
    recipe_of,
    select_images,
)
from qpannot.cli.network import SPARSE
from qpannot.cli.outcomes import advice_on, counts, counts_text, outcome_json, show_outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.outcome import Outcome
    from qpannot.bootstrap.states import ImageStatus
    from qpannot.errors import QpannotError


def bootstrap(
    project: ProjectArgument = Path(),
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="Only these: a name, an ID or a pattern; repeatable.",
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Go on for so many steps, as far as no person is needed."
        ),
    ] = 1,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Do the next step of the loop. Run it again and again.

    Round 1 proposes a tissue threshold's outlines (AN1) on every unannotated slide, for a
    person to correct in QuPath. Each later round trains a network on the reviewed slides, judges it
    on some that it was not fitted to, keeps the better one, and proposes by its heatmaps (AN2) for
    the others. With 'refinement.enabled' in the recipe a second network learns to refine these
    heatmaps, and proposals come from what it makes of them, unless it makes them worse. What a
    person annotated is never touched; repeating the command does nothing twice, and goes on with
    what was broken off. The report of each round is in qpannot/reports in the project's folder.
    With --image, proposals that nobody touched are made anew, so that other settings can be tried.

    The project keeps the recipe: what --recipe and --set gave without --image holds for later
    runs, until others are given.

    Examples:

      qpannot bootstrap study

      qpannot bootstrap study --recipe quick --set tissue.threshold=220

      qpannot bootstrap study --image 'case-1*' --set tissue.threshold=220
    """
    from qpannot.bootstrap.loop import bootstrap as step
    from qpannot.bootstrap.reporting import write_report
    from qpannot.console import show_json, stages
    from qpannot.qupath import open_project

    resolution = parse_mpp(mpp)
    outcomes: list[dict[str, Any]] = []
    any_failed = False
    with open_project(project, "r+", backend) as opened:  # type: ignore[arg-type]
        loaded = recipe_of(opened, recipe, set_)
        only = select_images(opened, images) if images else None
        for _ in range(rounds):
            with stages(quiet=("Looking",), sparse=SPARSE) as each:
                outcome = step(opened, loaded, only=only, mpp=resolution, each=each)
            report = write_report(opened, outcome, advice_on(opened, outcome))
            outcomes.append(outcome_json(opened, outcome, report))
            any_failed |= outcome.has_failures
            if not json:
                show_outcome(opened, outcome, report)
            if outcome.round is None or outcome.has_failures:
                break
        if json:
            show_json(outcomes[0] if rounds == 1 else outcomes)
        elif (recipe or set_) and only is None:
            _say_what_stays(outcome)
    if any_failed:
        raise typer.Exit(SKIPPED)


def _say_what_stays(outcome: Outcome) -> None:
    """Say of which proposals the recipe given just now is not."""
    from qpannot.bootstrap.states import State
    from qpannot.console import counted, say

    made = {proposed.image_id for proposed in outcome.proposed}
    stay = [
        status
        for status in outcome.statuses
        if status.state is State.PROPOSED and status.image.id not in made
    ]
    if stay:
        say(
            f"{counted(len(stay), 'earlier proposal')} stayed as made, with other settings perhaps:"
            " --recipe and --set hold for slides without one. To make some anew: --image NAME"
        )


def status(
    project: ProjectArgument = Path(),
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a picture of every slide, annotations outlined, to this folder.",
        ),
    ] = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show every image of a project and its state. Changes no file of the project.

    States: unannotated; proposed, which waits for a person; reviewed, by a person's correction or
    word; approved, by a second reader, of whom is shown how much each changed. With --json also
    how far several readers of a slide agree, and what corrections cost.

    Examples:

      qpannot status study

      qpannot status study --pictures look      then open look/overview.png
    """
    from qpannot.bootstrap.advice import labels, next_steps
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.readers.telling import costs_json, readers_json
    from qpannot.bootstrap.states import survey
    from qpannot.cli.drawing import write_pictures
    from qpannot.console import say, show_json, show_next, show_skipped, stages
    from qpannot.qupath import open_project
    from qpannot.recipe import Recipe
    from qpannot.review.unsaved import next_step, unsaved

    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        ledger = Ledger.of(opened)
        with stages(quiet=("Looking",)) as each:
            statuses = survey(opened, ledger, each, at_a_glance=True)
        drawn, failed = write_pictures(statuses, pictures) if pictures else ({}, [])
        called, kept = labels(opened.images), ledger.recipe()
        recipe = kept or Recipe()
        left = unsaved(opened)
        advice = (*next_step(opened, left), *next_steps(statuses, opened.path, ledger, recipe))
        if json:
            show_json(
                {
                    "project": str(opened.path),
                    "recipe": kept.name if kept else None,
                    "unsaved": [
                        {"id": each.image.id, "by": each.by, "when": each.when} for each in left
                    ],
                    "images": [
                        {**_status_json(status, drawn), **readers_json(status, ledger, recipe)}
                        for status in statuses
                    ],
                    "states": counts(statuses),
                    "corrections": costs_json(statuses, ledger),
                    "next": advice,
                }
            )
        else:
            _show_table(statuses)
            _show_second_readings(statuses, ledger, called)
            show_skipped((called[image.id], error) for image, error in failed)
            if pictures:
                say(f"Pictures: {pictures / 'overview.png'}")
            show_next(advice)
    if failed or any(status.error for status in statuses):
        raise typer.Exit(SKIPPED)


def _row(status: ImageStatus) -> tuple[str, ...]:
    count = "?" if status.annotations is None else str(status.annotations)
    why = status.error.message if status.error else status.reason
    if status.slide_is_missing:
        why += "; the slide is missing"
    return (
        status.image.id,
        status.image.name,
        status.state.value,
        count,
        "" if status.round is None else str(status.round),
        why,
    )


def _status_json(status: ImageStatus, pictures: dict[str, Path]) -> dict[str, Any]:
    image = status.image
    size, mpp = image.server.size, image.server.mpp
    return {
        "id": image.id,
        "name": image.name,
        "state": status.state.value,
        "why": status.reason,
        "annotations": status.annotations,
        "proposals": status.proposals,
        "round": status.round,
        "slide": str(image.path) if image.path else None,
        "slide_found": not status.slide_is_missing,
        "size_px": [size.width, size.height] if size else None,
        "mpp": [mpp.x, mpp.y] if mpp else None,
        "metadata": dict(image.metadata),
        "tags": list(image.tags),
        "error": str(status.error) if status.error else None,
        "picture": str(pictures[image.id]) if image.id in pictures else None,
    }


def approve(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Names, IDs or patterns such as 'case-1*'."),
    ],
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", "-p", metavar="PROJECT", help="The project; the current folder by default."
        ),
    ] = None,
    second_reader: Annotated[
        bool, typer.Option("--second-reader", help="Mark reviewed slides as approved.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Accept slides without any annotation: all is normal.")
    ] = False,
    take_back: Annotated[
        bool,
        typer.Option("--take-back", help="Undo: approved becomes reviewed, reviewed waits again."),
    ] = False,
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who says so, if that is to be recorded.")
    ] = "",
    independent: Annotated[
        bool,
        typer.Option(
            "--independent",
            help="Of several people who read the same slides, each alone: say so of what the one "
            "named by --by drew, and of nothing else.",
        ),
    ] = False,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Say that the annotations of slides are right as they are.

    Marks them reviewed, so that a network may learn from them; with --second-reader approved,
    which needs a review first, and shows what was changed since. A slide whose proposal was
    corrected in QuPath counts as reviewed without this; --take-back makes it wait again, until it
    is changed and saved again. Of several, those without annotations are skipped and named.

    Examples:

      qpannot approve case-1.svs case-2.svs --project study

      qpannot approve 'case-*' --project study --second-reader --by AB
    """
    from qpannot.bootstrap.advice import labels
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.readers.telling import readers_json
    from qpannot.bootstrap.review import say as say_of
    from qpannot.bootstrap.review import take_back as take_back_of
    from qpannot.bootstrap.states import State
    from qpannot.console import show_json, show_skipped
    from qpannot.errors import UsageError
    from qpannot.qupath import open_project
    from qpannot.recipe import Recipe

    if project is None:
        first = Path(images[0])
        is_project = first.suffix == ".qpproj" or bool(list(first.glob("*.qpproj")))
        project, images = (first, images[1:]) if is_project else (Path(), images)
    if take_back and (second_reader or empty):
        raise UsageError("--take-back goes with neither --second-reader nor --empty.")
    if independent and second_reader:
        raise UsageError("--independent and --second-reader do not go together.")
    if not images:
        raise UsageError(
            "Which images?", hint="Name them: qpannot approve case-1.svs --project study"
        )
    with open_project(project, "r+", backend) as opened:  # type: ignore[arg-type]
        chosen = select_images(opened, images)
        called = labels(opened.images)
        if take_back:
            said = take_back_of(opened, chosen, by=by, independent=independent)
        else:
            state = State.APPROVED if second_reader else State.REVIEWED
            said = say_of(opened, chosen, state, by=by, allow_empty=empty, independent=independent)
        ledger, recipe = Ledger.of(opened), Ledger.of(opened).recipe() or Recipe()
    if not said.statuses and said.skipped:
        raise _refusal([(called[image.id], error) for image, error in said.skipped])
    statuses = list(said.statuses)
    if json:
        skipped = [
            {"id": image.id, "name": image.name, "error": error.message, "next": error.hint}
            for image, error in said.skipped
        ]
        told = [
            {**_status_json(status, {}), **readers_json(status, ledger, recipe)}
            for status in statuses
        ]
        show_json({"images": told, "skipped": skipped})
    else:
        show_skipped((called[image.id], error) for image, error in said.skipped)
        _show_table(statuses)
        if second_reader:
            _show_second_readings(statuses, ledger, called, tell_unknown=True)
            _note_own_second_readers(statuses, ledger, called)
    if said.skipped:
        raise typer.Exit(SKIPPED)


def _refusal(skipped: Sequence[tuple[str, QpannotError]]) -> QpannotError:
    """Return the error where nothing could be said of any image."""
    from qpannot.errors import UsageError

    (_, first), names = skipped[0], [name for name, _ in skipped]
    if len(skipped) == 1:
        return first
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
    return UsageError(f"Nothing was recorded of {shown}. {first.message}", hint=first.hint)


def _show_table(statuses: list[ImageStatus]) -> None:
    from qpannot.console import counted, say, show_table

    columns = ("id", "image", "state", "annotations", "round", "why")
    show_table(columns, [_row(status) for status in statuses])
    say(f"{counted(len(statuses), 'image')}: {counts_text(statuses)}.")


def _note_own_second_readers(
    statuses: list[ImageStatus], ledger: Ledger, called: dict[str, str]
) -> None:
    """Say which slides the same person has read first and second."""
    from qpannot.bootstrap.states import State
    from qpannot.console import stderr

    records = [ledger.image(status.image.id, status.image.name) for status in statuses]
    twice = [
        f"{called[record.id]} ({record.word.by})"
        for record in records
        if record.word
        and record.word.by
        and any(
            word.by == record.word.by and word.state == State.REVIEWED
            for word in record.standing_words
        )
    ]
    if twice:
        text = f"Note: first and second reader are the same person: {', '.join(twice)}."
        stderr().print(text, style="yellow", markup=False)


def _show_second_readings(
    statuses: list[ImageStatus],
    ledger: Ledger,
    called: dict[str, str],
    *,
    tell_unknown: bool = False,
) -> None:
    """Show what second readers changed of what the first had left, the worst first.

    Parameters
    ----------
    tell_unknown
        Also of which slides that is not known.
    """
    from qpannot.bootstrap.readers.telling import SECOND_COLUMNS, second_readings_of, unmeasured
    from qpannot.console import say, show_table

    if rows := second_readings_of(statuses, ledger, called):
        show_table(SECOND_COLUMNS, rows)
    if tell_unknown and (names := unmeasured(statuses, ledger, called)):
        say(
            f"Not known is what the first reader had left of {', '.join(names)}: nobody had said "
            "'reviewed', and no command had seen it."
        )
