"""What is evaluated: thresholds, and the models that the project keeps or a person names."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from qpannot.bootstrap.evaluating.designs import (
    Design,
    ModelDesign,
    baseline,
    check_classes,
    checked_card,
)
from qpannot.bootstrap.evaluating.refined import RefinedDesign
from qpannot.bootstrap.evaluating.seen import seen_by, strictest, with_patients
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.truth import metadata_of
from qpannot.errors import QpannotError, UsageError
from qpannot.models.bundle import read_card
from qpannot.models.folders import REFINEMENT, kind_of
from qpannot.models.refinement import read_refinement_card
from qpannot.qupath import Project
from qpannot.recipe import Recipe
from qpannot.sampling import Part

Named = Literal["model", "refined", "otsu", "tissue"]
"""``model``: the patch network the project keeps. ``refined``: what it makes of that's heatmaps."""


@dataclass(frozen=True)
class ModelAsked:
    """A model to be evaluated; its name is made from its folder where none is given.

    Of a refinement network the patch network is found by its digest among the others asked for,
    or it is the one the project keeps.
    """

    folder: Path
    name: str = ""


def designs_of(
    project: Project,
    recipe: Recipe,
    folder: Path,
    models: Sequence[ModelAsked] = (),
    named: Sequence[Named] = (),
) -> list[Design]:
    """Return what is to be evaluated, thresholds first.

    Where nothing is asked for: what the project keeps, patch-wise and refined, if there is that,
    and both thresholds.

    Parameters
    ----------
    folder
        Of the evaluation; heatmaps of models that have no place of their own go there.

    Raises
    ------
    QpannotError
        A model is not there, does not know a class of the recipe, or two share a name.
    """
    ledger = Ledger.of(project)
    kept, refinement = ledger.kept_model(), ledger.kept_refinement()
    wanted: list[Named] = list(dict.fromkeys(named))
    if not models and not wanted:
        wanted = ["otsu", "tissue"]
        if kept:
            wanted.append("model")
        if refinement:
            wanted.append("refined")
    asked = list(models)
    if "model" in wanted:
        if kept is None:
            raise QpannotError(
                f"{project.path}: no model has been trained on this project.",
                hint="Name one with --model, or train one: qpannot bootstrap, qpannot train",
            )
        asked.insert(0, ModelAsked(ledger.model_folder(kept), kept))
    if "refined" in wanted:
        if refinement is None:
            raise QpannotError(
                f"{project.path}: the project keeps no refinement network.",
                hint="Train one, then evaluate it by --model refined/model: qpannot train "
                f"{shlex.quote(str(project.path))} --stage refinement -o refined\n"
                "Where the recipe has refinement.enabled: true, the next round of 'qpannot "
                "bootstrap' that trains a network makes one, and keeps it.",
            )
        asked.append(ModelAsked(ledger.model_folder(refinement), refinement))
    make = partial(_model_design, project, ledger, recipe, folder)
    refinements = [each for each in asked if kind_of(each.folder) == REFINEMENT]
    networks = [make(each) for each in asked if each not in refinements]
    known = list(networks)
    if kept and refinements:
        known.append(make(ModelAsked(ledger.model_folder(kept), kept)))
    found: list[Design] = [
        baseline(kind, recipe) for kind in wanted if kind != "model" and kind != "refined"
    ]
    found += networks
    found += [_refined_design(project, ledger, recipe, folder, each, known) for each in refinements]
    names = [design.name for design in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(
            f"Two designs are called {twice[0]}.", hint="Name them: --model first=FOLDER"
        )
    return found


def _model_design(
    project: Project, ledger: Ledger, recipe: Recipe, folder: Path, asked: ModelAsked
) -> ModelDesign:
    model = asked.folder.resolve()
    card = checked_card(model, recipe)
    training = model.parent.name if model.name == "model" else model.name
    heatmaps = folder / "heatmaps" / card.weights_sha256[:12]
    if model == ledger.model_folder(training).resolve() and _predicts_alike(recipe, ledger):
        heatmaps = ledger.heatmap_folder(training)
    elif (model.parent / "heatmaps").is_dir():  # as qpannot train leaves them
        heatmaps = model.parent / "heatmaps"
    return ModelDesign(
        asked.name or training,
        model,
        recipe,
        _where_to_write(heatmaps, folder / "heatmaps" / card.weights_sha256[:12]),
        with_patients(
            seen_by(model, ledger, {image.id: image.name for image in project.images}),
            metadata_of(project),
            recipe.split.by,
        ),
        {each.name: each.color for each in project.classes if each.color},
    )


def _where_to_write(folder: Path, instead: Path) -> Path:
    """Return a folder, or where it may only be read another one, with the heatmaps that it has."""
    there = next(own for own in (folder, *folder.parents) if own.exists())
    if os.access(there, os.W_OK):
        return folder
    for path in folder.glob("*.ome.tif"):
        instead.mkdir(parents=True, exist_ok=True)
        if not (instead / path.name).exists():
            shutil.copyfile(path, instead / path.name)
    return instead


def _refined_design(
    project: Project,
    ledger: Ledger,
    recipe: Recipe,
    folder: Path,
    asked: ModelAsked,
    networks: Sequence[ModelDesign],
) -> RefinedDesign:
    model = asked.folder.resolve()
    card = read_refinement_card(model)
    check_classes(model, card.classes, recipe)
    patch = None
    if card.takes_heatmap:
        digest = card.patch_model_sha256
        own = [each for each in networks if read_card(each.model).weights_sha256 == digest]
        if not own:
            raise UsageError(
                f"{asked.folder} refines the heatmaps of a patch network that is not among these.",
                hint="Name that one as well: --model FOLDER; its model.json has the weights_sha256 "
                f"{digest}",
            )
        patch = own[0]
    training = model.parent.name if model.name == "model" else model.name
    heatmaps = folder / "heatmaps" / card.weights_sha256[:12]
    if model == ledger.model_folder(training).resolve() and _predicts_alike(recipe, ledger):
        heatmaps = ledger.heatmap_folder(training)
    seen = dict(patch.seen) if patch else {}
    for key, part in seen_by(
        model, ledger, {image.id: image.name for image in project.images}
    ).items():
        seen[key] = strictest(part, seen.get(key, Part.TEST))
    return RefinedDesign(
        asked.name or training,
        model,
        patch,
        _where_to_write(heatmaps, folder / "heatmaps" / card.weights_sha256[:12]),
        with_patients(seen, metadata_of(project), recipe.split.by),
        {each.name: each.color for each in project.classes if each.color},
    )


def _predicts_alike(recipe: Recipe, ledger: Ledger) -> bool:
    """Tell whether heatmaps are those of the loop, which must not lose its own to a trial."""
    own = ledger.recipe()
    return own is not None and all(
        ours == theirs
        for ours, theirs in (
            (recipe.heatmap, own.heatmap),
            (recipe.tissue, own.tissue),
            (recipe.labels.min_tissue, own.labels.min_tissue),
        )
    )
