"""GeoJSON as QuPath and the tools around it write it, read into objects.

There is no schema; what counts is what QuPath 0.2 to 0.7 wrote and what 0.7 reads. A feature that
cannot be understood is left out and named, and the others are read.
Source: QuPath 0.6 ``GsonTools``, ``QuPathTypeAdapters`` and ``ROITypeAdapters``.
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from qpannot.errors import FormatError, ProjectError
from qpannot.qupath.annotation import (
    Annotation,
    Detection,
    ObjectKind,
    PathObject,
    RoiType,
    TMACore,
)
from qpannot.qupath.geojson.fitting import Remark, RepairedObject, SplitObject, fit
from qpannot.qupath.geojson.geometry import (
    GEOMETRIES,
    Outline,
    WrongError,
    build,
    parse_geometry,
)
from qpannot.qupath.geojson.properties import (
    KINDS,
    ROOTS,
    is_true,
    kind_name_of,
    read_class,
    read_color,
    read_measurements,
    read_metadata,
    read_text,
    shortened,
)

_MAX_BYTES: Final = 4 << 30  # of an unpacked file; more is an attack, or does not fit memory
_IDS: Final = UUID("6f1a4dd6-8d0c-5d3c-9a53-2f6c0d0f4b1e")  # of objects without an ID of their own
_HINT: Final = "Export it again, from QuPath by 'File > Export objects as GeoJSON'."


@dataclass(frozen=True)
class Geojson:
    """What a GeoJSON file holds.

    Parameters
    ----------
    objects
        Objects of all kinds, parents before children, valid on QuPath's grid of 0.01 px.
    repairs
        Objects whose geometry was not valid as it stood.
    splits
        Objects too large for QuPath, and the smaller ones they became.
    left_out
        Features that are no objects, each with the reason.
    remarks
        What else is not as it stands in the file.
    stated
        By object ID, which of its properties the file states, by the names GeoJSON has for them.
    crs
        The coordinate reference system that the file names, as maps do; pixels have none.
    """

    objects: list[PathObject]
    repairs: list[RepairedObject]
    splits: list[SplitObject]
    left_out: list[Remark]
    remarks: list[Remark]
    stated: dict[UUID, frozenset[str]] = field(default_factory=dict)
    crs: str | None = None


def read_geojson(source: Path | str | bytes) -> Geojson:
    """Read objects from GeoJSON, plain or compressed (gzip, zip).

    Understood are a FeatureCollection, a Feature, a geometry, arrays of these to any depth, a
    hierarchy as QuPath writes it (``root``), features within features (``childObjects``), and
    every spelling of types, classes, colours and measurements that QuPath ever used. Outlines
    that cross themselves, open rings and the like are repaired and reported. An object without
    a UUID gets one made of its content: the same each time the file is read.

    Parameters
    ----------
    source
        A file, or the bytes of one.

    Raises
    ------
    FormatError
        If it is no GeoJSON at all.
    ProjectError
        If the file cannot be read.
    """
    name: Path | str = "GeoJSON" if isinstance(source, bytes) else Path(source)
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise ProjectError(
                name, f"cannot be read ({error.strerror or error}).", hint="Check the path."
            ) from error
    documents = [_parsed(name, each) for each in _unpacked(name, data)]
    features, left_out = _features(name, documents)
    crs = next((found for each in documents if (found := _crs(each))), None)
    return replace(_read(features, left_out), crs=crs)


def _crs(document: Any) -> str | None:
    named = document.get("crs") if isinstance(document, dict) else None
    properties = named.get("properties") if isinstance(named, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    return name if isinstance(name, str) and name.strip() else None


def _unpacked(name: Path | str, data: bytes) -> list[bytes]:
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                return [_limited(name, packed)]
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                wanted = [
                    entry
                    for entry in archive.infolist()
                    if entry.filename.lower().endswith((".geojson", ".json"))
                ]
                if not wanted:
                    raise FormatError(name, "no GeoJSON is in this archive.", hint=_HINT)
                contents = []
                for entry in wanted:
                    with archive.open(entry) as member:
                        contents.append(_limited(name, member))
                return contents
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise FormatError(name, f"cannot be unpacked ({error}).", hint=_HINT) from error
    return [data]


def _limited(name: Path | str, packed: Any) -> bytes:
    data: bytes = packed.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise FormatError(name, f"unpacks to more than {_MAX_BYTES >> 30} GiB.", hint=_HINT)
    return data


def _parsed(name: Path | str, data: bytes) -> Any:
    collects = gc.isenabled()
    gc.disable()  # it would look through millions of new lists, again and again: half of the time
    try:
        return json.loads(data)
    except RecursionError:
        raise FormatError(name, "nested more deeply than QuPath could read.", hint=_HINT) from None
    except json.JSONDecodeError as error:
        raise FormatError(
            name, f"no JSON: {error.msg} in line {error.lineno}.", offset=error.pos, hint=_HINT
        ) from error
    except ValueError as error:  # no text, or a number of thousands of digits
        raise FormatError(name, f"no JSON: {error}.", hint=_HINT) from error
    finally:
        if collects:
            gc.enable()


class _Feature(NamedTuple):
    """A feature as it stands in the file, and that within whose ``childObjects`` it is."""

    where: str
    content: dict[str, Any]
    parent: int | None


def _features(name: Path | str, documents: list[Any]) -> tuple[list[_Feature], list[Remark]]:
    found: list[_Feature] = []
    left_out: list[Remark] = []
    any_geojson = False
    pending: list[tuple[str, Any, int | None]] = [("", each, None) for each in documents[::-1]]
    while pending:
        where, content, parent = pending.pop()
        if isinstance(content, list):
            any_geojson = any_geojson or not content
            pending += [(f"{where}[{i}]", content[i], parent) for i in range(len(content))][::-1]
            continue
        kind = str(content.get("type")) if isinstance(content, dict) else ""
        if (
            isinstance(content, dict)
            and "type" not in content
            and isinstance(content.get("root"), dict)
        ):
            pending.append(("root", content["root"], parent))
        elif kind == "FeatureCollection":
            features = content.get("features")
            if not isinstance(features, list):
                raise FormatError(name, f"{where or 'it'} has no list of features.", hint=_HINT)
            any_geojson = True
            inner = f"{where}.features" if where else "features"
            pending += [(f"{inner}[{i}]", each, parent) for i, each in enumerate(features)][::-1]
        elif kind == "Feature" or (parent is not None and isinstance(content, dict)):
            any_geojson = True
            index = len(found)
            found.append(_Feature(where or "the feature", content, parent))
            below = f"{where}.childObjects" if where else "childObjects"
            children = _children(content)
            pending += [(f"{below}[{i}]", each, index) for i, each in enumerate(children)][::-1]
        elif kind in GEOMETRIES:
            any_geojson = True
            found.append(_Feature(where or "the geometry", {"geometry": content}, parent))
        else:
            left_out.append(Remark(where or "it", f"is no feature ({shortened(content)})"))
    if not any_geojson:
        raise FormatError(name, "no GeoJSON: it holds neither features nor geometries.", hint=_HINT)
    return found, left_out


def _children(content: Mapping[str, Any]) -> list[Any]:
    properties = content.get("properties")
    if not isinstance(properties, dict):
        return []
    children = properties.get("childObjects", properties.get("children"))
    return children if isinstance(children, list) else []


class _Draft(NamedTuple):
    """What an object is made of, but for its geometry."""

    where: str
    kind: ObjectKind
    outline: Outline
    nucleus: Outline | None
    fields: dict[str, Any]
    stated: frozenset[str]


class _Ids:
    """Gives every object an ID that no other object of the file has."""

    def __init__(self) -> None:
        self._taken: dict[UUID, str] = {}

    def of(self, where: str, content: Mapping[str, Any]) -> tuple[UUID, str | None]:
        """Return an object's ID and, where that is not its own, whose it had."""
        try:
            wanted: UUID | None = UUID(content["id"])
        except (KeyError, ValueError, TypeError, AttributeError):
            wanted = None
        if wanted is not None and wanted not in self._taken:
            self._taken[wanted] = where
            return wanted, None
        digest = _digest(content)
        first = self._taken[wanted] if wanted is not None else None
        number, made = 1, uuid5(wanted or _IDS, digest)
        while made in self._taken:
            number += 1
            made = uuid5(wanted or _IDS, f"{digest} {number}")
        self._taken[made] = where
        return made, first


