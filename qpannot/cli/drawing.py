"""Pictures of a whole project, as ``--pictures`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from qpannot.bootstrap.states import ImageStatus
from qpannot.console import progress
from qpannot.errors import QpannotError
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
                size = image.server.size
                if image.thumbnail_path and size:
                    overview = read_thumbnail(image.thumbnail_path)
                else:
                    with open_image(image) as slide:
                        overview, size = slide.thumbnail(THUMBNAIL), slide.size
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
