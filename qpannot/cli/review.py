"""``qpannot review``: correct and accept proposals in napari."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpannot.cli.common import (
    SKIPPED,
    BackendOption,
    MppOption,
    ProjectArgument,
    parse_mpp,
    select_images,
)


def review(
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
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who reviews, if that is to be recorded.")
    ] = "",
    second_reader: Annotated[
        bool,
        typer.Option("--second-reader", help="Read what was reviewed, and approve it."),
    ] = False,
    independent: Annotated[
        bool,
        typer.Option(
            "--independent",
            help="Draw alone, under the name --by, beside what others draw on the same slides.",
        ),
    ] = False,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
) -> None:
    r"""Review slides in napari, those first that the loop wants first.

    A window opens with the slide, the heatmap (H) and the proposal, which is painted on with
    brush (P), eraser (E), fill (F) and polygon (G). A accepts: saves, marks the slide reviewed and
    opens the next. All keys stand in the panel at the right.

    What is painted is kept at once beside the project, and written to it by S and A, as safely
    as by every other command. After a crash or a closed window the same command goes on with it.

    Needs napari (pip install "qpannot\[review]") and a screen. Without either, correct the
    proposals in QuPath instead.

    Examples:

      qpannot review study

      qpannot review study --image 'case-1*' --by AB

      qpannot review study --second-reader --by CD

      qpannot review study --independent --by EF
    """
    from qpannot.console import counted, say, show_next, stages
    from qpannot.qupath import open_project
    from qpannot.review.launching import check_display, check_napari, run

    check_napari()
    resolution = parse_mpp(mpp)
    with open_project(project, "r+", backend) as opened:  # type: ignore[arg-type]
        from qpannot.review.session import Session

        only = [image.id for image in select_images(opened, images)] if images else None
        with stages(quiet=("Looking",)) as each:
            session = Session(
                opened,
                by=by,
                second_reader=second_reader,
                independent=independent,
                images=only,
                mpp=resolution,
                each=each,
            )
        for image, why in session.left_out:
            say(f"Left out {image.name}: {why}")
        if not session.queue or (only is None and not session.waiting):
            if session.left_out:
                say("No other slide waits.")
                show_next([f"qpannot relink {project} FOLDER  finds slides that moved"])
                raise typer.Exit(SKIPPED)
            say("No slide waits.")
            show_next(
                [
                    f"qpannot bootstrap {project}  does the next step of the loop",
                    f"qpannot review {project} --image NAME  opens a slide again",
                    f"qpannot status {project}  shows where every slide stands",
                ]
            )
            return
        check_display()
        say(f"{counted(session.waiting, 'slide')} to review. napari starts ...")
        ended = run(session)
        for line in ended.lines:
            say(line)
        if ended.exit_code:
            raise typer.Exit(ended.exit_code)
