"""Pictures of a whole project, as ``--pictures`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from qpannot.bootstrap.states import ImageStatus
from qpannot.console import progress
from qpannot.errors import QpannotError, SlideError
from qpannot.geometry import Size
from qpannot.linking import THUMBNAIL, open_image
from qpannot.pictures import CELL, captioned, contact_sheet, file_name, outlined, read_thumbnail
from qpannot.qupath import ProjectImage


def write_pictures(
    statuses: Sequence[ImageStatus], folder: Path
) -> tuple[dict[str, Path], list[tuple[ProjectImage, QpannotError]]]:
    """Write a picture of every image, annotations outlined, and ``overview.png`` with all of them.

    Returns
    -------
    dict, list
        The pictures by image ID; the images without one, each with the error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    failed: list[tuple[ProjectImage, QpannotError]] = []
    cells: list[tuple[Image.Image, str]] = []
    with progress("Drawing") as advance:
        for done, status in enumerate(statuses):
            image = status.image
            advance(image.name, done, len(statuses))
            try:
                overview, size = _overview(image)
                annotations = image.annotations()
            except QpannotError as error:
                failed.append((image, error))
                continue
            caption = f"{image.name} - {status.state}"
            path = folder / file_name(image.id, image.name)
            captioned(outlined(overview, size, annotations), caption).save(path)
            written[image.id] = path
            small = Image.fromarray(overview)
            small.thumbnail((CELL.width, CELL.height), Image.Resampling.BOX)
            cells.append((outlined(np.asarray(small), size, annotations), caption))
    if cells:
        contact_sheet(cells).save(folder / "overview.png")
    return written, failed


def _overview(image: ProjectImage) -> tuple[npt.NDArray[np.uint8], Size]:
    """Return a small picture of a slide as it is now, and the slide's size.

    QuPath's thumbnail, which stays what it was when another file is linked, only where the slide
    cannot be read.
    """
    try:
        with open_image(image) as slide:
            return slide.thumbnail(THUMBNAIL), slide.size
    except SlideError:
        if image.thumbnail_path is None or image.server.size is None:
            raise
        return read_thumbnail(image.thumbnail_path), image.server.size
