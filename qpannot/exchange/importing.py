"""GeoJSON files, brought into the images of a project."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from qpannot.errors import ConcurrentChangeError, ProjectError, QpannotError
from qpannot.exchange.coordinates import check_are_pixels, count_outside
from qpannot.exchange.merging import merged
from qpannot.exchange.naming import images_of
from qpannot.qupath import Annotation, PathObject, Project, ProjectImage, TMACore
from qpannot.qupath.annotators import annotator_of, copied_for
from qpannot.qupath.geojson.fitting import (
    Remark,
    RepairedObject,
    SplitObject,
    differences,
    fit,
    label_of,
)
from qpannot.qupath.geojson.reading import read_geojson
from qpannot.qupath.proposals import imported_proposal, is_untouched

ATTEMPTS = 20
"""How often an image is begun anew because another program saved it meanwhile. Each time one of
those that write to it got further, so that several imports at once all end."""

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
    is_replaceable
        Whether ``replace`` would take the file's version.
    """

    id: UUID
    label: str
    differs_in: tuple[str, ...]
    is_replaceable: bool


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
    as_proposals: bool = False,
    by: str = "",
    as_pixels: bool = False,
    dry_run: bool = False,
    check: Callable[[ProjectImage], None] = lambda image: None,
    each: Callable[[ProjectImage, int, int], None] = lambda image, done, total: None,
) -> ImportResult:
    """Add the objects of GeoJSON files to images, each image in one safe write.

    What an image has already, by ID and value, is left alone, so that a second import changes
    nothing. What it has with other values is reported, and replaced only on demand. Of what a
    file does not state (`merging.merged`) the image's value holds. TMA cores are left out.

    Parameters
    ----------
    files
        Matched to images by their names (`naming.images_of`).
    image
        Where all files go, whatever their names.
    replace
        Take the files' version of annotations that the image has. Detections, cells and tiles
        are never replaced.
    as_proposals
        The files are a program's: their annotations wait for a person, as our own proposals do.
        Proposals that nobody touched since they were exported keep their origin.
    by
        The files are what this person drew, in another copy of the project perhaps: their
        annotations carry the name, and stand beside those of others, under IDs of their own
        (`qpannot.qupath.annotators`). What carries a name in the file keeps it.
    as_pixels
        Take coordinates for pixels that look like something else (`check_are_pixels`).
    dry_run
        Only tell what would happen.
    check
        Called before an image gets objects; what it raises leaves the image as it is.
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
        read = _read(plan, result, as_pixels=as_pixels)
        if not plan.files:
            continue
        if as_proposals:
            read = [(_as_proposal(object_), stated) for object_, stated in read]
        if by:
            read = [(_as_drawn_by(by, object_), stated) for object_, stated in read]
        try:
            _import(plan, read, replace=replace, dry_run=dry_run, check=check)
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


_Read = Sequence[tuple[PathObject, frozenset[str]]]
"""Objects of files, each with what its file states of it."""


def _read(plan: Imported, result: ImportResult, *, as_pixels: bool) -> _Read:
    read: list[tuple[PathObject, frozenset[str]]] = []
    readable: list[Path] = []
    for file in plan.files:
        try:
            content = read_geojson(file)
            if not as_pixels:
                check_are_pixels(file, content, plan.image.server.size)
        except QpannotError as error:
            result.failed.append((str(file), error))
            continue
        readable.append(file)
        read += [(each, content.stated[each.id]) for each in content.objects]
        # with several files, a place is only one with its file
        prefix = f"{file.name}: " if len(plan.files) > 1 else ""
        plan.repairs += [dataclasses.replace(r, where=prefix + r.where) for r in content.repairs]
        plan.splits += [dataclasses.replace(s, where=prefix + s.where) for s in content.splits]
        plan.left_out += [Remark(prefix + r.where, r.text) for r in content.left_out]
        plan.remarks += [Remark(prefix + r.where, r.text) for r in content.remarks]
    plan.files = readable
    return read


def _as_proposal(each: PathObject) -> PathObject:
    if not isinstance(each, Annotation) or not each.geometry.area or is_untouched(each):
        return each
    return imported_proposal(each)


def _as_drawn_by(name: str, each: PathObject) -> PathObject:
    if not isinstance(each, Annotation) or annotator_of(each):
        return each
    return copied_for(each, name)


def _import(
    plan: Imported,
    read: _Read,
    *,
    replace: bool,
    dry_run: bool,
    check: Callable[[ProjectImage], None],
) -> None:
    image = plan.image
    for attempt in range(1, ATTEMPTS + 1):
        before = image.fingerprint()
        decided = _decide(image.objects(), read, replace=replace)
        if decided.changes_something:
            check(image)
        if dry_run or not decided.changes_something:
            break
        try:
            image.write_annotations(
                add=decided.added, replace=decided.pairs, unless_changed_since=before
            )
            break
        except ConcurrentChangeError:
            if attempt == ATTEMPTS or image.fingerprint() == before:
                raise
    plan.added, plan.replaced = decided.added, [new for _, new in decided.pairs]
    plan.unchanged, plan.conflicts = decided.unchanged, decided.conflicts
    plan.left_out += decided.left_out
    plan.outside = count_outside([each for each, _ in read], image.server.size)
    if plan.outside * 2 > len(read):
        plan.warning = (
            f"{plan.outside} of {len(read)} objects lie outside the image "
            f"({image.server.size}). {OUTSIDE}"
        )


@dataclass
class _Decided:
    added: list[PathObject] = field(default_factory=list)
    pairs: list[tuple[Annotation, Annotation]] = field(default_factory=list)
    unchanged: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)

    @property
    def changes_something(self) -> bool:
        return bool(self.added or self.pairs)


def _decide(stored: Sequence[PathObject], read: _Read, *, replace: bool) -> _Decided:
    """Return what is to be done with the objects of files, given what the image holds."""
    decided = _Decided()
    known = {each.id: each for each in fit(stored).objects}
    as_read = {each.id: each for each in stored}
    for each, stated in read:
        there = known.get(each.id)
        old = as_read.get(each.id)
        if isinstance(each, TMACore):
            if there is None or differences(there, each):
                decided.left_out.append(Remark(str(each.id), f"{label_of(each)} {TMA_REASON}"))
            else:
                decided.unchanged += 1
            continue
        if there is None and old is None:
            decided.added.append(each)
            known[each.id] = each
            continue
        # what QuPath holds and GeoJSON could not, such as an outline without extent, differs in it
        differs_in: tuple[str, ...] = ("geometry",)
        is_same = False
        if there is not None:
            is_same = not {"kind", "class_name", "geometry"} & {*differences(there, each)}
            differs_in = differences(there, merged(each, there, stated, is_same=is_same))
            if not differs_in:
                decided.unchanged += 1
                continue
        is_replaceable = isinstance(each, Annotation) and isinstance(old, Annotation)
        if replace and isinstance(each, Annotation) and isinstance(old, Annotation):
            new = merged(each, old, stated, is_same=is_same).with_changes(parent_id=old.parent_id)
            decided.pairs.append((old, new))
            known[each.id] = each
            del as_read[each.id]  # another version in another file is a conflict with this one
            continue
        shown = there or old
        assert shown is not None
        decided.conflicts.append(Conflict(each.id, label_of(shown), differs_in, is_replaceable))
    return decided
