"""Between project entries and slide files: the slide of an entry, an entry for a slide.

The one place where the rooms ``qupath`` and ``slide`` meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qpannot.errors import MissingSlideError, QpannotError, SlideError, UsageError
from qpannot.geometry import Mpp, Size
from qpannot.qupath import ImageChanges, ImageSource, Project, ProjectImage, open_project
from qpannot.qupath.server import (
    DAMAGED,
    OPENSLIDE,
    Rotation,
    ServerInfo,
    is_there,
    name_from_uri,
    uri_from_path,
)
from qpannot.slide import Slide, open_slide

THUMBNAIL = Size(1000, 600)
"""The size QuPath's thumbnails fit into, in pixels."""


def open_image(image: ProjectImage, *, fallback_mpp: Mpp | None = None) -> Slide:
    """Open the slide of a project's image in QuPath's frame.

    Its resolution is the project's (users correct it there), else the file's, else
    ``fallback_mpp``, else unknown. Rotations and crops of the entry are applied.

    Raises
    ------
    MissingSlideError
        When the file is not where the project says.
    SlideError
        When it cannot be opened, when its size is not what the project says, or when the entry
        transforms it in a way qpannot cannot follow.
    """
    info = image.server
    path = image.path
    if info.unsupported == DAMAGED:
        raise SlideError(
            image.name,
            "its entry in the project is damaged.",
            hint="Remove the image in QuPath (not its data) and add the slide again.",
        )
    if info.unsupported or len(info.uris) != 1:
        raise SlideError(
            image.name,
            f"its pixels are made by QuPath ({info.unsupported or 'several files'}), "
            "which qpannot cannot do.",
            hint="Export the image from QuPath as OME-TIFF and add that to the project.",
        )
    if path is None:
        raise SlideError(
            image.name,
            f"is no local file ({info.uris[0]}).",
            hint="Copy the slide here and relink it: qpannot relink PROJECT FOLDER",
        )
    if not is_there(path):
        raise MissingSlideError(
            image.name,
            f"the slide is not at {path}.",
            hint="If it moved, tell where slides are now: qpannot relink PROJECT FOLDER",
        )
    crops = [info.crop_to_bounds, not info.crop_to_bounds]
    if info.provider and info.provider != OPENSLIDE:
        crops.reverse()  # only QuPath's OpenSlide reader crops to the bounds
    sizes = []
    for crop in crops:
        with open_slide(path, crop_to_bounds=crop, series=info.series) as slide:
            sizes.append(slide.size)
        if info.file_size in (None, slide.size):
            return _with_resolution(_in_frame(path, info, crop), path, info, crop, fallback_mpp)
    raise SlideError(
        image.name,
        f"{path} is {sizes[0]}, but the project says {info.file_size}.",
        hint="It is another file, or another image of it. Relink the entry to the right one: "
        "qpannot relink PROJECT FOLDER",
    )


def _in_frame(path: Path, info: ServerInfo, crop: bool, mpp: Mpp | None = None) -> Slide:
    slide = open_slide(path, crop_to_bounds=crop, mpp=mpp, series=info.series)
    for transform in info.transforms:
        if isinstance(transform, Rotation):
            slide = slide.rotated(transform.quarter_turns)
        else:
            slide = slide.cropped(transform.region)
    return slide


def _with_resolution(
    slide: Slide, path: Path, info: ServerInfo, crop: bool, fallback_mpp: Mpp | None
) -> Slide:
    wanted = info.mpp or slide.mpp_or_none or fallback_mpp
    if wanted is None or wanted == slide.mpp_or_none:
        return slide
    slide.close()
    turns = sum(t.quarter_turns for t in info.transforms if isinstance(t, Rotation))
    in_file = Mpp(wanted.y, wanted.x) if turns % 2 else wanted
    return _in_frame(path, info, crop, in_file)


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
    images
        How many images the project has now.
    """

    project: Path | None = None
    added: list[ProjectImage] = field(default_factory=list)
    known: list[Path] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, QpannotError]] = field(default_factory=list)
    images: int = 0


def add_slides(
    output: Path,
    files: Iterable[Path],
    *,
    mpp: Mpp | None = None,
    image_type: str = "UNSET",
    each: Callable[[Path, int, int], None] = lambda file, done, total: None,
) -> AddedSlides:
    """Add slide files to a project that is made if need be; those it has already are left alone.

    Parameters
    ----------
    output
        The project's folder or ``.qpproj`` file.
    mpp, image_type
        As `describe_slide`.
    each
        Called before each file with it, how many are done and how many there are.
    """
    result = AddedSlides()
    exists = output.is_file() or any(output.glob("*.qpproj"))
    project = open_project(output, "r+") if exists else None
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
            project = project or open_project(output, "x")
            result.added += project.add_images(described)
            described.clear()
    if described:
        project = project or open_project(output, "x")
        result.added += project.add_images(described)
    if project:
        result.project, result.images = project.path, len(project.images)
    return result


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


@dataclass(frozen=True)
class Relinked:
    """An image whose slide was found in another place, or was not."""

    image: ProjectImage
    found: Path | None
    why: str = ""


def relink(project: Project, folders: Sequence[Path]) -> list[Relinked]:
    """Point the images whose slides are missing to where they are now.

    A slide is taken when it has the file name and the size in pixels the project states, and can
    be read.

    Parameters
    ----------
    folders
        Searched to their depths.

    Returns
    -------
    list of Relinked
        One for each image whose slide was missing.
    """
    missing = [image for image in project.images if not is_there(image.path)]
    by_name: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                by_name.setdefault(path.name, []).append(path)
    results = []
    changes = {}
    for image in missing:
        uri = image.server.uris[0] if image.server.uris else ""
        candidates = by_name.get(name_from_uri(uri), [])
        found, why = None, f"no file named {name_from_uri(uri)}"
        for path in candidates:
            if why := _mismatch(path, image.server):
                continue
            found = path
            changes[image.id] = ImageChanges(uris={uri: uri_from_path(path)})
            break
        results.append(Relinked(image, found, why))
    if changes:
        project.update_images(changes)
    return results


def _mismatch(path: Path, info: ServerInfo) -> str:
    reasons = []
    for crop in (True, False):
        try:
            with open_slide(path, crop_to_bounds=crop, series=info.series) as slide:
                if info.file_size in (None, slide.size):
                    slide.thumbnail(Size(256, 256))  # a file that was cut off opens, and no more
                    return ""
                reasons.append(f"{path} is {slide.size}, not {info.file_size}")
        except SlideError as error:
            reasons.append(str(error.message))
    return reasons[0]