def _digest(content: Mapping[str, Any]) -> str:
    properties = content.get("properties")
    if isinstance(properties, dict):
        own = {k: v for k, v in properties.items() if k not in ("childObjects", "children")}
        content = {**content, "properties": own}
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _read(features: Sequence[_Feature], left_out: list[Remark]) -> Geojson:
    drafts: list[_Draft] = []
    remarks: list[Remark] = []
    ids = _Ids()
    id_of: list[UUID | None] = []
    for where, content, parent in features:
        parent_id = None if parent is None else id_of[parent]
        id_of.append(parent_id)  # what lies in something that is left out moves up
        try:
            draft = _draft(where, content, parent_id)
        except (WrongError, OverflowError) as error:
            left_out.append(Remark(where, str(error)))
            continue
        if draft is None:
            left_out.append(Remark(where, "is the root, which every image has"))
            continue
        draft.fields["id"], other = ids.of(where, content)
        if other is not None:
            remarks.append(Remark(where, f"has the ID of {other}, and was given another"))
        if (kind := kind_name_of(content)) is not None and kind not in KINDS:
            remarks.append(Remark(where, f"is a {kind!r}, and was read as an annotation"))
        id_of[-1] = draft.fields["id"]
        drafts.append(draft)
    objects = _objects(drafts)
    faults = {
        i: [*draft.outline.faults, *(draft.nucleus.faults if draft.nucleus else ())]
        for i, draft in enumerate(drafts)
    }
    fitted = fit(objects, places=[draft.where for draft in drafts], faults=faults)
    stated = {draft.fields["id"]: draft.stated for draft in drafts}
    stated |= {piece: stated[each.id] for each in fitted.splits for piece in each.pieces}
    return Geojson(
        fitted.objects, fitted.repairs, fitted.splits, left_out + fitted.left_out, remarks, stated
    )


