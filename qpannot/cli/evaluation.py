"""``qpannot evaluate``: how well models do, as a paper tells it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from qpannot.bootstrap.evaluating import Evaluation, ModelAsked


class DesignName(StrEnum):
    """Designs that need no folder."""

    MODEL = "model"
    REFINED = "refined"
    OTSU = "otsu"
    TISSUE = "tissue"


class PartName(StrEnum):
    """Which slides."""

    AUTO = "auto"
    TEST = "test"
    VALIDATION = "validation"
    HELD_OUT = "held-out"
    ALL = "all"


ByOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY",
        help="Tell results apart by this metadata of the images, too; repeatable. Always by "
        "the recipe's evaluation.groups (grade).",
    ),
]


def evaluate(
    project: ProjectArgument = Path(),
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where tables and report go."),
    ] = Path("qpannot-evaluation"),
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[NAME=]FOLDER",
            help="A model, as 'qpannot train' leaves it; repeatable. A refinement network refines "
            "the heatmaps of its own patch network: the one the project keeps, or another --model.",
        ),
    ] = None,
    designs: Annotated[
        list[DesignName] | None,
        typer.Option(
            "--design",
            metavar="NAME",
            help="The patch network the project keeps (model); its heatmaps refined by the network "
            "the project keeps for that (refined); Otsu's threshold on saturation, the paper's "
            "design I (otsu); what round 1 proposes, AN1 (tissue). Repeatable; by default all that "
            "there are, unless a --model is given.",
        ),
    ] = None,
    part: Annotated[
        PartName,
        typer.Option(
            metavar="PART",
            help="Which reviewed slides: those no model was fitted to or chosen by (test), those "
            "it was chosen by (validation), both (held-out), or all. auto: test, where there are "
            "none validation.",
        ),
    ] = PartName.AUTO,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="Only these: a name, an ID or a pattern; repeatable.",
        ),
    ] = None,
    by: ByOption = None,
    repeat: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Measure how long one slide takes: on each engine once to warm up, then N times.",
        ),
    ] = 0,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Say how well models do on reviewed slides, in tables like the paper's.

    Per slide: recall, precision, Dice, IoU, the distance between outlines (HD95, in micrometres)
    and calibration; over slides: means, confidence intervals, groups and Tukey's test. Slides that
    a model was fitted to are left out unless asked for, and then marked.

    The folder gets report.html (worst slides first), slides.csv, results.json, and tables (CSV,
    Markdown, LaTeX) and figures (PNG, SVG). Annotations are only read; heatmaps are kept where the
    loop keeps them. Repeating the command measures only what changed.

    Examples:

      qpannot evaluate study

      qpannot evaluate study --model Mob-PW=first/model --design otsu

      qpannot evaluate study --part all --by scanner --repeat 10 -o everything
    """
    from qpannot.bootstrap.evaluating import evaluate_project
    from qpannot.console import show_json, show_skipped, stages
    from qpannot.qupath import open_project

    resolution = parse_mpp(mpp)
    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        loaded = recipe_of(opened, recipe, set_)
        with stages(quiet=("Looking",), sparse=("Evaluating",)) as each:
            found, report = evaluate_project(
                opened,
                loaded,
                output,
                models=[_model(text) for text in models or ()],
                named=[design.value for design in designs or ()],
                wanted=part.value,
                only=select_images(opened, images) if images else None,
                by=by or (),
                repeat=repeat,
                mpp=resolution,
                each=each,
            )
    show_skipped((image.name, error) for image, error in found.failed)
    if json:
        show_json({**found.values(), "report": str(report)})
    else:
        show_evaluation(found, report)
    if not found.measured:
        raise typer.Exit(1)
    if found.failed:
        raise typer.Exit(SKIPPED)


def _model(text: str) -> ModelAsked:
    """Return the model that ``first=trained/model`` or ``trained/model`` names."""
    from qpannot.bootstrap.evaluating import ModelAsked

    name, equals, folder = text.partition("=")
    if not equals or Path(text).is_dir():
        return ModelAsked(Path(text))
    return ModelAsked(Path(folder), name)


def show_evaluation(evaluation: Evaluation, report: Path) -> None:
    """Write an evaluation's tables, and what to know before believing them."""
    from rich.markup import escape

    from qpannot.console import say, show_table, stderr
    from qpannot.evaluation.typesetting import table_rows

    for warning in evaluation.warnings:
        stderr().print(f"[yellow]Note:[/] {escape(warning)}")
    for table in evaluation.tables().values():
        heading = f"{table.caption}: {table.spanning}" if table.spanning else table.caption
        say(heading)
        show_table(table.columns, table_rows(table))
        say()
    settings = evaluation.recipe.evaluation
    say(
        f"{evaluation.selection.told}, at {settings.mpp:g} µm per pixel, threshold "
        f"{settings.threshold:g}."
    )
    say(f"Report: {report}")
