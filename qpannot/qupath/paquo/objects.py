"""QuPath's ``PathObject``s in Java <-> `PathObject` values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from jpype import JClass, JDouble, JInt, JString

from qpannot.qupath.annotation import (
    Annotation,
    Color,
    Detection,
    ObjectKind,
    PathClass,
    PathObject,
    TMACore,
    argb_from_color,
    color_from_argb,
)
from qpannot.qupath.paquo.regions import make_region, read_region
from qpannot.qupath.paquo.versions import object_metadata, set_object_metadata
from qpannot.qupath.qpdata.hierarchy import assign_ids, assign_other_ids
from qpannot.qupath.qpdata.pathobjects import KINDS
from qpannot.qupath.qpdata.roi import Shape, geometries_of, shapes_of
from qpannot.qupath.qpdata.storable import (
    CLASS_SEPARATOR,
    DEFAULT_CLASS_COLOR,
    class_parts,
    without_id,
)


class JavaPathObject:
    """An object of the hierarchy, over its ``PathObject`` in Java.

    Parameters
    ----------
    java
        The ``PathObject``.
    parent
        The object it lies in, ``None`` for the root.
    stored_id
        The number of the ID that the file has for it, ``None`` where QuPath made one up.
    """

    __slots__ = ("children", "id", "java", "kind", "parent", "stored_id")

    def __init__(self, java: Any, parent: JavaPathObject | None, stored_id: int | None) -> None:
        self.java = java
        self.parent = parent
        self.stored_id = stored_id
        self.kind: str = type(java).__name__.rpartition(".")[2]
        self.children: list[JavaPathObject] = []
        self.id: int | None = None

    @property
    def is_annotation(self) -> bool:
        """Whether QuPath counts it among the annotations."""
        return self.kind == "PathAnnotationObject"

    def set_children(self, children: Sequence[JavaPathObject]) -> None:
        """Give the object these children, in this order."""
        self.java.clearChildObjects()
        self.append_children(children)
        self.children = list(children)

    def append_children(self, children: Sequence[JavaPathObject]) -> None:
        """Put more children behind those that are there."""
        listed = JClass("java.util.ArrayList")(len(children))
        for child in children:
            listed.add(child.java)
            child.parent = self
        self.java.addChildObjects(listed)
        self.children += children


def read_tree(root: Any, again: Any = None) -> JavaPathObject:
    """Return the hierarchy under a Java root object.

    Parameters
    ----------
    again
        The root of a second reading of the file. QuPath makes up the IDs that a file lacks, others
        each time: those tell.
    """
    tree = JavaPathObject(root, None, None)
    pending = [(tree, again)]
    while pending:
        parent, twin = pending.pop()
        if not parent.java.hasChildObjects():
            continue
        found = parent.java.getChildObjectsAsArray()
        twins = [None] * len(found) if twin is None else twin.getChildObjectsAsArray()
        for java, other in zip(found, twins, strict=True):
            own = java.getID()
            made_up = other is not None and not own.equals(other.getID())
            stored = None if made_up else UUID(str(own)).int
            parent.children.append(JavaPathObject(java, parent, stored))
        pending.extend(zip(parent.children, twins, strict=True))
    return tree


def give_ids(tree: JavaPathObject) -> tuple[dict[int, JavaPathObject], dict[int, JavaPathObject]]:
    """Give every object its ID, or one that follows from its place where the file has none.

    Returns
    -------
    tuple
        The annotations and the objects around others by ID, and all objects, depth-first.
    """
    known, _ = assign_ids(tree)
    everything = assign_other_ids(tree, known)
    for own, each in everything.items():
        if own != each.stored_id:
            each.java.setID(JClass("java.util.UUID").fromString(str(UUID(int=own))))
    return known, everything


def read_objects(objects: Sequence[JavaPathObject]) -> list[PathObject]:
    """Return objects of a hierarchy, which have IDs and are of known kinds, as values.

    Raises
    ------
    UnexpectedError
        If a region has impossible vertices.
    """
    regions = [read_region(each.java.getROI()) for each in objects]
    nuclei = [
        read_region(each.java.getNucleusROI())[0] if each.kind == "PathCellObject" else None
        for each in objects
    ]
    geometries = geometries_of([shape for shape, _ in regions])
    outlines = geometries_of(nuclei)
    classes: dict[Any, PathClass | None] = {}
    values: list[PathObject] = []
    for i, (each, (shape, plane)) in enumerate(zip(objects, regions, strict=True)):
        java = each.java
        java_class = java.getPathClass()
        if java_class not in classes:
            classes[java_class] = path_class_of(java_class)
        name, color = java.getName(), java.getColor()
        assert each.id is not None and each.parent is not None
        fields: dict[str, Any] = {
            "geometry": geometries[i],
            "path_class": classes[java_class],
            "name": None if name is None else str(name),
            "locked": bool(java.isLocked()),
            "color": None if color is None else color_from_argb(int(color)),
            "measurements": _measurements(java),
            "metadata": object_metadata(java),
            "roi": None if shape is None else shape.roi,
            "plane": plane,
            "id": UUID(int=each.id),
            "parent_id": None if each.parent.id is None else UUID(int=each.parent.id),
        }
        kind = KINDS[each.kind]
        if kind is ObjectKind.ANNOTATION:
            values.append(Annotation(**fields))
        elif kind is ObjectKind.TMA_CORE:
            values.append(TMACore(**fields, missing=bool(java.isMissing())))
        else:
            nucleus = outlines[i] if nuclei[i] is not None else None
            values.append(Detection(**fields, kind=kind, nucleus=nucleus))
    return values


def _measurements(java: Any) -> dict[str, float]:
    if not java.hasMeasurements():
        return {}
    entries = java.getMeasurements().entrySet()
    return {str(each.getKey()): float(each.getValue()) for each in entries}


def path_class_of(java_class: Any) -> PathClass | None:
    """Return a Java ``PathClass`` as a value; QuPath's nameless class is no class."""
    if java_class is None or not java_class.isValid():
        return None
    color = java_class.getColor()
    return PathClass(str(java_class), None if color is None else color_from_argb(int(color)))


