"""An empty ``data.qpdata``, as QuPath 0.4 to 0.7 writes it for an image without objects."""

from __future__ import annotations

import json
import struct
from typing import Final
from uuid import uuid4

from qpannot.errors import QpannotError
from qpannot.qupath.qpdata.javaclasses import HIERARCHY, IMAGE_TYPE, OBJECTS, WORKFLOW, ClassTable
from qpannot.qupath.qpdata.javatypes import Content, JavaString, encode_utf
from qpannot.qupath.qpdata.pathwriting import new_metadata

IMAGE_TYPES: Final = (
    "BRIGHTFIELD_H_DAB",
    "BRIGHTFIELD_H_E",
    "BRIGHTFIELD_OTHER",
    "FLUORESCENCE",
    "OTHER",
    "UNSET",
)
"""QuPath's image types (ImageData.ImageType)."""

_DATA_FILE_VERSION: Final = 3


def new_contents(
    table: ClassTable, qupath_version: str, server_json: str | None, image_type: str
) -> list[Content]:
    """Return what an empty data file consists of; see `qpdata.QpData.new`.

    Raises
    ------
    QpannotError
        If the image type is none that QuPath knows, or ``server_json`` is no JSON.
    """
    if image_type not in IMAGE_TYPES:
        raise QpannotError(
            f"{image_type!r} is no image type of QuPath.", hint=f"Use {', '.join(IMAGE_TYPES)}."
        )
    header = f'{{"dataVersion":{_DATA_FILE_VERSION},"qupathVersion":{json.dumps(qupath_version)}'
    if server_json is not None:
        try:
            json.loads(server_json)
        except ValueError as error:
            raise QpannotError(
                f"The image's server is described by no JSON: {error}.",
                hint="Add the image to the project again.",
            ) from error
        header += f',"server":{server_json}'
    line = encode_utf(f"Data file version {_DATA_FILE_VERSION}")
    empty = JavaString.of("")
    locale = table.new(
        "java.util.Locale",
        hashcode=-1,
        country=JavaString.of("US"),
        extensions=empty,
        language=JavaString.of("en"),
        script=empty,
        variant=empty,
    )
    properties = table.new("java.util.HashMap", loadFactor=0.75, threshold=0)
    properties.contents.append(struct.pack(">ii", 16, 0))
    root = table.external(
        OBJECTS + "PathRootObject",
        [None, None, new_metadata(table, {}, uuid4()), None, struct.pack(">i", 0)],
    )
    return [
        struct.pack(">H", len(line)) + line,
        JavaString.of(header + "}"),
        locale,
        table.enum(IMAGE_TYPE, image_type),
        None,
        table.external(WORKFLOW, [struct.pack(">ii", 1, 0)]),
        table.new(HIERARCHY, rootObject=root),
        properties,
        JavaString.of("EOF"),
    ]
