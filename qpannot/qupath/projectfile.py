"""What the project file and the list of classes say, and what is wrong with them where it is.

Source of the layout: QuPath 0.6 ``DefaultProject``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qpannot.errors import FormatError, ProjectError, QpannotError
from qpannot.qupath import gson
from qpannot.qupath.annotation import Color, PathClass, color_from_argb
from qpannot.qupath.qpdata.storable import CLASS_SEPARATOR, class_parts, is_text

Json = dict[str, Any]


def read_project_file(path: Path) -> bytes:
    """Return the bytes of a project file.

    Raises
    ------
    ProjectError
        When it cannot be read; says how to get one back that has gone.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if backup_of(path).exists():
            raise ProjectError(
                path, "the project file has gone.", hint=_how_to_get_back(path)
            ) from None
        raise ProjectError(
            path,
            "there is no such project.",
            hint="Give the .qpproj file or its folder; 'qpannot init SLIDES... -o FOLDER' "
            "makes a new one.",
        ) from None
    except OSError as error:
        raise ProjectError(path, f"cannot be read ({error.strerror or error}).") from error


def parse_project(path: Path, data: bytes) -> Json:
    """Return the document of a project file, in which every image has an ID of its own.

    Raises
    ------
    FormatError
        When it is no project, or damaged; says how to get the last good one back.
    """
    try:
        document = gson.loads(data.decode("utf-8"))
    except ValueError as error:
        what = f"not a QuPath project: {error}" if data.strip() else "the project file is empty."
        raise FormatError(path, what, hint=_how_to_get_back(path)) from error
    if not isinstance(document, dict) or not isinstance(document.get("images", []), list):
        raise FormatError(
            path, "not a QuPath project: it has no list of images.", hint=_how_to_get_back(path)
        )
    if "version" not in document and "lastID" not in document:
        raise FormatError(
            path,
            "written by a QuPath before 0.2, whose projects later versions do not read.",
            hint="Open and save the project with QuPath 0.2 or newer.",
        )
    document.setdefault("images", [])
    for place, entry in enumerate(document["images"], 1):
        if not isinstance(entry, dict) or "entryID" not in entry:
            raise FormatError(path, f"not a QuPath project: image {place} has no entryID.")
        entry["entryID"] = _whole_number(path, place, entry["entryID"])
    counts = Counter(entry["entryID"] for entry in document["images"])
    if twice := [str(each) for each, count in counts.items() if count > 1]:
        raise FormatError(
            path,
            f"several images have the same entryID ({', '.join(twice)}), and so the same "
            "annotations.",
            hint="Remove all but one of them in a text editor, and add the others to the project "
            f"again. {_how_to_get_back(path)}",
        )
    return document


def _whole_number(path: Path, place: int, value: object) -> int:
    # Gson takes 3.0 and "3" for 3
    try:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            number = int(value)
            if isinstance(value, str) or number == value:
                return number
    except (ValueError, OverflowError):
        pass
    raise FormatError(
        path,
        f"image {place} has the entryID {value!r}, which is no whole number.",
        hint=_how_to_get_back(path),
    )


def backup_of(path: Path) -> Path:
    """Return where QuPath moves the project file when it saves a new one, and leaves it."""
    return path.with_name(f"{path.name}.backup")


def _how_to_get_back(path: Path) -> str:
    kept = f"'qpannot snapshots {path.parent} --file project' lists what qpannot kept."
    backup = backup_of(path)
    try:
        is_whole = isinstance(gson.loads(backup.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        is_whole = False
    if is_whole:
        return (
            f"QuPath's own copy of the save before, {backup.name}, is whole: close QuPath and "
            f"copy it to {path.name}. {kept[0].upper()}{kept[1:]}"
        )
    return kept


def path_class_of(entry: Mapping[str, Any]) -> PathClass:
    """Return the class of an entry of ``classes.json``, named as QuPath names it."""
    color = entry.get("color")
    found = PathClass(str(entry["name"]), None if color is None else color_from_argb(int(color)))
    return PathClass(CLASS_SEPARATOR.join(class_parts(found)), found.color)


def is_class(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry of ``classes.json`` is a class, and not QuPath's null class."""
    name = str(entry.get("name") or "").strip(" :")
    # QuPath 0.2 and 0.3 list their null class; as a class of its own it means something else
    return bool(name) and not (name == "Unclassified" and entry.get("color") is None)


def class_color(entry: Mapping[str, Any]) -> Color | None:
    """Return the colour of an entry of ``classes.json``."""
    return path_class_of(entry).color


def last_id(document: Mapping[str, Any]) -> int:
    """Return the highest image ID a project has given out."""
    ids = [int(entry["entryID"]) for entry in document["images"]]
    return max([int(document.get("lastID") or 0), *ids])


def change_metadata(entry: Json, changes: Mapping[str, str | None]) -> None:
    """Set values of an entry's metadata, or remove the key where the value is ``None``.

    Raises
    ------
    QpannotError
        When one is no text that QuPath could read.
    """
    metadata = dict(entry.get("metadata") or {})
    for key, value in changes.items():
        if value is None:
            metadata.pop(key, None)
        elif not (is_text(key) and is_text(value)):
            raise QpannotError(
                f"The metadata {key!r} of {entry.get('imageName')} hold half a character, which no "
                "other program could read.",
                hint="Correct that text. Nothing was changed.",
            )
        else:
            metadata[key] = value
    if metadata != (entry.get("metadata") or {}):
        entry["metadata"] = metadata


def change_tags(entry: Json, changes: Mapping[str, bool]) -> None:
    """Add the tags that are ``True`` to an entry, and remove those that are ``False``."""
    tags = [tag for tag in entry.get("tags") or () if changes.get(tag, True)]
    tags += [tag for tag, wanted in changes.items() if wanted and tag not in tags]
    if tags != (entry.get("tags") or []):
        entry["tags"] = tags
