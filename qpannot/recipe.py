"""Recipes: one validated YAML file holds every number of the method, with its unit.

The papers' values are the defaults here and in ``workflows/h2gnet.yaml``. A recipe file states only
what differs from the recipe it ``extends``, which is ``h2gnet`` where it does not say.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpannot.errors import RecipeError, UsageError

BASE = "h2gnet"
"""What a recipe extends that does not say."""

ColorTriple = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TissueSettings(_Section):
    """AN1: how tissue is told from glass.

    The names and meanings are those of QuPath 0.6 ``SimpleTissueDetection2``, the numbers those of
    H2G-Net sec. 2.1 (threshold 200, requested pixel size 20, minimum area 100,000). The ``_um``
    settings hold for slides of known pixel size, ``requested_downsample`` and the ``_px2`` ones for
    the others.
    """

    method: Literal["threshold", "otsu"] = "threshold"
    """``threshold``: QuPath's simple tissue detection; ``otsu``: Otsu on HSV saturation at
    ``otsu_size_px`` (H2G-Net sec. 3.2, design I), its outlines cleaned as below."""

    threshold: int = Field(default=200, ge=0, le=255)
    requested_pixel_size_um: float = Field(default=20.0, gt=0)
    min_area_um2: float = Field(default=100_000.0, ge=0)
    max_hole_area_um2: float = 1_000_000.0
    """Holes smaller than this are filled; 0 or less fills every hole."""

    requested_downsample: float = Field(default=50.0, gt=0)
    min_area_px2: float = Field(default=100_000.0, ge=0)
    max_hole_area_px2: float = 500.0

    dark_background: bool = False
    smooth_image: bool = True
    median_cleanup: bool = True
    dilate_boundaries: bool = False
    smooth_coordinates: bool = True
    exclude_on_boundary: bool = False
    single_annotation: bool = True

    java_cuts: bool = True
    """Whether large, jagged outlines lose bands of tissue as they do in QuPath 0.6 on Java 25.0.3
    (see ``tissue.javaarea``). ``True`` gives what such a QuPath gives, ``False`` what QuPath gives
    on other Javas: all of the tissue. The shipped recipes say ``false``."""

    otsu_size_px: int = Field(default=1024, ge=16, le=8192)


class ProposalSettings(_Section):
    """How a proposal looks in QuPath."""

    class_name: str = Field(default="Tumor", min_length=1)
    """The class a corrected proposal stands for: what is left after glass, artefacts and other
    tissue were cut away (H2G-Net sec. 2.1)."""

    color: ColorTriple = (200, 0, 0)
    """Used where the project does not know the class yet; QuPath's own red for Tumor."""

    locked: bool = False
    """QuPath locks what its detection makes. A proposal is there to be corrected, and a locked
    annotation refuses the brush."""


class RoundSettings(_Section):
    """How large a round is."""

    slides: int | None = Field(default=None, ge=1)
    """Slides proposed for in one round; ``null``: every unannotated one."""


class Recipe(_Section):
    """A whole recipe."""

    name: str = "h2gnet"
    description: str = ""
    tissue: TissueSettings = TissueSettings()
    proposal: ProposalSettings = ProposalSettings()
    round: RoundSettings = RoundSettings()


def builtin_recipes() -> dict[str, Path]:
    """Return the recipes that ship with qpannot, by name."""
    package = Path(__file__).parent
    for folder in (package / "workflows", package.parent / "workflows"):
        if folder.is_dir():
            return {path.stem: path.resolve() for path in sorted(folder.glob("*.yaml"))}
    raise UsageError(
        "qpannot's own recipes are missing from this installation.",
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
    UsageError
        When there is no such recipe.
    """
    values = _read(source)
    problems = [problem for text in overrides if (problem := _override(values, text))]
    if problems:
        raise RecipeError(
            str(source), problems, hint="Use --set key=value, as in --set tissue.threshold=210"
        )
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(str(source), [_explain(item) for item in error.errors()]) from None


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


def _override(values: dict[str, Any], text: str) -> str | None:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        return f"--set {text}: not of the form key=value"
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return f"--set {text}: {section!r} is a value, not a section"
        values = inner
    try:
        values[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        return f"--set {text}: the value is not YAML"
    return None


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    where = ".".join(location)
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]} (got {error['input']!r})"
    *sections, wrong = location
    model: Any = Recipe
    for section in sections:
        model = model.model_fields[section].annotation
    known = {name: ".".join([*sections, name]) for name in model.model_fields}
    elsewhere = {
        name: f"{section}.{name}"
        for section, field in Recipe.model_fields.items()
        for name in getattr(field.annotation, "model_fields", {})
    }
    for keys in (known, elsewhere):
        if nearest := difflib.get_close_matches(wrong, keys, n=1, cutoff=0.7):
            return f"{where}: no such key; did you mean {keys[nearest[0]]}?"
    return f"{where}: no such key; there are {', '.join(known)}"
