"""What settles a training run, so that a run is never resumed as another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping

from pydantic import JsonValue

from qpannot.recipe import Recipe
from qpannot.sampling import PatchTree

Identity = dict[str, JsonValue]
"""By dotted name, what a run depends on. Plain values, so that it can lie in a checkpoint."""

DATA, START = "the patches", "the model it goes on from"
SLIDES = "the slides, their heatmaps or annotations"

SECTIONS = ("patches", "labels", "sampling", "network", "augmentation", "training")
FREE = ("training.epochs", "training.patience", "training.workers")
"""May change while a run goes on: they say how long, and how fast."""

SHOWN = 5


def run_identity(
    train: PatchTree, validation: PatchTree, recipe: Recipe, *, start: str | None
) -> Identity:
    """Return what a run depends on.

    Parameters
    ----------
    start
        SHA-256 of the weights it goes on from, if any.
    """
    sections = [*SECTIONS]
    if recipe.training.loss == "cluster_weighted":
        sections.append("clusters")
    free = set(FREE)
    if recipe.training.schedule != "constant":
        free.remove("training.epochs")  # the learning rate depends on how many there are
    identity = settings_of(recipe, sections, free)
    identity[DATA] = hashlib.sha256(
        (tree_digest(train) + tree_digest(validation)).encode()
    ).hexdigest()
    identity[START] = start
    return identity


def settings_of(recipe: Recipe, sections: Iterable[str], free: Collection[str]) -> Identity:
    """Return the settings of sections of a recipe by dotted name, but for those that are free."""
    settings = {
        f"{section}.{name}": value
        for section in sections
        for name, value in getattr(recipe, section).model_dump(mode="json").items()
    }
    return {key: value for key, value in settings.items() if key not in free}


def tree_digest(tree: PatchTree) -> str:
    """Return the SHA-256 of all that a draw from a tree depends on."""
    header = [tree.classes, tree.size_px, tree.mpp, tree.slides, tree.extents, tree.branches]
    digest = hashlib.sha256(json.dumps(header).encode())
    for column in (tree.x, tree.y, tree.label, tree.slide, tree.counts):
        digest.update(column.tobytes())
    return digest.hexdigest()


def key_of(identity: Identity) -> str:
    """Return a short name of a run."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def describe_changes(old: Mapping[str, JsonValue], new: Identity) -> str:
    """Return in words what differs between two runs."""
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    told = [
        key if key in (DATA, START, SLIDES) else f"{key} ({old.get(key)}, now {new.get(key)})"
        for key in changed[:SHOWN]
    ]
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return ", ".join(told) + more
