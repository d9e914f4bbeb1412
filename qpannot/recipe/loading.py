"""Recipes: one validated YAML file holds every number of the method, with its unit.

A recipe file states only what differs from the recipe it ``extends``, which is ``h2gnet`` where it
does not say.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from qpannot.errors import RecipeError, UsageError
from qpannot.recipe.changing import set_values
from qpannot.recipe.problems import explain
from qpannot.recipe.settings import Recipe

BASE = "h2gnet"
"""What a recipe extends that does not say."""


def builtin_recipes() -> dict[str, Path]:
    """Return the recipes that ship with qpannot, by name."""
    return {path.stem: path.resolve() for path in sorted(workflows_folder().glob("*.yaml"))}


def workflows_folder() -> Path:
    """Return the folder of the recipes and QuPath scripts that ship with qpannot."""
    package = Path(__file__).parents[1]
    for folder in (package / "workflows", package.parent / "workflows"):
        if folder.is_dir():
            return folder
    raise UsageError(
        "qpannot's own recipes and scripts are missing from this installation.",
        hint="Install it again: pip install --force-reinstall qpannot",
    )


def load_recipe(source: str | Path = "h2gnet", overrides: Iterable[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    source
        The name of a shipped recipe, or the path of a YAML file.
    overrides
        ``key=value`` strings, the key dotted (``tissue.threshold=210``), the value YAML.

    Raises
    ------
    RecipeError
        With every problem of the recipe; a mistyped key names the nearest right one.
    SettingError
        With every problem of the overrides, where the recipe itself is sound.
    UsageError
        When there is no such recipe.
    """
    values = _read(source)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(
            str(source),
            [explain(item) for item in error.errors()],
            hint="Correct the file, or name another recipe: --recipe RECIPE.",
        ) from None
    changes = tuple(overrides)
    return set_values(values, changes) if changes else recipe


def _read(source: str | Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = _find(source, beside=seen[-1].parent if seen else None)
    if path in seen:
        raise RecipeError(str(path), ["extends: the recipes extend each other in a circle"])
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(str(path), [f"not YAML: {error}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the recipe cannot be read ({error}).") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise RecipeError(str(path), ["a recipe is a mapping of sections, such as 'tissue:'"])
    values.setdefault("name", path.stem)
    base = values.pop("extends", None if path == builtin_recipes()[BASE] else BASE)
    if base is None:
        return values
    return _merged(_read(str(base), (*seen, path)), values)


def _find(source: str | Path, beside: Path | None) -> Path:
    shipped = builtin_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source).expanduser()
    if beside is not None and not path.is_absolute():
        path = beside / path
    if path.is_file():
        return path.resolve()
    nearest = difflib.get_close_matches(str(source), shipped, n=1)
    hint = f"Did you mean {nearest[0]}? " if nearest else ""
    raise UsageError(
        f"There is no recipe {str(source)!r}.",
        hint=f"{hint}Shipped recipes: {', '.join(shipped)}. A path to a YAML file works as well.",
    )


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = (
            _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return result
