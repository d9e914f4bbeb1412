"""The resolution of slides that do not tell it: stated once, in the project."""

from __future__ import annotations

from collections.abc import Iterable

from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.linking.opening import open_image
from qpannot.qupath import ImageChanges, Project, ProjectImage


def state_mpp(project: Project, images: Iterable[ProjectImage], mpp: Mpp) -> list[str]:
    """State the resolution of slides in the project, where neither it nor the file tells it.

    That is where QuPath keeps what a person sets there, so that it holds from then on.

    Parameters
    ----------
    images
        Those of which it is known that ``mpp`` is theirs. Slides that cannot be opened are left
        as they are.

    Returns
    -------
    list of str
        The IDs of the images of which it was stated.
    """
    silent = [image for image in images if image.server.mpp is None and not _tells_mpp(image)]
    if silent:
        project.update_images({image.id: ImageChanges(mpp=mpp) for image in silent})
    return [image.id for image in silent]


def _tells_mpp(image: ProjectImage) -> bool:
    try:
        with open_image(image) as slide:
            return slide.mpp_or_none is not None
    except QpannotError:
        return True
