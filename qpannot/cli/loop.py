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
    select_images,
)

if TYPE_CHECKING:
    from qpannot.bootstrap.loop import Outcome
    from qpannot.bootstrap.states import ImageStatus
    from qpannot.qupath import Project


def bootstrap(
    project: ProjectArgument = Path(),
    images: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="Only these: a name, an ID or a pattern; repeatable."),
    ] = None,
    recipe: RecipeOption = "h2gnet",
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Do the next step of the loop. Run it again and again.

    Round 1 proposes a tissue threshold's outlines (AN1) on every unannotated slide, for a
    person to correct in QuPath. What a person annotated is never touched; repeating the command
    does nothing twice. With --image, proposals that nobody touched are made anew, so that other
    settings can be tried.

    Examples:

      qpannot bootstrap study

      qpannot bootstrap study --recipe quick --set tissue.threshold=220

      qpannot bootstrap study --image 'case-1*' --set tissue.threshold=220
    """
    from qpannot.bootstrap.loop import bootstrap as step
    from qpannot.console import progress, show_json
    from qpannot.qupath import open_project
    from qpannot.recipe import load_recipe

    loaded = load_recipe(recipe, set_ or ())
    resolution = parse_mpp(mpp)
    with open_project(project, "r+", backend) as opened:  # type: ignore[arg-type]
        only = select_images(opened, images) if images else None
        with progress("Proposing") as advance:
            outcome = step(
                opened,
                loaded,
                only=only,
                mpp=resolution,
                each=lambda image, done, total: advance(image.name, done, total),
            )
        if json:
            show_json(_outcome_json(opened, outcome))
        else:
            show_outcome(opened, outcome)
    if outcome.failed:
        raise typer.Exit(SKIPPED)


def show_outcome(project: Project, outcome: Outcome) -> None:
    """Say what a run of bootstrap did, how things stand, and what comes next."""
    from qpannot.bootstrap.advice import next_steps
    from qpannot.console import counted, say, show_next, show_skipped

    show_skipped((image.name, error) for image, error in outcome.failed)
    if outcome.round is None:
        say(
            "Nothing to propose. (Other settings for proposals that nobody touched: "
            "--image NAME --set KEY=VALUE)"
        )
    for proposed in outcome.proposed:
        area = ", pixel size unknown: the recipe's px settings were used; --mpp tells it"
        if proposed.area_mm2 is not None:
            area = f", {proposed.area_mm2:.3g} mm²"
        count = counted(proposed.annotations, "annotation")
        anew = ", in place of an untouched proposal" if proposed.replaced else ""
        say(f"  {proposed.name}: {count}{area}{anew} ({proposed.seconds:.1f} s)")
    for image in outcome.empty:
        say(f"  {image.name}: no tissue found")
    for status in outcome.left_alone:
        say(f"  {status.image.name}: left alone, it is {status.state} ({status.reason})")
    if outcome.round is not None:
        skipped = f", {len(outcome.failed)} skipped" if outcome.failed else ""
        made = counted(len(outcome.proposed), "slide")
        say(f"Round {outcome.round}: proposed for {made}{skipped}.")
    say(f"{counted(len(outcome.statuses), 'image')}: {_counts_text(outcome.statuses)}.")
    show_next(next_steps(outcome.statuses, project.path))


def _counts(statuses: list[ImageStatus]) -> dict[str, int]:
    from qpannot.bootstrap.states import State

    return {state.value: sum(status.state is state for status in statuses) for state in State}


def _counts_text(statuses: list[ImageStatus]) -> str:
    return ", ".join(f"{count} {state}" for state, count in _counts(statuses).items() if count)


def _outcome_json(project: Project, outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    from qpannot.bootstrap.advice import next_steps

    return {
        "project": str(project.path),
        "round": outcome.round,
        "proposed": [asdict(proposed) for proposed in outcome.proposed],
        "nothing_found": [image.name for image in outcome.empty],
        "left_alone": [status.image.name for status in outcome.left_alone],
        "failed": [
            {"image_id": image.id, "name": image.name, "error": error.message, "next": error.hint}
            for image, error in outcome.failed
        ],
        "states": _counts(outcome.statuses),
        "next": next_steps(outcome.statuses, project.path),
    }


def status(
    project: ProjectArgument = Path(),
    pictures: Annotated[
        Path | None,
        typer.Option(help="Write a picture of every slide, annotations outlined, to this folder."),
    ] = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show every image of a project and its state. Changes no file of the project.

    States: unannotated; proposed, which waits for a person; reviewed, by a person's correction or
    word; approved, by a second reader.

    Examples:

      qpannot status study

      qpannot status study --pictures look      then open look/overview.png
    """
    from qpannot.bootstrap.advice import next_steps
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.states import survey
    from qpannot.cli.drawing import write_pictures
    from qpannot.console import (
        counted,
        progress,
        say,
        show_json,
        show_next,
        show_skipped,
        show_table,
    )
    from qpannot.qupath import open_project

    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        with progress("Looking", lines=False) as advance:
            statuses = survey(
                opened,
                Ledger.of(opened),
                each=lambda image, done, total: advance(image.name, done, total),
                at_a_glance=True,
            )
        drawn, failed = write_pictures(statuses, pictures) if pictures else ({}, [])
        advice = next_steps(statuses, opened.path)
        if json:
            show_json(
                {
                    "project": str(opened.path),
                    "images": [_status_json(status, drawn) for status in statuses],
                    "states": _counts(statuses),
                    "next": advice,
                }
            )
        else:
            columns = ("id", "image", "state", "annotations", "round", "why")
            show_table(columns, [_row(status) for status in statuses])
            show_skipped((image.name, error) for image, error in failed)
            say(f"{counted(len(statuses), 'image')}: {_counts_text(statuses)}.")
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
        typer.Option("--project", "-p", help="The project; the current folder by default."),
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
    by: Annotated[str, typer.Option(help="Who says so, if that is to be recorded.")] = "",
    json: JsonOption = False,
) -> None:
    """Say that the annotations of slides are right as they are.

    Marks them reviewed, so that a network may learn from them; with --second-reader approved,
    which needs a review first. A slide whose proposal was corrected in QuPath counts as reviewed
    without this; --take-back makes it wait again, until it is saved again.

    Examples:

      qpannot approve case-1.svs case-2.svs --project study

      qpannot approve 'case-*' --project study --second-reader --by AB
    """
    from qpannot.bootstrap.review import say as say_of
    from qpannot.bootstrap.review import take_back as take_back_of
    from qpannot.bootstrap.states import State
    from qpannot.console import counted, say, show_json, show_table
    from qpannot.errors import UsageError
    from qpannot.qupath import open_project

    if project is None:
        first = Path(images[0])
        is_project = first.suffix == ".qpproj" or bool(list(first.glob("*.qpproj")))
        project, images = (first, images[1:]) if is_project else (Path(), images)
    if take_back and (second_reader or empty):
        raise UsageError("--take-back goes with neither --second-reader nor --empty.")
    if not images:
        raise UsageError(
            "Which images?", hint="Name them: qpannot approve case-1.svs --project study"
        )
    with open_project(project, "r+") as opened:
        chosen = select_images(opened, images)
        if take_back:
            statuses = take_back_of(opened, chosen, by=by)
        else:
            state = State.APPROVED if second_reader else State.REVIEWED
            statuses = say_of(opened, chosen, state, by=by, allow_empty=empty)
    if json:
        show_json([_status_json(status, {}) for status in statuses])
        return
    columns = ("id", "image", "state", "annotations", "round", "why")
    show_table(columns, [_row(status) for status in statuses])
    say(f"{counted(len(statuses), 'image')}: {_counts_text(statuses)}.")
