"""Fingerprints of the slides of a project, by which they are known again elsewhere.

Kept in ``qpannot/slides.json`` of the project's folder. Deleting it loses no more than certainty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from qpannot.errors import FormatError, ProjectError, SlideError
from qpannot.qupath import Project, ProjectImage
from qpannot.qupath.files import HOUSE, ProjectFiles
from qpannot.qupath.server import is_there
from qpannot.slide.fingerprint import SlideFingerprint, fingerprint_slide

FORMAT = 1


class KnownSlide(BaseModel):
    """A slide as it was when it was seen at ``uri``."""

    uri: str
    size_bytes: int
    digest: str

    @property
    def fingerprint(self) -> SlideFingerprint:
        """What it is known by."""
        return SlideFingerprint(self.size_bytes, self.digest)


class _KnownSlides(BaseModel):
    format: int = FORMAT
    slides: dict[str, KnownSlide] = Field(default_factory=dict)


def known_slides(project: Project) -> dict[str, SlideFingerprint]:
    """Return the fingerprints of a project's slides, by image ID.

    Those of images that point elsewhere since, because a person changed that, are left out.

    Raises
    ------
    FormatError
        When the record cannot be understood.
    """
    recorded = _read(_path(project.folder)).slides
    return {
        image.id: recorded[image.id].fingerprint
        for image in project.images
        if image.id in recorded and image.server.uris[:1] == (recorded[image.id].uri,)
    }


def remember_slides(
    project: Project,
    images: Iterable[ProjectImage],
    fingerprints: Mapping[str, SlideFingerprint] | None = None,
) -> None:
    """Record the fingerprints of images' slides, in one write.

    Slides that are known already, or cannot be read now, are left as they are.

    Parameters
    ----------
    fingerprints
        Those that were taken already, by image ID; they are recorded though they be known.
    """
    given = fingerprints or {}
    known = known_slides(project)
    new: dict[str, KnownSlide] = {}
    for image in images:
        uris, path = image.server.uris, image.path
        if len(uris) != 1:
            continue
        fingerprint = given.get(image.id)
        if fingerprint is None and image.id not in known and path and is_there(path):
            try:
                fingerprint = fingerprint_slide(path)
            except SlideError:
                continue  # whoever needs its pixels says so
        if fingerprint:
            new[image.id] = KnownSlide(
                uri=uris[0], size_bytes=fingerprint.size_bytes, digest=fingerprint.digest
            )
    if not new:
        return

    path = _path(project.folder)

    def change(old: bytes | None) -> bytes:
        record = _parse(path, old) if old else _KnownSlides()
        record.slides.update(new)
        return (record.model_dump_json(indent=1) + "\n").encode()

    ProjectFiles(project.folder).edit(path, change, keeps_snapshot=False)


def _path(folder: Path) -> Path:
    return folder / HOUSE / "slides.json"


def _read(path: Path) -> _KnownSlides:
    try:
        return _parse(path, path.read_bytes())
    except FileNotFoundError:
        return _KnownSlides()
    except OSError as error:
        raise ProjectError(path, f"cannot be read ({error.strerror or error}).") from error


def _parse(path: Path, data: bytes) -> _KnownSlides:
    try:
        return _KnownSlides.model_validate_json(data)
    except ValidationError as error:
        raise FormatError(
            path,
            f"not qpannot's record of slides ({error.errors()[0]['msg']}).",
            hint="Move the file away: slides are then known by their pictures alone.",
        ) from None
