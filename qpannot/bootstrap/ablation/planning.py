"""The designs of an ablation study: which there are, and whether each can be trained at all."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from qpannot.errors import MissingWeightsError, QpannotError, RecipeError, UsageError
from qpannot.models import build_encoder, patch_network
from qpannot.models.clusters import ENCODER
from qpannot.models.refinement import refinement_network
from qpannot.recipe import Recipe, change_recipe
from qpannot.recipe.comparing import DesignSettings
from qpannot.sampling import class_names
from qpannot.training.processes import find_place

CLUSTERED_PX = 64
"""VGG-16 takes any size; with this one it is quick to try."""


@dataclass(frozen=True)
class Plan:
    """A design, and all that it is made from.

    Parameters
    ----------
    settings
        What the recipe says of it.
    recipe
        The recipe with what this design changes of it.
    patch
        The patch design whose heatmaps it refines, if it refines any.
    """

    settings: DesignSettings
    recipe: Recipe
    patch: Plan | None = None

    @property
    def label(self) -> str:
        """What tables call it: ``(IV) Mob-PW``."""
        numeral = self.settings.numeral
        return f"({numeral}) {self.settings.name}" if numeral else self.settings.name

    @property
    def is_trained(self) -> bool:
        """Whether there is a network."""
        return self.settings.stage != "threshold"

    def seeded(self, seed: int) -> Recipe:
        """Return its recipe with the seed of all that is random in a training."""
        recipe = self.recipe
        return recipe.model_copy(
            update={
                "training": recipe.training.model_copy(update={"seed": seed}),
                "refinement": recipe.refinement.model_copy(update={"seed": seed}),
            }
        )

    def folder(self, root: Path, seed: int) -> Path:
        """Return where its network of a seed is kept, in the folder of the study."""
        name = quote(self.settings.name, safe=" ").replace(".", "%2E")  # ".." is a folder as well
        return root / f"seed-{seed}" / name


def plan_designs(recipe: Recipe, wanted: Sequence[str] = ()) -> list[Plan]:
    """Return the designs of a recipe's section ``ablation``, in its order.

    Parameters
    ----------
    wanted
        Names or numerals; upper and lower case are the same. None: all.

    Raises
    ------
    UsageError
        There is no such design; it names the nearest.
    RecipeError
        With every problem of the designs.
    """
    listed = recipe.ablation.designs
    if not listed:
        raise UsageError(
            f"The recipe {recipe.name} lists no designs.",
            hint="Take --recipe ablation, or write the section 'ablation' of your own.",
        )
    known: dict[str, DesignSettings] = {}
    for own in listed:
        known |= {text.casefold(): own for text in (own.name, own.numeral) if text}
    for text in wanted:
        if text.strip().casefold() not in known:
            nearest = difflib.get_close_matches(text.strip().casefold(), known, n=1, cutoff=0.5)
            meant = f"Did you mean {known[nearest[0]].name}? " if nearest else ""
            there = ", ".join(f"{own.numeral} {own.name}".strip() for own in listed)
            raise UsageError(
                f"There is no design {text!r} in the recipe {recipe.name}.",
                hint=f"{meant}There are {there}.",
            )
    plans: dict[str, Plan] = {}
    problems: list[str] = []
    for own in sorted(listed, key=lambda own: own.stage == "refinement"):  # what is refined first
        try:
            changed = change_recipe(recipe, own.set, source=own.name)
        except RecipeError as error:
            problems += [f"{own.name}: {problem}" for problem in error.problems]
            continue
        refines = own.stage == "refinement" and changed.refinement.use_heatmap
        if refines and own.patch is None:
            problems.append(
                f"{own.name}: says not which patch design it refines (patch), or that it needs "
                "none (set: [refinement.use_heatmap=false])"
            )
        elif own.patch and not refines:
            problems.append(f"{own.name}: takes no heatmap, and yet refines {own.patch}")
        patch = plans.get(own.patch or "")
        if patch is not None and changed.labels.classes != patch.recipe.labels.classes:
            problems.append(f"{own.name}: tells other classes apart than {own.patch}")
        if changed.labels.classes != recipe.labels.classes:
            problems.append(f"{own.name}: designs of other classes cannot be compared")
        plans[own.name] = Plan(own, changed, patch)
    if problems:
        raise RecipeError(f"{recipe.name}, section ablation,", problems)
    names = {known[text.strip().casefold()].name for text in wanted} or set(plans)
    return [plans[own.name] for own in listed if own.name in names]


def with_patches(plans: Sequence[Plan]) -> list[Plan]:
    """Return designs in the order they are trained in: each after that whose heatmaps it needs."""
    trained = [plan for plan in plans if plan.is_trained]
    ordered = [each for plan in trained for each in (plan.patch, plan) if each is not None]
    return list({each.settings.name: each for each in ordered}.values())


def check_plans(plans: Sequence[Plan]) -> None:
    """Try whether every network can be made, and its weights can be had, before any is trained.

    What several designs need is tried once.

    Raises
    ------
    QpannotError
        Some cannot; it names each trouble once, with the designs it keeps from being trained.
    """
    if find_place(1, uses_gpu=False).processes > 1:
        raise UsageError(
            "An ablation study is run by one process; patch networks take all GPUs by themselves.",
            hint="Start the command by itself, without torchrun or srun.",
        )
    needs: dict[tuple[object, ...], Callable[[], object]] = {}
    whose: dict[tuple[object, ...], list[str]] = {}
    for plan in plans:
        for key, make in _needs(plan).items():
            needs[key] = make
            whose.setdefault(key, []).append(plan.label)
    troubles: dict[str, list[str]] = {}
    missing: list[MissingWeightsError] = []
    hints: dict[str, None] = {}
    for key, make in needs.items():
        try:
            make()
        except MissingWeightsError as error:
            what = f"no ImageNet weights of {error.network}"
            troubles.setdefault(what, []).extend(whose[key])
            missing.append(error)
        except QpannotError as error:
            troubles.setdefault(error.message, []).extend(whose[key])
            if error.hint:
                hints[error.hint] = None
    if not troubles:
        return
    why = "; ".join(dict.fromkeys(error.trouble for error in missing))
    raise QpannotError(
        "\n".join(
            [
                "Nothing was trained, as not every design can be:",
                *(f"  {_with_dependents(who, plans)}: {what}" for what, who in troubles.items()),
                *([f"The weights are not on this machine, and {why}."] if missing else []),
            ]
        ),
        hint="\n".join([*hints, *_how_to_go_on(missing)]),
    )


def _with_dependents(who: Sequence[str], plans: Sequence[Plan]) -> str:
    """Return the names of designs, and of those that refine what these find."""
    told = ", ".join(who)
    refined: dict[str, list[str]] = {}
    for plan in plans:
        if plan.patch is not None and plan.patch.label in who:
            refined.setdefault(plan.patch.label, []).append(plan.label)
    for patch, theirs in refined.items():
        refine = "refine" if theirs[1:] else "refines"
        told += f", and so {', '.join(theirs)}, which {refine} the heatmaps of {patch}"
    return told


def _how_to_go_on(missing: Sequence[MissingWeightsError]) -> Iterator[str]:
    if missing:
        nothing = dict.fromkeys(f"--set {error.setting}=null" for error in missing)
        files = "".join(f"\n  {url}" for url in dict.fromkeys(error.url for error in missing))
        yield (
            f"Begin from nothing with {' '.join(nothing)}, or download where there is a network:"
            f"{files}"
        )
    yield (
        "A design may have a file of its own (set: [network.weights=FILE]) in a recipe of yours, "
        "or be left out: --design names the others."
    )


def _needs(plan: Plan) -> dict[tuple[object, ...], Callable[[], object]]:
    """Return what makes the networks of a design, by what they depend on."""
    recipe, stage = plan.recipe, plan.settings.stage
    names = class_names(recipe.labels)
    found: dict[tuple[object, ...], Callable[[], object]] = {}
    if stage == "refinement":
        own = recipe.refinement
        channels = 3 + (len(names) - 1 if own.use_heatmap else 0)
        found[(stage, own.design, channels, len(names), own.size_px)] = partial(
            refinement_network,
            own.design,
            channels=channels,
            classes=len(names),
            size_px=own.size_px,
        )
    elif stage == "patch":
        network, size_px = recipe.network, recipe.patches.size_px
        found[(stage, network, size_px)] = partial(
            patch_network,
            network.encoder,
            names,
            hidden_units=network.hidden_units,
            dropout=network.dropout,
            weights=network.weights,
            size_px=size_px,
        )
        if recipe.training.loss == "cluster_weighted":
            weights = recipe.clusters.weights
            found[(ENCODER, weights)] = partial(
                build_encoder,
                ENCODER,
                weights=weights,
                size_px=CLUSTERED_PX,
                setting="clusters.weights",
            )
    return found
