"""``qpannot train`` and ``predict``: the network's parts of the loop, callable by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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

SPARSE = ("Training", "Judging", "Predicting")
"""Stages that tell more than a line an item."""


def train(
    project: ProjectArgument = Path(),
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where the training is kept."),
    ] = Path("qpannot-training"),
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL", help="A model whose weights are gone on from."),
    ] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a patch network on the reviewed slides of a project.

    What 'qpannot bootstrap' does in each round, without proposing: the project is only read. The
    folder gets the model, its curves (curves.csv, tensorboard) and checkpoints; repeating the
    command goes on where it was. The model is then judged on the reviewed slides that it was not
    fitted to.

    GPUs of this machine are used as they are found. For several machines, start it by torchrun
    ('torchrun ... -m qpannot train study -o first') or srun, on a disk that all of them see.

    Examples:

      qpannot train study -o first --recipe quick

      qpannot train study -o second --from first/model --set training.epochs=20
    """
    from qpannot.bootstrap.jobs import train_alone
    from qpannot.console import say, show_json, show_skipped, show_table, stages
    from qpannot.qupath import open_project
    from qpannot.training import is_first_process

    resolution = parse_mpp(mpp)
    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        loaded = recipe_of(opened, recipe, set_)
        with stages(quiet=("Looking",), sparse=SPARSE) as each:
            result = train_alone(opened, loaded, output, start=start, mpp=resolution, each=each)
        if not is_first_process():
            return
        show_skipped((image.name, error) for image, error in result.failed)
        if json:
            show_json(
                {
                    "model": str(result.trained.bundle),
                    "curves": str(result.trained.curves),
                    "epochs": result.trained.epochs,
                    "best_epoch": result.trained.best_epoch,
                    "stopped": result.trained.stopped,
                    "metrics": result.trained.metrics,
                    "slides": {part: names for part, names in result.slides.items()},
                    "scores": {name: each.model_dump() for name, each in result.scores.items()},
                    "failed": [_failed_json(*each) for each in result.failed],
                }
            )
        else:
            for part, names in result.slides.items():
                say(f"{part}: {', '.join(names)}")
            show_table(
                ("slide", "Dice", "IoU"),
                [(name, f"{s.dice:.3f}", f"{s.iou:.3f}") for name, s in result.scores.items()],
            )
            trained = result.trained
            say(f"{trained.epochs} epochs, the best was number {trained.best_epoch}.")
            say(f"Model: {trained.bundle}")
    if result.failed:
        raise typer.Exit(SKIPPED)


def predict(
    project: ProjectArgument = Path(),
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where heatmaps and outlines go."),
    ] = Path("qpannot-heatmaps"),
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="The folder of a model; by default the one the project keeps."
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="Only these: a name, an ID or a pattern; repeatable."),
    ] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Run a model over the slides of a project: heatmaps, and their outlines as GeoJSON.

    Heatmaps are pyramidal OME-TIFFs, which QuPath and napari open as they are; outlines can be
    dropped on a slide in QuPath, or imported: 'qpannot import geojson --as-proposals'. The project
    is only read. What is there already and still fits is not made again.

    Examples:

      qpannot predict study -o heatmaps

      qpannot predict study --model first/model --image 'case-1*' --set outlines.threshold=0.7
    """
    from qpannot.bootstrap.jobs import predict_alone
    from qpannot.console import say, show_json, show_skipped, show_table, stages
    from qpannot.qupath import open_project

    resolution = parse_mpp(mpp)
    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        loaded = recipe_of(opened, recipe, set_)
        chosen = select_images(opened, images) if images else list(opened.images)
        with stages(quiet=("Looking",), sparse=SPARSE) as each:
            found, failed = predict_alone(
                opened, chosen, loaded, output, model=model, mpp=resolution, each=each
            )
        show_skipped((image.name, error) for image, error in failed)
        if json:
            show_json(
                {
                    "predicted": [
                        {
                            "image_id": item.image.id,
                            "name": item.image.name,
                            "heatmap": str(item.heatmap),
                            "outlines": str(item.outlines),
                            "area_mm2": item.area_mm2,
                        }
                        for item in found
                    ],
                    "failed": [_failed_json(*each) for each in failed],
                }
            )
        else:
            rows = []
            for item in found:
                areas = ", ".join(f"{name} {area:.3g} mm²" for name, area in item.area_mm2.items())
                rows.append((item.image.name, areas or "nothing found", str(item.heatmap)))
            show_table(("image", "found", "heatmap"), rows)
            say(f"Outlines: {output / '*.geojson'}")
    if failed:
        raise typer.Exit(SKIPPED)


def _failed_json(image: Any, error: Any) -> dict[str, Any]:
    return {"image_id": image.id, "name": image.name, "error": error.message, "next": error.hint}
