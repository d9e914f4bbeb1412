"""What the person should do next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from qpannot.bootstrap.states import ImageStatus, State
from qpannot.console import counted


def next_steps(statuses: Sequence[ImageStatus], project: Path) -> tuple[str, ...]:
    """Return what to do next, in plain sentences, the most pressing first.

    Parameters
    ----------
    statuses
        Every image of the project.
    project
        The ``.qpproj`` file, for commands that can be copied.
    """
    if not statuses:
        folder = shlex.quote(str(project.parent))
        return (f"the project has no images; add slides: qpannot init SLIDES... -o {folder}",)
    named = shlex.quote(str(project))
    count = Counter(status.state for status in statuses)
    steps = []
    if waiting := count[State.PROPOSED]:
        steps.append(
            f"{counted(waiting, 'slide')} to be corrected: open {project} in QuPath (reopen it if "
            "it is open already), correct the proposals with the brush, save. A changed proposal "
            "counts as reviewed; where one is right as it is, say so: "
            f"qpannot approve IMAGE -p {named}"
        )
    settled = [status for status in statuses if status.rejected or status.nothing_found]
    if settled:
        steps.append(
            f"{counted(len(settled), 'slide')} where nothing was found or the proposal was deleted "
            f"({_names(settled)}): annotate by hand, try other settings (qpannot bootstrap "
            f"{named} --image NAME --set tissue.threshold=220), or say that there is nothing to "
            "annotate: "
            f"qpannot approve IMAGE --empty -p {named}"
        )
    left = [
        status
        for status in statuses
        if status.state is State.UNANNOTATED
        and not (status.rejected or status.nothing_found or status.error)
        and not status.slide_is_missing
    ]
    if left:
        steps.append(
            f"{counted(len(left), 'slide')} without annotations; propose for them: "
            f"qpannot bootstrap {named}"
        )
    if missing := [status for status in statuses if status.slide_is_missing]:
        steps.append(
            f"{counted(len(missing), 'slide')} missing ({_names(missing)}); tell where slides are: "
            f"qpannot relink {named} FOLDER"
        )
    if broken := [status for status in statuses if status.error]:
        steps.append(
            f"{counted(len(broken), 'image')} whose annotations cannot be read ({_names(broken)}): "
            "put a snapshot back, 'qpannot snapshots "
            f"{named} --image NAME'; do not save them in QuPath, which shows them as empty"
        )
    if not steps:
        steps.append(
            "every slide is reviewed. A second reader can confirm: "
            f"qpannot approve IMAGE --second-reader -p {named}"
        )
    return tuple(steps)


def _names(statuses: Sequence[ImageStatus]) -> str:
    names = ", ".join(status.image.name for status in statuses[:5])
    return names if len(statuses) <= 5 else f"{names} and {len(statuses) - 5} more"
