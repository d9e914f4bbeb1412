"""Slide files as images to be added to a project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qpannot.errors import QpannotError, SlideError, UsageError
from qpannot.geometry import Mpp
from qpannot.linking.known import remember_slides
from qpannot.linking.opening import THUMBNAIL
from qpannot.linking.resolution import state_mpp
from qpannot.qupath import Backend, ImageSource, Project, ProjectImage, open_project
from qpannot.qupath.server import is_there
from qpannot.slide import open_slide


def describe_slide(
    path: Path,
    *,
    mpp: Mpp | None = None,
    image_type: str = "UNSET",
    metadata: Mapping[str, str] | None = None,
) -> ImageSource:
    """Return a slide file as an image to be added to a project, with its thumbnail.

    Parameters
    ----------
    mpp
        Taken where the file does not tell.

    Raises
    ------
    SlideError
        When it cannot be opened, or is no 8-bit RGB image.
    """
    with open_slide(path) as slide:
        if not slide.is_rgb:
            raise SlideError(
                path,
                f"is not 8-bit RGB ({slide.n_channels} channels of {slide.pixel_type}).",
                hint="qpannot works on brightfield slides; add other images from QuPath.",
            )
        return ImageSource(
            path=path.absolute(),
            reader="openslide" if slide.format == "openslide" else "bioformats",
            size=slide.size,
            level_sizes=slide.file_level_sizes,
            uncropped_size=slide.file_level_sizes[0],
            mpp=slide.mpp_or_none or mpp,
            magnification=slide.objective_power,
            tile_size=slide.tile_size,
            thumbnail=slide.thumbnail(THUMBNAIL),
            image_type=image_type,
            metadata=metadata or {},
            identity=slide.identity,
        )


def identify_slide(path: Path) -> str | None:
    """Return what the files of one slide share (DICOM's series); ``None`` where it is one file."""
    with open_slide(path) as slide:
        return slide.identity


@dataclass
class AddedSlides:
    """What became of slides that were to be added to a project.

    Parameters
    ----------
    project
        The ``.qpproj`` file; ``None`` when there was none and no slide could be added to a new one.
    added, known
        The images that were added; files the project had already.
    parts
        Files of a slide that was added by another of its files (DICOM).
    failed
        Files that could not be added, each with the error.
    stated
        How many of the known images got the resolution that was given, since nothing told it.
    images
        How many images the project has now.
    """

    project: Path | None = None
    added: list[ProjectImage] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, QpannotError]] = field(default_factory=list)
    stated: int = 0
    images: int = 0


def add_slides(
    output: Path,
    files: Iterable[Path],
    *,
    mpp: Mpp | None = None,
    image_type: str = "UNSET",
    backend: Backend = "auto",
    each: Callable[[Path, int, int], None] = lambda file, done, total: None,
) -> AddedSlides:
    """Add slide files to a project that is made if need be.

    Those it has already are left alone, but for a resolution that nothing told yet.

    Parameters
    ----------
    output
        The project's folder or ``.qpproj`` file.
    mpp, image_type
        As `describe_slide`.
    backend
        As `open_project`.
    each
        Called before each file with it, how many are done and how many there are.
    """
    result = AddedSlides()
    exists = output.is_file() or any(output.glob("*.qpproj"))
    project = open_project(output, "r+", backend) if exists else None
    linked = {image.path.resolve() for image in project.images if image.path} if project else set()
    identities = {
        identify_slide(path) for path in linked if path.suffix.lower() == ".dcm" and is_there(path)
    }
    new: list[Path] = []
    for file in files:
        (result.known if file.resolve() in linked else new).append(file)
    described: list[ImageSource] = []
    for done, file in enumerate(new):
        each(file, done, len(new))
        try:
            source = describe_slide(file, mpp=mpp, image_type=image_type)
        except QpannotError as error:
            result.failed.append((file, error))
            continue
        if source.identity and source.identity in identities:
            result.parts.append(file)
            continue
        identities.add(source.identity)
        described.append(source)
        if len(described) == ADDED_AT_ONCE:
            project = project or open_project(output, "x", backend)
            result.added += _add(project, described)
            described.clear()
    if described:
        project = project or open_project(output, "x", backend)
        result.added += _add(project, described)
    if project and mpp and result.known:
        files_known = {file.resolve() for file in result.known}
        known = [
            each for each in project.images if each.path and each.path.resolve() in files_known
        ]
        result.stated = len(state_mpp(project, known, mpp))
    if project:
        result.project, result.images = project.path, len(project.images)
    return result


def _add(project: Project, described: Sequence[ImageSource]) -> Sequence[ProjectImage]:
    added = project.add_images(described)
    remember_slides(project, added)
    return added


ADDED_AT_ONCE = 50
"""Slides added to the project file in one write."""

SLIDE_SUFFIXES = frozenset(
    ".svs .ndpi .mrxs .scn .tif .tiff .vms .vmu .bif .svslide .czi .dcm".split()
)
"""Files taken for slides when a folder is given. PNG and JPEG are taken when they are named: in
folders they are labels and thumbnails more often than slides."""


def find_slides(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the slide files that files and folders stand for, each once, folders sorted.

    A folder is searched to its depths, but for what belongs to a QuPath project in it.

    Raises
    ------
    UsageError
        When a path does not exist, or a folder holds no slide.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder.")
        files = [path] if path.is_file() else sorted(_slides_below(path))
        if not files:
            raise UsageError(
                f"{path}: no slides in this folder.",
                hint=f"Looked for {' '.join(sorted(SLIDE_SUFFIXES))}",
            )
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _slides_below(folder: Path) -> Iterator[Path]:
    ours = {"data", "qpannot", "classifiers", "scripts"} if any(folder.glob("*.qpproj")) else set()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or (entry.name in ours and entry.is_dir()):
            continue
        if entry.is_dir():
            beside_mrxs = entry.with_suffix(".mrxs").is_file()
            if not beside_mrxs:
                yield from _slides_below(entry)
        elif entry.suffix.lower() in SLIDE_SUFFIXES:
            yield entry