def _objects(drafts: Sequence[_Draft]) -> list[PathObject]:
    outlines = [draft.outline for draft in drafts]
    outlines += [draft.nucleus for draft in drafts if draft.nucleus]
    geometries = build(outlines)
    nuclei = iter(geometries[len(drafts) :])
    objects: list[PathObject] = []
    for (_, kind, _, nucleus, fields, _), geometry in zip(drafts, geometries, strict=False):
        if kind is ObjectKind.ANNOTATION:
            objects.append(Annotation(geometry=geometry, **fields))
        elif kind is ObjectKind.TMA_CORE:
            objects.append(TMACore(geometry=geometry, **fields))
        else:
            inside = next(nuclei) if nucleus else None
            objects.append(Detection(geometry=geometry, kind=kind, nucleus=inside, **fields))
    return objects


def _draft(where: str, content: Mapping[str, Any], parent_id: UUID | None) -> _Draft | None:
    properties = content.get("properties")
    if properties is None:
        properties = {}
    if not isinstance(properties, dict):
        raise WrongError("its properties are no object")
    kind_name = kind_name_of({**content, "properties": properties})
    if kind_name in ROOTS:
        return None
    kind = KINDS.get(kind_name or "annotation", ObjectKind.ANNOTATION)
    outline = parse_geometry(content.get("geometry"))
    nucleus = None
    if kind is ObjectKind.CELL and content.get("nucleusGeometry"):
        nucleus = parse_geometry(content["nucleusGeometry"])
    fields: dict[str, Any] = {
        "path_class": read_class(properties.get("classification")),
        "name": read_text(properties.get("name")),
        "locked": is_true(properties.get("isLocked")),
        "color": read_color(properties.get("color")),
        "measurements": read_measurements(properties.get("measurements")),
        "metadata": read_metadata(properties.get("metadata")),
        "plane": outline.plane,
        "parent_id": parent_id,
    }
    if outline.is_ellipse or kind is ObjectKind.TMA_CORE:
        fields["roi"] = RoiType.ELLIPSE
    if kind is ObjectKind.TMA_CORE:
        fields["missing"] = is_true(properties.get("isMissing"))
    return _Draft(where, kind, outline, nucleus, fields, frozenset(properties))
