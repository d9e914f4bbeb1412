"""Which file belongs to which image, by names alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from qpannot.errors import UsageError
from qpannot.linking.adding import SLIDE_SUFFIXES
from qpannot.qupath import ProjectImage

GEOJSON_SUFFIXES: Final = (".geojson", ".json", ".geojson.gz", ".json.gz", ".geojson.zip", ".zip")
"""What files of objects end in; the first is what an export writes."""

_IN_FOLDERS: Final = (".geojson", ".geojson.gz")  # other JSON is seldom of objects
_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".vsi", ".qptiff", ".tiff", ".ome"})
_REFUSED: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # by Windows, the strictest
_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_LONGEST: Final = 200  # bytes; file systems take 255, with the suffixes


def name_files(images: Sequence[ProjectImage]) -> dict[str, str]:
    """Return a file name for each image of a project, without GeoJSON's suffix, by image ID.

    It is the image's name without the slide's suffix, as QuPath's export suggests it; with the
    suffix where two images would have the same, and with the image's ID where that is not
    enough. Case does not tell files apart. The same project gives the same names.
    """
    short = {image.id: _safe(without_slide_suffix(image.name)) for image in images}
    full = {image.id: _safe(image.name) for image in images}
    named: dict[str, str] = {}
    for names in (short, full):
        counts = Counter(name.casefold() for name in names.values())
        taken = {name.casefold() for name in named.values()}
        for image in images:
            low = names[image.id].casefold()
            if image.id not in named and counts[low] == 1 and low not in taken:
                named[image.id] = names[image.id]
    taken = {name.casefold() for name in named.values()}
    for image in images:
        if image.id not in named:
            name = _name_with_id(image)
            while name.casefold() in taken:
                name += "_"
            named[image.id] = name
            taken.add(name.casefold())
    return named


def _name_with_id(image: ProjectImage) -> str:
    return f"{_safe(image.name)} ({image.id})"


def _safe(name: str) -> str:
    safe = _REFUSED.sub("_", name).strip(" .")
    safe = safe.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").strip(" .")
    return f"_{safe}" if not safe or _DEVICES.fullmatch(safe) else safe


def without_slide_suffix(name: str) -> str:
    """Return an image's name without what tells the kind of its file (``.svs``, ``.ome.tif``)."""
    while "." in name:
        stem, _, suffix = name.rpartition(".")
        if not stem or f".{suffix.lower()}" not in SLIDE_SUFFIXES | _PICTURES:
            break
        name = stem
    return name


def without_geojson_suffix(name: str) -> str:
    """Return a file's name without ``.geojson``, ``.geojson.gz`` and the like."""
    for suffix in sorted(GEOJSON_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def images_of(file: Path, images: Sequence[ProjectImage]) -> list[ProjectImage]:
    """Return the images that a file may belong to by its name; one, if all is well.

    The first of these that is anyone's decides: the name an export gives to the image, or gave it
    when others had its name; the image's name; for a file that does not say what kind of slide it
    is of, the name without the slide's suffix; and all of these regardless of case. Of several
    images of one name it is those whose slides lie in a folder of the same name as the file's.
    """
    name = without_geojson_suffix(file.name)
    stem = without_slide_suffix(name)
    names = name_files(images)

    def stems(image: ProjectImage) -> tuple[str, ...]:
        # a.svs.geojson is of no a.ndpi, but of an image that somebody renamed to a
        own = without_slide_suffix(image.name) if name == stem else image.name
        return own, _safe(own)

    calls: tuple[tuple[str, Callable[[ProjectImage], tuple[str, ...]]], ...] = (
        (name, lambda image: (names[image.id],)),
        (name, lambda image: (image.name, _safe(image.name), _name_with_id(image))),
        (stem, stems),
    )
    for fold in (str, str.casefold):
        for wanted, called in calls:
            found = [image for image in images if fold(wanted) in map(fold, called(image))]
            if found:
                return _in_folder_of(file, found) if len(found) > 1 else found
    return []


def _in_folder_of(file: Path, images: list[ProjectImage]) -> list[ProjectImage]:
    folder = file.absolute().parent.name
    beside = [image for image in images if image.path and image.path.parent.name == folder]
    return beside or images


def find_geojson(paths: Iterable[Path]) -> list[Path]:
    """Return the files that files and folders stand for, each once, folders sorted.

    A folder stands for the ``.geojson`` and ``.geojson.gz`` files in it.

    Raises
    ------
    UsageError
        When a path does not exist, or a folder holds no such file.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder.")
        files = [path]
        if path.is_dir():
            files = [
                each
                for each in sorted(path.iterdir())
                if each.is_file()
                and not each.name.startswith(".")
                and each.name.lower().endswith(_IN_FOLDERS)
            ]
            if not files:
                raise UsageError(
                    f"{path}: no GeoJSON in this folder.",
                    hint=f"Looked for {' '.join(_IN_FOLDERS)}; name files of other suffixes.",
                )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())
