"""Changing values of a recipe, as ``--set KEY=VALUE`` and the designs of an ablation do."""

from __future__ import annotations

import copy
import difflib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from qpannot.errors import RecipeError, SettingError
from qpannot.recipe.problems import explain
from qpannot.recipe.settings import Recipe

FORM = "It is --set KEY=VALUE, as in --set tissue.threshold=210"


def set_values(values: Mapping[str, Any], overrides: Iterable[str]) -> Recipe:
    """Return the recipe of these values, which are valid, with some changed.

    Parameters
    ----------
    overrides
        ``key=value`` strings, the key dotted (``tissue.threshold=210``), the value YAML.

    Raises
    ------
    SettingError
        With every problem; a mistyped key names the nearest right one.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    given: dict[str, str] = {}
    wrong: list[_Wrong] = []
    for text in overrides:
        key = text.partition("=")[0].strip()
        if (found := _set(changed, key, text)) is None:
            given[key] = text
        else:
            wrong.append(found)
    try:
        recipe = Recipe.model_validate(changed)
    except ValidationError as error:
        right = Recipe.model_validate(values).model_dump(mode="json")
        wrong += [_explained(item, given, right) for item in error.errors()]
    if not wrong:
        return recipe
    corrected = dict.fromkeys(each.corrected for each in wrong if each.corrected)
    hint = f"Correct it, as in {', '.join(corrected)}" if corrected else FORM
    raise SettingError([each.problem for each in wrong], hint=hint)


def change_recipe(recipe: Recipe, overrides: Iterable[str], *, source: str) -> Recipe:
    """Return a recipe with some values changed.

    Parameters
    ----------
    overrides
        As for `set_values`.
    source
        What asks for it, for messages.

    Raises
    ------
    RecipeError
        With every problem.
    """
    try:
        return set_values(recipe.model_dump(mode="json"), overrides)
    except SettingError as error:
        raise RecipeError(source, error.problems) from None


@dataclass(frozen=True)
class _Wrong:
    problem: str
    corrected: str = ""
    """How it is to be typed, as far as that is clear."""


def _set(values: dict[str, Any], key: str, text: str) -> _Wrong | None:
    """Change one of these values; return what is wrong, then nothing is changed."""
    _, separator, typed = text.partition("=")
    if not separator or not key:
        return _Wrong(f"{text}: not of the form KEY=VALUE")
    try:
        value = yaml.safe_load(typed)
    except yaml.YAMLError:
        return _Wrong(f"{text}: the value is not YAML")
    keys = list(_keys(Recipe))
    if any(known.startswith(f"{key}.") for known in keys) and not isinstance(value, dict):
        under = [known for known in keys if known.startswith(f"{key}.")]
        return _Wrong(f"{text}: {key} is a section; there are {', '.join(under)}")
    if key not in keys and not any(known.startswith(f"{key}.") for known in keys):
        return _mistyped(key, text, typed, keys)
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value
    return None


def _mistyped(key: str, text: str, typed: str, keys: list[str]) -> _Wrong:
    section, _, last = key.rpartition(".")
    if nearest := _nearest(section, last, keys):
        corrected = " or ".join(_shown(known, typed) for known in nearest)
        return _Wrong(f"{text}: no such key; did you mean {' or '.join(nearest)}?", corrected)
    known = [name for name in keys if section and name.startswith(f"{section}.")]
    return _Wrong(f"{text}: no such key; there are {', '.join(known or Recipe.model_fields)}")


def _nearest(section: str, last: str, keys: list[str]) -> list[str]:
    """Return the keys that may be meant: of the section, or else those of the name anywhere."""
    if section in keys:
        return [section]
    sections: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for key in keys:
        above, _, name = key.rpartition(".")
        sections.setdefault(above, []).append(name)
        names.setdefault(name, []).append(key)
    if meant := difflib.get_close_matches(section, sections, n=1) if section else []:
        found = difflib.get_close_matches(last, sections[meant[0]], n=1, cutoff=0.7)
        if found:
            return [f"{meant[0]}.{found[0]}"]
    anywhere = difflib.get_close_matches(last, names, n=1, cutoff=0.7)
    return names[anywhere[0]] if anywhere else []


def _explained(error: Any, given: Mapping[str, str], right: dict[str, Any]) -> _Wrong:
    """Return which of the settings a validation error is about, and a value that would do."""
    where = ".".join(map(str, error["loc"]))
    about = [key for key in given if f"{where}.".startswith(f"{key}.")]
    about = about or [key for key in given if key.startswith(f"{where}.")]
    if not about:
        return _Wrong(explain(error))
    key = about[-1]
    value: Any = right
    for part in key.split("."):
        value = value[part]
    said = explain(error).removeprefix(f"{key}: ")
    return _Wrong(f"{given[key]}: {said}", "" if value in ([], {}) else _shown(key, value))


def _shown(key: str, value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"--set {shlex.quote(f'{key}={shown}')}"


def _keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"
