"""The classes of QuPath's data files, for writing objects of classes a file has none of yet.

The declarations are what QuPath 0.6.0 and 0.7.0 write; every serialVersionUID of QuPath's own
is 1. Where a file has its own descriptor of a class, objects are built by that one instead, field
by field, so that old and new objects of one class look the same in one file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qpannot.qupath.qpdata.javatypes import (
    SC_BLOCK_DATA,
    SC_ENUM,
    SC_EXTERNALIZABLE,
    SC_SERIALIZABLE,
    SC_WRITE_METHOD,
    ClassData,
    ClassDesc,
    Content,
    Field,
    JavaArray,
    JavaEnum,
    JavaObject,
    JavaString,
    UnexpectedError,
)

OBJECTS: Final = "qupath.lib.objects."
ROIS: Final = "qupath.lib.roi."
PATH_CLASS: Final = OBJECTS + "classes.PathClass"
HIERARCHY: Final = OBJECTS + "hierarchy.PathObjectHierarchy"
METADATA_MAP: Final = OBJECTS + "MetadataMap"
MEASUREMENT_LIST: Final = "qupath.lib.measurements.DefaultMeasurementList"
MEASUREMENT: Final = "qupath.lib.measurements.DoubleMeasurement"
DOUBLE_LIST: Final = "qupath.lib.measurements.NumericMeasurementList$DoubleList"
IMAGE_TYPE: Final = "qupath.lib.images.ImageData$ImageType"
WORKFLOW: Final = "qupath.lib.plugins.workflow.Workflow"
INTEGER: Final = "java.lang.Integer"
BOOLEAN: Final = "java.lang.Boolean"
OBJECT_ARRAY: Final = "[Ljava.lang.Object;"

_PLAIN = SC_SERIALIZABLE
_WRITES = SC_SERIALIZABLE | SC_WRITE_METHOD
_EXTERNAL = SC_EXTERNALIZABLE | SC_BLOCK_DATA
_STRING = "Ljava/lang/String;"
_PLANE = "I:c I:t I:z"
_CORNERS = f"I:c I:t D:x D:x2 D:y D:y2 I:z name:{_STRING}"
_NUMBERS = "qupath.lib.measurements.NumericMeasurementList$AbstractNumericMeasurementList"
_PATH_OBJECT = OBJECTS + "PathObject"
_ROI_OBJECT = OBJECTS + "PathROIObject"
_DETECTION = OBJECTS + "PathDetectionObject"
_LIST_OF = 1  # java.util.CollSer's tag of what List.of returns

# name: (serialVersionUID, flags, fields, superclass)
_DECLARATIONS: Final[dict[str, tuple[int, int, str, str | None]]] = {
    "[B": (0xACF317F8060854E0, _PLAIN, "", None),
    "[D": (0x3EA68C14AB635A1E, _PLAIN, "", None),
    "[F": (0x0B9C818922E00C42, _PLAIN, "", None),
    OBJECT_ARRAY: (0x90CE589F1073296C, _PLAIN, "", None),
    "java.lang.Enum": (0, SC_ENUM | SC_SERIALIZABLE, "", None),
    "java.lang.Number": (0x86AC951D0B94E08B, _PLAIN, "", None),
    INTEGER: (0x12E2A0A4F7818738, _PLAIN, "I:value", "java.lang.Number"),
    BOOLEAN: (0xCD207280D59CFAEE, _PLAIN, "Z:value", None),
    "java.util.ArrayList": (0x7881D21D99C7619D, _WRITES, "I:size", None),
    "java.util.CollSer": (0x578EABB63A1BA811, _WRITES, "I:tag", None),
    "java.util.HashMap": (0x0507DAC1C31660D1, _WRITES, "F:loadFactor I:threshold", None),
    "java.util.Locale": (
        0x7EF811609C30F9EC,
        _WRITES,
        "I:hashcode "
        + " ".join(
            f"{name}:{_STRING}"
            for name in ("country", "extensions", "language", "script", "variant")
        ),
        None,
    ),
    IMAGE_TYPE: (0, SC_ENUM | SC_SERIALIZABLE, "", "java.lang.Enum"),
    WORKFLOW: (1, _EXTERNAL, "", None),
    HIERARCHY: (
        1,
        _PLAIN,
        "rootObject:Lqupath/lib/objects/PathObject; tmaGrid:Lqupath/lib/objects/hierarchy/TMAGrid;",
        None,
    ),
    _PATH_OBJECT: (1, _EXTERNAL, "", None),
    OBJECTS + "PathRootObject": (1, _EXTERNAL, "", _PATH_OBJECT),
    _ROI_OBJECT: (1, _EXTERNAL, "", _PATH_OBJECT),
    OBJECTS + "PathAnnotationObject": (1, _EXTERNAL, "", _ROI_OBJECT),
    _DETECTION: (1, _EXTERNAL, "", _ROI_OBJECT),
    OBJECTS + "PathCellObject": (1, _EXTERNAL, "", _DETECTION),
    OBJECTS + "PathTileObject": (1, _EXTERNAL, "", _DETECTION),
    METADATA_MAP: (1, _EXTERNAL, "", None),
    PATH_CLASS: (
        1,
        _PLAIN,
        f"colorRGB:Ljava/lang/Integer; name:{_STRING} "
        "parentClass:Lqupath/lib/objects/classes/PathClass;",
        None,
    ),
    MEASUREMENT_LIST: (1, _PLAIN, "list:Ljava/util/ArrayList;", None),
    MEASUREMENT: (1, _PLAIN, f"D:value name:{_STRING}", None),
    _NUMBERS: (1, _PLAIN, "Z:isClosed map:Ljava/util/Map; names:Ljava/util/List;", None),
    DOUBLE_LIST: (1, _PLAIN, "values:[D", _NUMBERS),
    ROIS + "RectangleROI$SerializationProxy": (1, _PLAIN, _CORNERS, None),
    ROIS + "EllipseROI$SerializationProxy": (1, _PLAIN, _CORNERS, None),
    ROIS + "LineROI$SerializationProxy": (1, _PLAIN, _CORNERS, None),
    ROIS + "PolygonROI$SerializationProxy": (
        1,
        _PLAIN,
        f"{_PLANE} name:{_STRING} stats:Lqupath/lib/roi/ClosedShapeStatistics; x:[F y:[F",
        None,
    ),
    ROIS + "PolylineROI$SerializationProxy": (1, _PLAIN, f"{_PLANE} x:[F y:[F", None),
    ROIS + "PointsROI$SerializationProxy": (1, _PLAIN, f"{_PLANE} name:{_STRING} x:[F y:[F", None),
    ROIS + "GeometryROI$WKBSerializationProxy": (
        1,
        _PLAIN,
        f"{_PLANE} stats:Lqupath/lib/roi/GeometryROI$GeometryStats; wkb:[B",
        None,
    ),
}


class ClassTable:
    """The classes and shared constants of one file; those it lacks are made when first asked for.

    Parameters
    ----------
    classes
        The descriptors that the file already has, by name.
    """

    def __init__(self, classes: dict[str, ClassDesc]) -> None:
        self.classes = dict(classes)
        self._strings: dict[str, JavaString] = {}
        self._integers: dict[int, JavaObject] = {}
        for desc in classes.values():
            for field in desc.fields:
                if field.signature is not None:
                    self._strings.setdefault(field.signature.value, field.signature)

    def desc(self, name: str) -> ClassDesc:
        """Return the descriptor of a class.

        Raises
        ------
        UnexpectedError
            If the file's own descriptor says its objects are written in another way.
        """
        known = self.classes.get(name)
        if known is not None and name in _DECLARATIONS and known.flags != _DECLARATIONS[name][1]:
            raise UnexpectedError(f"the class {name} is described as no QuPath describes it")
        if known is None:
            uid, flags, declared, superclass = _DECLARATIONS[name]
            fields: list[Field] = []
            for declaration in declared.split():
                code, rest = declaration.split(":", 1)
                if len(code) == 1 and code in "DFIZ":
                    fields.append(Field(code, rest))
                else:
                    fields.append(Field(rest[0], code, self.shared_string(rest)))
            known = ClassDesc(
                name, uid, flags, tuple(fields), self.desc(superclass) if superclass else None
            )
            self.classes[name] = known
        return known

    def new(self, class_name: str, /, **values: bool | int | float | Content) -> JavaObject:
        """Return a new object of a class with fields; those not named are 0 or null.

        Raises
        ------
        UnexpectedError
            If the file has its own idea of the class, without these fields.
        """
        desc = self.desc(class_name)
        placed = 0
        data: list[ClassData] = []
        for each, (size, n_references, has_contents) in zip(desc.lineage, desc.layout, strict=True):
            primitives = bytearray(size)
            references: list[Content] = [None] * n_references
            for field, (form, place) in each.places.items():
                if field in values:
                    value = values[field]
                    placed += 1
                    if form and isinstance(value, (int, float)):
                        struct.pack_into(form, primitives, place, value)
                    elif not form and not isinstance(value, (int, float)):
                        references[place] = value
                    else:
                        raise UnexpectedError(
                            f"the class {class_name} has another kind of {field!r}"
                        )
            data.append(ClassData(bytes(primitives), references, [] if has_contents else None))
        if placed != len(values) or desc.flags & SC_EXTERNALIZABLE:
            raise UnexpectedError(f"the class {class_name} has other fields than QuPath's")
        return JavaObject(desc, data)

    def external(self, name: str, contents: list[Content]) -> JavaObject:
        """Return a new object of a class that writes itself."""
        if not self.desc(name).flags & SC_EXTERNALIZABLE:
            raise UnexpectedError(f"the class {name} is not written as QuPath does")
        return JavaObject(self.desc(name), [ClassData(b"", [], contents)])

    def array(self, name: str, values: bytes | list[Content]) -> JavaArray:
        """Return a new array: ``[F`` or ``[B`` of big-endian bytes, or one of objects."""
        return JavaArray(self.desc(name), values)

    def enum(self, name: str, constant: str) -> JavaEnum:
        """Return a constant of an enum."""
        return JavaEnum(self.desc(name), JavaString.of(constant))

    def shared_string(self, text: str) -> JavaString:
        """Return the one string object used for a text that recurs, as keys and names do."""
        known = self._strings.get(text)
        if known is None:
            known = self._strings[text] = JavaString.of(text)
        return known

    def integer(self, value: int) -> JavaObject:
        """Return the one ``Integer`` object used for a number."""
        known = self._integers.get(value)
        if known is None:
            known = self._integers[value] = self.new(INTEGER, value=value)
        return known

    def shared(self) -> Iterator[Content | ClassDesc]:
        """Yield the classes and constants that objects refer to."""
        yield from self.classes.values()
        yield from self._strings.values()
        yield from self._integers.values()

    def adopt(self, shared: Iterable[Content]) -> None:
        """Use these strings and integers of the file wherever their values recur."""
        for node in shared:
            if isinstance(node, JavaString):
                self._strings.setdefault(node.value, node)
            elif isinstance(node, JavaObject) and node.desc.name == INTEGER:
                self._integers.setdefault(node.expect("value", int), node)

    def array_list(self, values: Sequence[Content]) -> JavaObject:
        """Return a new ``ArrayList``."""
        made = self.new("java.util.ArrayList", size=len(values))
        made.contents.extend((struct.pack(">i", len(values)), *values))
        return made

    def shared_names(self, names: Sequence[str]) -> tuple[JavaObject, JavaObject]:
        """Return names of measurements as a ``Map`` of their places, and as a ``List``."""
        indices = self.new("java.util.HashMap", loadFactor=0.75, threshold=0)
        n_buckets = max(16, 1 << (4 * len(names) // 3).bit_length())
        indices.contents.append(struct.pack(">ii", n_buckets, len(names)))
        for i, name in enumerate(names):
            indices.contents.extend([self.shared_string(name), self.integer(i)])
        listed = self.new("java.util.CollSer", tag=_LIST_OF)
        listed.contents.append(struct.pack(">i", len(names)))
        listed.contents.extend(self.shared_string(name) for name in names)
        return indices, listed
