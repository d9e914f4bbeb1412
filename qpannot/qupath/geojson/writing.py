"""Objects written as GeoJSON in QuPath's dialect, as QuPath 0.4 to 0.7 read it.

Source: QuPath 0.6 ``QuPathTypeAdapters`` and ``ROITypeAdapters``. As in QuPath's own export, the
features are flat: which object lies in which is not written. Measurements that are no finite
numbers are written as QuPath 0.5 and newer do; 0.4 refuses a file with them, its own as well.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.errors import QpannotError
from qpannot.qupath import gson
from qpannot.qupath.annotation import (
    DEFAULT_PLANE,
    Detection,
    PathClass,
    PathObject,
    Plane,
    RoiType,
    TMACore,
)
from qpannot.qupath.files import write_atomically
from qpannot.qupath.geojson.fitting import Fitted, fit, is_ellipse
from qpannot.qupath.geojson.validity import GRID_DECIMALS

_PAIR: Final = re.compile(r"\[\n\s+([^\s\[\]{}\"]+),\n\s+([^\s\[\]{}\"]+)\n\s+\]")
_COLOR: Final = re.compile(r"\[\n\s+(\d+),\n\s+(\d+),\n\s+(\d+)\n\s+\]")


def feature(each: PathObject) -> dict[str, Any]:
    """Return an object as a GeoJSON Feature, with the keys and in the order QuPath has.

    Raises
    ------
    QpannotError
        If its geometry is empty, invalid on QuPath's grid, or too large for QuPath; `write_geojson`
        repairs and splits such objects.
    """
    fitted = fit([each])
    if fitted.repairs or fitted.splits or fitted.left_out:
        raise QpannotError(
            f"The {each.kind} {each.id} cannot be written to GeoJSON as it is.",
            hint="Write it with write_geojson, which repairs and splits, and reports it.",
        )
    return _feature(fitted.objects[0])


def write_geojson(
    path: Path | str, objects: Iterable[PathObject], *, pretty: bool = False
) -> Fitted:
    """Write objects to a GeoJSON file, replacing it in one step.

    The objects stay as they are; what is written is valid when rounded to QuPath's grid of
    0.01 px, and what had to be repaired, split or left out for that is told.

    Parameters
    ----------
    path
        Compressed where it ends in ``.gz``.
    objects
        Of any kind, parents before children.
    pretty
        Over many lines, as QuPath's "Pretty JSON"; else a line for each feature.

    Returns
    -------
    Fitted
        What was written, and what differs from what was given.

    Raises
    ------
    ProjectError
        When the file cannot be written; the old one is untouched then.
    """
    path = Path(path)
    fitted = fit(list(objects))
    data = to_geojson(fitted.objects, pretty=pretty)
    if path.suffix.lower() == ".gz":
        data = gzip.compress(data, compresslevel=6, mtime=0)
    write_atomically(path, data)
    return fitted


def to_geojson(objects: Sequence[PathObject], *, pretty: bool = False) -> bytes:
    """Return fitted objects (`fitting.fit`) as the bytes of a FeatureCollection."""
    if pretty:
        collection = {"type": "FeatureCollection", "features": [_feature(each) for each in objects]}
        text = json.dumps(collection, indent=2, ensure_ascii=False, allow_nan=False)
        # strings hold no line breaks in JSON, so these are points and colours
        text = _COLOR.sub(r"[\1, \2, \3]", _PAIR.sub(r"[\1, \2]", text)) + "\n"
    else:
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
        lines = (encode(_feature(each)) for each in objects)
        text = '{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}\n"
    return gson.encode(text)


def _feature(each: PathObject) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "Feature",
        "id": str(each.id),
        "geometry": _geometry(each.geometry, each.plane, each.roi is RoiType.ELLIPSE),
    }
    if isinstance(each, Detection) and each.nucleus is not None:
        made["nucleusGeometry"] = _geometry(each.nucleus, each.plane, is_ellipse(each.nucleus))
    properties: dict[str, Any] = {"objectType": str(each.kind)}
    if each.name is not None:
        properties["name"] = each.name
    if each.color is not None:
        properties["color"] = list(each.color)
    if each.path_class is not None:
        properties["classification"] = _classification(each.path_class)
    if each.locked:
        properties["isLocked"] = True
    if isinstance(each, TMACore):
        properties["isMissing"] = each.missing
    if each.measurements:
        properties["measurements"] = {
            key: _number(float(value)) for key, value in each.measurements.items()
        }
    if each.metadata:
        properties["metadata"] = dict(each.metadata)
    made["properties"] = properties
    return made


def _classification(path_class: PathClass) -> dict[str, Any] | str:
    if path_class.color is None:
        return path_class.name  # QuPath refuses a class of a name without a colour
    parts = list(path_class.parts)
    named = {"name": parts[0]} if len(parts) == 1 else {"names": parts}
    return {**named, "color": list(path_class.color)}


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _geometry(geometry: BaseGeometry, plane: Plane, ellipse: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": geometry.geom_type,
        "coordinates": _coordinates(geometry),
    }
    if plane != DEFAULT_PLANE:
        made["plane"] = {"c": plane.c, "z": plane.z, "t": plane.t}
    if ellipse:
        made["isEllipse"] = True
    return made


def _coordinates(geometry: BaseGeometry) -> list[Any]:
    if geometry.geom_type == "Polygon":
        if not shapely.get_num_interior_rings(geometry):
            return [_points(geometry)]
        return [_points(ring) for ring in shapely.get_rings(geometry)]
    if geometry.geom_type == "Point":
        only: list[Any] = _points(geometry)[0]
        return only
    if geometry.geom_type in ("MultiPolygon", "MultiLineString"):
        return [_coordinates(part) for part in shapely.get_parts(geometry)]
    return _points(geometry)


def _points(part: BaseGeometry) -> list[Any]:
    points = np.round(shapely.get_coordinates(part), GRID_DECIMALS)
    if (whole := points.astype(np.int64)).tolist() and (whole == points).all():
        return whole.tolist()  # type: ignore[no-any-return]
    return [
        [int(x) if x.is_integer() else x, int(y) if y.is_integer() else y]
        for x, y in points.tolist()
    ]
