"""What the person should do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from qpannot.bootstrap.states import ImageStatus, State


def next_step(statuses: Sequence[ImageStatus], project: Path) -> str:
    """Return what to do next, in a few plain sentences.

    Parameters
    ----------
    statuses
        Every image of the project.
    project
        The ``.qpproj`` file, for commands that can be copied.
    """
    if not statuses:
        return f"The project has no images. Add slides: qpannot init SLIDES... -o {project.parent}"
    count = Counter(status.state for status in statuses)
    sentences = []
    if waiting := count[State.PROPOSED]:
        slides = "1 slide waits" if waiting == 1 else f"{waiting} slides wait"
        sentences.append(
            f"{slides} for a person. Open {project} in QuPath (if it is open already, reopen it), "
            "correct the proposals with the brush, save. A slide whose proposal was changed counts "
            "as reviewed; where a proposal is right as it is, say so: qpannot approve IMAGE."
        )
    settled = [status for status in statuses if status.rejected or status.nothing_found]
    if settled:
        slides = "On 1 slide" if len(settled) == 1 else f"On {len(settled)} slides"
        sentences.append(
            f"{slides} nothing was found, or the proposal was deleted. Annotate by hand, try other "
            "settings (--image NAME --set tissue.threshold=220), or say that there is nothing to "
            "annotate: qpannot approve IMAGE --empty."
        )
    if left := count[State.UNANNOTATED] - len(settled):
        slides = "1 slide has" if left == 1 else f"{left} slides have"
        sentences.append(
            f"{slides} no annotations yet. "
            + (
                "Once some of those waiting are reviewed, run bootstrap again."
                if waiting
                else f"Propose for them: qpannot bootstrap {project}"
            )
        )
    if missing := [status.image.name for status in statuses if status.slide_is_missing]:
        names = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        slides = "The slide of 1 image is" if len(missing) == 1 else f"{len(missing)} slides are"
        sentences.append(
            f"{slides} missing ({names}). Tell where slides are: qpannot relink {project} FOLDER"
        )
    if not sentences:
        sentences.append(
            "Every slide is reviewed. A second reader can confirm: "
            "qpannot approve IMAGE --second-reader."
        )
    return " ".join(sentences)