class JavaClasses:
    """The Java ``PathClass`` objects of one file, by their full names.

    Parameters
    ----------
    objects
        The objects of the file.
    """

    def __init__(self, objects: Sequence[JavaPathObject]) -> None:
        self._known: dict[str, Any] = {}
        for java_class in {each.java.getPathClass() for each in objects}:
            while java_class is not None and java_class.isValid():
                self._known.setdefault(str(java_class), java_class)
                java_class = java_class.getParentClass()

    def stored(self, path_class: PathClass) -> PathClass | None:
        """Return a class in the colour the file has it in, ``None`` where it has not the class."""
        return path_class_of(self._known.get(CLASS_SEPARATOR.join(class_parts(path_class))))

    def java(self, path_class: PathClass | None) -> Any:
        """Return the Java object of a class, which is made where the file has not the class."""
        if path_class is None:
            return None
        java_class = None
        parts = class_parts(path_class)
        for depth, part in enumerate(parts, 1):
            name = CLASS_SEPARATOR.join(parts[:depth])
            if name not in self._known:
                own = path_class.color if depth == len(parts) else None
                color = _integer(own or DEFAULT_CLASS_COLOR)
                make = JClass("qupath.lib.objects.classes.PathClass").getInstance
                self._known[name] = make(java_class, JString(part), color)
            java_class = self._known[name]
        return java_class


def make_object(
    value: PathObject, shape: Shape, nucleus: Shape | None, classes: JavaClasses
) -> Any:
    """Return a new Java ``PathObject`` without children."""
    objects = JClass("qupath.lib.objects.PathObjects")
    roi, java_class = make_region(shape, value.plane), classes.java(value.path_class)
    numbers = _new_measurements(len(value.measurements))
    if value.kind is ObjectKind.CELL:
        inner = None if nucleus is None else make_region(nucleus, value.plane)
        java = objects.createCellObject(roi, inner, java_class, numbers)
    else:
        make = {
            ObjectKind.ANNOTATION: objects.createAnnotationObject,
            ObjectKind.DETECTION: objects.createDetectionObject,
            ObjectKind.TILE: objects.createTileObject,
        }[value.kind]
        java = make(roi, java_class, numbers)
    java.setID(JClass("java.util.UUID").fromString(str(value.id)))
    if value.name is not None:
        java.setName(JString(value.name))
    if value.color is not None:
        java.setColor(_integer(value.color))
    java.setLocked(value.locked)
    _set_measurements(java, value)
    set_object_metadata(java, without_id(value.metadata))
    return java


def is_same_region(java: Any, old: PathObject, new: PathObject) -> bool:
    """Tell whether the region of a Java ``PathObject``, which is ``old``, does for ``new``."""
    if old.plane != new.plane:
        return False
    if old.roi == new.roi and old.geometry.equals_exact(new.geometry, 0, normalize=False):
        return True
    return bool(read_region(java.getROI())[0] == shapes_of([new])[0])


def update_object(java: Any, old: PathObject, new: PathObject, classes: JavaClasses) -> None:
    """Change what differs, but for the region, between ``old``, which it is, and ``new``."""
    if old.path_class != new.path_class:
        java.setPathClass(classes.java(new.path_class))
    if old.name != new.name:
        java.setName(None if new.name is None else JString(new.name))
    if old.color != new.color:
        java.setColor(None if new.color is None else _integer(new.color))
    if old.locked != new.locked:
        java.setLocked(new.locked)
    if repr(dict(old.measurements)) != repr(dict(new.measurements)):  # NaN is NaN, -0.0 is not 0.0
        java.getMeasurements().clear()
        _set_measurements(java, new)
    if list(old.metadata.items()) != list(without_id(new.metadata).items()):
        set_object_metadata(java, without_id(new.metadata))


def _new_measurements(count: int) -> Any:
    """Return an empty list of numbers; without one QuPath keeps those of detections as floats."""
    if not count:
        return None
    kinds = JClass("qupath.lib.measurements.MeasurementList$MeasurementListType")
    make = JClass("qupath.lib.measurements.MeasurementListFactory").createMeasurementList
    return make(count, kinds.GENERAL)


def _set_measurements(java: Any, value: PathObject) -> None:
    if value.measurements:
        measurements = java.getMeasurements()
        for name, number in value.measurements.items():
            measurements.put(JString(name), JClass("java.lang.Double")(JDouble(number)))


def _integer(color: Color) -> Any:
    return JClass("java.lang.Integer")(JInt(argb_from_color(color)))
