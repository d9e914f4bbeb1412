"""``qpannot ablation``: designs trained alike on one split, and compared as in the paper."""

from __future__ import annotations

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
)
from qpannot.cli.evaluation import ByOption, PartName, show_evaluation
from qpannot.cli.network import SPARSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpannot.qupath import Project
    from qpannot.recipe import Recipe

LISTED = "ablation"
"""The shipped recipe that lists the paper's designs."""


def ablation(
    project: ProjectArgument = Path(),
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where models, tables and report go."
        ),
    ] = Path("qpannot-ablation"),
    designs: Annotated[
        list[str] | None,
        typer.Option(
            "--design",
            metavar="NAME",
            help="Only this one, by its name or numeral (Mob-PW, IV); repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            min=0,
            metavar="N",
            help="Train every design with this seed; repeatable. By default training.seed of the "
            "recipe.",
        ),
    ] = None,
    part: Annotated[
        PartName,
        typer.Option(
            metavar="PART", help="On which slides they are compared; as of 'qpannot evaluate'."
        ),
    ] = PartName.AUTO,
    by: ByOption = None,
    repeat: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Measure how long one slide takes each design: once to warm up, then N times; "
            "0: not at all.",
        ),
    ] = 3,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train designs on one split of the reviewed slides, and compare them as a paper does.

    By default the nine designs of the H2G-Net paper (the recipe 'ablation' lists them), from Otsu's
    threshold to DoubleU-Net, with the budget of the project's recipe. A recipe of your own may list
    others: each has a name and says in what it differs from the recipe. What --set says holds for
    all designs, unless a design says otherwise.

    Before anything is trained every design is tried. One that fails later is named, and the others
    go on. Repeated, the command goes on where it was; what is trained already stays, and so do the
    slides and their parts. The project is only read.

    The folder gets what 'qpannot evaluate' writes, of all designs: tables/designs (the paper's
    Table 1), by-grade (Table 2), runtime (Table 3), p-values (Table S1), seeds, trainings; and each
    model, in seed-N/NAME/model.

    Examples:

      qpannot ablation study --recipe ablation -o nine

      qpannot ablation study --design IV --design VI --seed 0 --seed 1 --seed 2

      qpannot ablation study --recipe quick --set training.epochs=5 --repeat 0
    """
    from qpannot.bootstrap.ablation import run_ablation
    from qpannot.console import say, show_json, show_skipped, stages
    from qpannot.qupath import open_project

    resolution = parse_mpp(mpp)
    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        loaded = _recipe(opened, recipe, set_ or ())
        with stages(quiet=("Looking",), sparse=(*SPARSE, "Evaluating")) as each:
            found, report = run_ablation(
                opened,
                loaded,
                output,
                wanted=designs or (),
                seeds=seeds or (),
                part=part.value,
                by=by or (),
                repeat=repeat,
                mpp=resolution,
                each=each,
            )
    show_skipped((image.name, error) for image, error in found.failed)
    not_done = found.trainings.not_done
    show_skipped((f"{own.plan.label}, seed {own.seed}", own.error) for own in not_done)
    if json:
        show_json({**found.values(), "report": str(report)})
    else:
        show_evaluation(found, report)
        for note in found.notes:
            say(note)
    if not found.measured:
        raise typer.Exit(1)
    if found.failed or not_done:
        raise typer.Exit(SKIPPED)


def _recipe(project: Project, recipe: str | None, changes: Sequence[str]) -> Recipe:
    """Return the recipe that is asked for, with the paper's designs where it lists none."""
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.recipe import load_recipe

    if recipe is None and Ledger.of(project).recipe() is None:
        recipe = LISTED
    found = recipe_of(project, recipe, changes)
    if found.ablation.designs:
        return found
    return found.model_copy(update={"ablation": load_recipe(LISTED).ablation})
