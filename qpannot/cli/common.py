"""Options and look-ups that several commands share."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpannot.errors import UsageError

if TYPE_CHECKING:
    from qpannot.geometry import Mpp
    from qpannot.qupath import Project, ProjectImage
    from qpannot.recipe import Recipe

SKIPPED = 3
"""Exit code of a job that finished with some slides skipped."""

ProjectArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PROJECT", help="A .qpproj file or its folder; the current folder by default."
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="RECIPE",
        help="A shipped recipe (h2gnet, quick, ablation) or a YAML file; by default the one last "
        "used on the project, at first h2gnet.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."
    ),
]
MppOption = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="Micrometres per pixel of slides of which neither project nor file tells it.",
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How projects are read: builtin (no Java needed), paquo (through an installed QuPath) "
        "or auto.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


def recipe_of(project: Project, recipe: str | None, changes: Sequence[str] | None) -> Recipe:
    """Return the recipe that ``--recipe`` and ``--set`` give, else the one kept by the project."""
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.recipe import BASE, load_recipe

    ledger = Ledger.of(project)
    if recipe is None and ledger.recipe() is not None:  # it can be read
        recipe = str(ledger.recipe_path)
    return load_recipe(recipe or BASE, changes or ())


def parse_mpp(value: float | None) -> Mpp | None:
    """Return a resolution given on the command line.

    Raises
    ------
    UsageError
        When it is not a positive number.
    """
    from qpannot.geometry import Mpp

    if value is None:
        return None
    try:
        return Mpp.square(value)
    except ValueError:
        raise UsageError(
            f"--mpp {value}: must be positive.", hint="A 40x scan has about 0.25, a 20x scan 0.5."
        ) from None


def select_images(project: Project, wanted: Sequence[str]) -> list[ProjectImage]:
    """Return the images that names, IDs or patterns such as ``'case-1*'`` stand for.

    Raises
    ------
    UsageError
        When one of them stands for no image, or the name of one for several.
    """
    chosen: dict[str, ProjectImage] = {}
    for text in wanted:
        low = text.lower()
        named = (
            [image for image in project.images if image.name == text]
            or [image for image in project.images if image.id == text]
            or [image for image in project.images if low in _short_names(image.name)]
        )
        if len(named) > 1:
            ids = ", ".join(image.id for image in named)
            raise UsageError(
                f"{project.path}: {len(named)} images are called {text!r}.",
                hint=f"Give their IDs: {ids}. 'qpannot status' shows which is which.",
            )
        found = named or [
            image for image in project.images if fnmatch.fnmatch(image.name.lower(), low)
        ]
        if not found:
            names = [image.name for image in project.images]
            nearest = difflib.get_close_matches(text, names, n=1)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            hint = f"Did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(
                f"{project.path}: no image {text!r}.",
                hint=f"{hint}Name it as QuPath shows it, by its ID, or with a pattern such as "
                f"'case-1*'. There are {shown}.",
            )
        chosen.update({image.id: image for image in found})
    return list(chosen.values())


def _short_names(name: str) -> tuple[str, str]:
    return name.lower(), name.lower().rsplit(".", 1)[0]
