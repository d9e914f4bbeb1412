"""GeoJSON files, brought into the images of a project."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import numpy as np
import shapely

from qpannot.errors import ProjectError, QpannotError
from qpannot.exchange.naming import images_of
from qpannot.geometry import Size
from qpannot.qupath import Annotation, PathObject, Project, ProjectImage, TMACore
from qpannot.qupath.geojson.fitting import (
    Remark,
    RepairedObject,
    SplitObject,
    differences,
    fit,
    label_of,
)
from qpannot.qupath.geojson.reading import read_geojson

TMA_REASON = "is a TMA core, which only QuPath's TMA dearrayer can place"

OUTSIDE = (
    "They are of another image or resolution, or shifted: QuPath crops slides to the bounds that "
    "the scanner gives, and other tools count from the corner of the whole slide."
)


@dataclass(frozen=True)
class Conflict:
    """An object that the image has already, with other values; it was left as it is.

    Parameters
    ----------
    id, label
        Of the object in the image.
    differs_in
        The names of what differs.
    """

    id: UUID
    label: str
    differs_in: tuple[str, ...]


@dataclass
class Imported:
    """What became of the files of one image.

    Parameters
    ----------
    image, files
        The image, and the files it got objects from.
    added, replaced
        The objects that are new, and the annotations that took the place of an older version.
    unchanged
        How many the image had already, just so.
    conflicts
        Objects it has with other values, which were left alone.
    repairs, splits, left_out, remarks
        What differs from the files, by place in them.
    outside
        How many objects lie outside the image, by their centres.
    warning
        What speaks against the files being of this image, empty if nothing does.
    """

    image: ProjectImage
    files: list[Path] = field(default_factory=list)
    added: list[PathObject] = field(default_factory=list)
    replaced: list[Annotation] = field(default_factory=list)
    unchanged: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    repairs: list[RepairedObject] = field(default_factory=list)
    splits: list[SplitObject] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    outside: int = 0
    warning: str = ""


@dataclass
class ImportResult:
    """What became of all files, and of those that could not be used."""

    images: list[Imported] = field(default_factory=list)
    failed: list[tuple[str, QpannotError]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all that the files hold is in the project now, where it belongs."""
        return not self.failed and not any(
            image.conflicts or image.left_out or (image.warning and image.added)
            for image in self.images
        )


def import_geojson(
    project: Project,
    files: Sequence[Path],
    *,
    image: ProjectImage | None = None,
    replace: bool = False,
    dry_run: bool = False,
    each: Callable[[ProjectImage, int, int], None] = lambda image, done, total: None,
) -> ImportResult:
    """Add the objects of GeoJSON files to images, each image in one safe write.

    What an image has already, by ID and value, is left alone, so that a second import changes
    nothing. What it has with other values is reported, and replaced only on demand. TMA cores
    are left out.

    Parameters
    ----------
    files
        Matched to images by their names (`naming.images_of`).
    image
        Where all files go, whatever their names.
    replace
        Take the files' version of annotations that the image has. Detections, cells and tiles
        are never replaced.
    dry_run
        Only tell what would happen.
    each
        Called before each image with it, how many are done and how many there are.
    """
    result = ImportResult()
    wanted: dict[str, Imported] = {}
    for file in files:
        try:
            target = image or _image_of(file, project)
        except QpannotError as error:
            result.failed.append((str(file), error))
            continue
        wanted.setdefault(target.id, Imported(target)).files.append(file)
    for done, plan in enumerate(wanted.values()):
        each(plan.image, done, len(wanted))
        objects = _read(plan, result)
        if not plan.files:
            continue
        try:
            _import(plan, objects, replace=replace, dry_run=dry_run)
        except QpannotError as error:
            result.failed.append((plan.image.name, error))
            continue
        result.images.append(plan)
    return result


def _image_of(file: Path, project: Project) -> ProjectImage:
    found = images_of(file, project.images)
    if len(found) == 1:
        return found[0]
    reason = "no image of the project has this name."
    if found:
        names = ", ".join(f"{image.name} (ID {image.id})" for image in found)
        reason = f"several images have this name: {names}."
    raise ProjectError(
        file, reason, hint="Say which image it belongs to: --image with its name or ID."
    )


def _read(plan: Imported, result: ImportResult) -> list[PathObject]:
    objects: list[PathObject] = []
    readable: list[Path] = []
    for file in plan.files:
        try:
            content = read_geojson(file)
        except QpannotError as error:
            result.failed.append((str(file), error))
            continue
        readable.append(file)
        objects += content.objects
        # with several files, a place is only one with its file
        prefix = f"{file.name}: " if len(plan.files) > 1 else ""
        plan.repairs += [dataclasses.replace(r, where=prefix + r.where) for r in content.repairs]
        plan.splits += [dataclasses.replace(s, where=prefix + s.where) for s in content.splits]
        plan.left_out += [Remark(prefix + r.where, r.text) for r in content.left_out]
        plan.remarks += [Remark(prefix + r.where, r.text) for r in content.remarks]
    plan.files = readable
    return objects


def _import(plan: Imported, objects: Sequence[PathObject], *, replace: bool, dry_run: bool) -> None:
    image = plan.image
    before = image.fingerprint()
    stored = image.objects()
    known = {each.id: each for each in fit(stored).objects}
    as_read = {each.id: each for each in stored}
    pairs: list[tuple[Annotation, Annotation]] = []
    for each in objects:
        there = known.get(each.id)
        old = as_read.get(each.id)
        if isinstance(each, TMACore):
            if there is None or differences(there, each):
                plan.left_out.append(Remark(str(each.id), f"{label_of(each)} {TMA_REASON}"))
            else:
                plan.unchanged += 1
        elif there is None and old is None:
            plan.added.append(each)
            known[each.id] = each
        elif there is not None and not (different := differences(there, each)):
            plan.unchanged += 1
        elif replace and isinstance(each, Annotation) and isinstance(old, Annotation):
            new = each.with_changes(parent_id=old.parent_id)
            pairs.append((old, new))
            plan.replaced.append(new)
            known[each.id] = each
            del as_read[each.id]  # another version in another file is a conflict with this one
        else:
            shown = there or old
            assert shown is not None
            fields = different if there is not None else ("geometry",)
            plan.conflicts.append(Conflict(each.id, label_of(shown), fields))
    plan.outside = _count_outside(objects, image.server.size)
    if plan.outside * 2 > len(objects):
        plan.warning = (
            f"{plan.outside} of {len(objects)} objects lie outside the image "
            f"({image.server.size}). {OUTSIDE}"
        )
    if not dry_run and (plan.added or pairs):
        image.write_annotations(add=plan.added, replace=pairs, unless_changed_since=before)


def _count_outside(objects: Sequence[PathObject], size: Size | None) -> int:
    if size is None or not objects:
        return 0
    geometries = np.empty(len(objects), dtype=object)
    geometries[:] = [each.geometry for each in objects]
    x, y, x2, y2 = shapely.bounds(geometries).T
    middle_x, middle_y = (x + x2) / 2, (y + y2) / 2
    inside = (
        (middle_x >= 0) & (middle_y >= 0) & (middle_x <= size.width) & (middle_y <= size.height)
    )
    return int((~inside).sum())
