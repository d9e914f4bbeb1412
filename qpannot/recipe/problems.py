"""What is wrong with a recipe, in words."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from qpannot.recipe.settings import Recipe


def explain(error: Any) -> str:
    """Return what one of pydantic's errors says of a recipe: where, what, and the nearest key."""
    location = [str(part) for part in error["loc"]]
    where = ".".join(location)
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]} (got {error['input']!r})"
    *sections, wrong = location
    model: Any = Recipe
    for section in sections:
        if not section.isdigit():  # else one of a list
            annotation = model.model_fields[section].annotation
            model = next(iter(get_args(annotation)), annotation)
    known = {name: [".".join([*sections, name])] for name in model.model_fields}
    elsewhere: dict[str, list[str]] = {}
    for section, field in Recipe.model_fields.items():
        for name in getattr(field.annotation, "model_fields", {}):
            elsewhere.setdefault(name, []).append(f"{section}.{name}")
    for keys in (known, elsewhere):
        if nearest := difflib.get_close_matches(wrong, keys, n=1, cutoff=0.7):
            return f"{where}: no such key; did you mean {' or '.join(keys[nearest[0]])}?"
    return f"{where}: no such key; there are {', '.join(known)}"
