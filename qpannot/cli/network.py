"""``qpannot train`` and ``predict``: the network's parts of the loop, callable by themselves."""

from __future__ import annotations

from enum import StrEnum
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
from qpannot.errors import UsageError

if TYPE_CHECKING:
    from qpannot.geometry import Mpp
    from qpannot.qupath import Project
    from qpannot.recipe import Recipe
    from qpannot.training import TrainingResult

SPARSE = ("Training", "Training refinement", "Judging", "Predicting", "Refining")
"""Stages that tell more than a line an item."""


class Stage(StrEnum):
    """What is trained."""

    PATCH = "patch"
    REFINEMENT = "refinement"


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
    stage: Annotated[
        Stage,
        typer.Option(
            metavar="patch|refinement",
            help="The patch network, or the one that refines its heatmaps.",
        ),
    ] = Stage.PATCH,
    patch_model: Annotated[
        Path | None,
        typer.Option(
            "--patch-model",
            metavar="MODEL",
            help="Whose heatmaps are refined; by default the model the project keeps.",
        ),
    ] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train a network on the reviewed slides of a project.

    What 'qpannot bootstrap' does in each round, without proposing: the project is only read. The
    folder gets the model, its curves (curves.csv, tensorboard) and checkpoints; repeating the
    command goes on where it was. The model is then judged on the reviewed slides that it was not
    fitted to.

    With '--stage refinement' it is the network that refines heatmaps with the slide, small as a
    whole (section 'refinement' of the recipe); it is told whose heatmaps it learned from.

    GPUs of this machine are used as they are found. For several machines, start it by torchrun
    ('torchrun ... -m qpannot train study -o first') or srun, on a disk that all of them see.

    Examples:

      qpannot train study -o first --recipe quick

      qpannot train study -o second --from first/model --set training.epochs=20

      qpannot train study -o refined --stage refinement --patch-model first/model
    """
    from qpannot.bootstrap.jobs import train_alone
    from qpannot.console import say, show_json, show_skipped, show_table, stages
    from qpannot.qupath import open_project
    from qpannot.training import is_first_process

    if start and stage is Stage.REFINEMENT:
        raise UsageError(
            "A refinement network begins from random numbers.", hint="Leave --from out."
        )
    if patch_model and stage is Stage.PATCH:
        raise UsageError(
            "Only a refinement network needs another's heatmaps.",
            hint="Add --stage refinement, or leave --patch-model out.",
        )
    resolution = parse_mpp(mpp)
    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        loaded = recipe_of(opened, recipe, set_)
        if stage is Stage.REFINEMENT:
            _train_refinement(opened, loaded, output, patch_model, resolution, json=json)
            return
        with stages(quiet=("Looking",), sparse=SPARSE) as each:
            result = train_alone(opened, loaded, output, start=start, mpp=resolution, each=each)
        if not is_first_process():
            return
        show_skipped((image.name, error) for image, error in result.failed)
        if json:
            show_json(
                _trained_json(result.trained)
                | {
                    "slides": {part: names for part, names in result.slides.items()},
                    "scores": {name: each.model_dump() for name, each in result.scores.items()},
                    "failed": [_failed_json(*each) for each in result.failed],
                }
            )
        else:
            for part, names in result.slides.items():
                say(f"{part}: {', '.join(names) or 'none'}")
            show_table(
                ("slide", "Dice", "IoU"),
                [(name, f"{s.dice:.3f}", f"{s.iou:.3f}") for name, s in result.scores.items()],
            )
            _say_trained(result.trained)
    if result.failed:
        raise typer.Exit(SKIPPED)


def _train_refinement(
    project: Project,
    recipe: Recipe,
    output: Path,
    patch_model: Path | None,
    mpp: Mpp | None,
    *,
    json: bool,
) -> None:
    from qpannot.bootstrap.refinement.alone import train_refinement_alone
    from qpannot.console import say, show_json, show_skipped, show_table, stages

    with stages(quiet=("Looking",), sparse=SPARSE) as each:
        result = train_refinement_alone(
            project, recipe, output, patch_model=patch_model, mpp=mpp, each=each
        )
    show_skipped((image.name, error) for image, error in result.failed)
    roles, names = result.trained.roles, result.names
    if json:
        show_json(
            _trained_json(result.trained.trained)
            | {
                "protocol": roles.protocol,
                "reason": roles.reason,
                "slides": {
                    "teach": [names[key] for key in roles.teach],
                    "choose": [names[key] for key in roles.choose],
                },
                "before": {name: each.model_dump() for name, each in result.before.items()},
                "after": {name: each.model_dump() for name, each in result.after.items()},
                "failed": [_failed_json(*each) for each in result.failed],
            }
        )
    else:
        say(" ".join(filter(None, (roles.reason, str(roles)))))
        rows = []
        for name, after in result.after.items():
            before = f"{result.before[name].dice:.3f}" if name in result.before else ""
            role = "chose the epoch" if name in result.choosing else "held out"
            rows.append((name, before, f"{after.dice:.3f}", role))
        show_table(("slide", "Dice of the heatmap", "refined", ""), rows)
        _say_trained(result.trained.trained)
    if result.failed:
        raise typer.Exit(SKIPPED)


def _trained_json(trained: TrainingResult) -> dict[str, Any]:
    return {
        "model": str(trained.bundle),
        "curves": str(trained.curves),
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "metrics": trained.metrics,
    }


def _say_trained(trained: TrainingResult) -> None:
    from qpannot.console import say

    say(f"{trained.epochs} epochs, the best was number {trained.best_epoch}.")
    say(f"Model: {trained.bundle}")


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
    refine: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The folder of a refinement network that goes over the heatmaps; by default the "
            "one the project keeps, unless a --model is given.",
        ),
    ] = None,
    unrefined: Annotated[
        bool, typer.Option("--unrefined", help="Leave heatmaps as the patch network makes them.")
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            metavar="IMAGE",
            help="Only these: a name, an ID or a pattern; repeatable.",
        ),
    ] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    mpp: MppOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Run a model over the slides of a project: heatmaps, and their outlines as GeoJSON.

    It does what the loop does: where the project keeps a refinement network, heatmaps are refined,
    and those of the patch network go to 'unrefined' in the folder.

    Heatmaps are pyramidal OME-TIFFs, which QuPath and napari open as they are; outlines can be
    dropped on a slide in QuPath, or imported: 'qpannot import geojson --as-proposals'. The project
    is only read. What is there already and still fits is not made again.

    Examples:

      qpannot predict study -o heatmaps

      qpannot predict study --image 'case-1*' --set outlines.threshold=0.7

      qpannot predict study --model first/model --refine refined/model

      qpannot predict study -o patchwise --unrefined
    """
    from qpannot.bootstrap.jobs import predict_alone
    from qpannot.console import say, show_json, show_skipped, show_table, stages
    from qpannot.qupath import open_project

    if refine and unrefined:
        raise UsageError("--refine and --unrefined contradict each other.", hint="Leave one out.")
    resolution = parse_mpp(mpp)
    with open_project(project, "r", backend) as opened:  # type: ignore[arg-type]
        loaded = recipe_of(opened, recipe, set_)
        chosen = select_images(opened, images) if images else list(opened.images)
        with stages(quiet=("Looking",), sparse=SPARSE) as each:
            found, failed = predict_alone(
                opened,
                chosen,
                loaded,
                output,
                model=model,
                refine=refine,
                leave_unrefined=unrefined,
                mpp=resolution,
                each=each,
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
