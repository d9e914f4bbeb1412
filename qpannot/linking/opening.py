"""The slide of a project's entry, in the frame in which QuPath shows it."""

from __future__ import annotations

import shlex
from pathlib import Path

from qpannot.errors import MissingSlideError, SlideError
from qpannot.geometry import Mpp, Size
from qpannot.qupath import ProjectImage
from qpannot.qupath.server import DAMAGED, OPENSLIDE, Rotation, ServerInfo, is_there
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
    try:
        slide, crop = open_as(path, info)
    except WrongSizeError as error:
        raise SlideError(
            image.name,
            f"{path} is {error.size}, but the project says {info.file_size}.",
            hint="It is another file, or another image of it. Point the entry to the right one: "
            f"qpannot relink PROJECT --image {shlex.quote(image.name)} FILE",
        ) from None
    return _with_resolution(slide, path, info, crop, fallback_mpp)


class WrongSizeError(SlideError):
    """A file has not the pixels the project states.

    Parameters
    ----------
    size
        The size it has, in pixels.
    """

    def __init__(self, path: Path, size: Size, wanted: Size | None) -> None:
        self.size = size
        super().__init__(path, f"is {size}, not {wanted}.")


def open_as(path: Path, info: ServerInfo) -> tuple[Slide, bool]:
    """Open a file as the slide an entry describes, turned and cropped as the entry says.

    Returns
    -------
    Slide, bool
        The slide, with the file's own resolution; whether OpenSlide's bounds were cropped to.

    Raises
    ------
    WrongSizeError
        When its size is not what the entry says.
    SlideError
        When it cannot be opened.
    """
    crops = [info.crop_to_bounds, not info.crop_to_bounds]
    if info.provider and info.provider != OPENSLIDE:
        crops.reverse()  # only QuPath's OpenSlide reader crops to the bounds
    sizes = []
    for crop in crops:
        slide = open_slide(path, crop_to_bounds=crop, series=info.series)
        if info.file_size in (None, slide.size):
            return _in_frame(slide, info), crop
        sizes.append(slide.size)
        slide.close()
    raise WrongSizeError(path, sizes[0], info.file_size)


def _in_frame(slide: Slide, info: ServerInfo) -> Slide:
    for transform in info.transforms:
        if isinstance(transform, Rotation):
            slide = slide.rotated(transform.quarter_turns)
            continue
        try:
            slide = slide.cropped(transform.region)
        except ValueError as error:
            slide.close()
            raise SlideError(
                slide.path,
                f"is smaller than the crop the project shows of it: {error}.",
                hint="Relink the entry to the right file: qpannot relink PROJECT FOLDER",
            ) from error
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
    return _in_frame(open_slide(path, crop_to_bounds=crop, mpp=in_file, series=info.series), info)
