"""What came of a save."""

from __future__ import annotations

from dataclasses import dataclass

from qpannot.bootstrap.states import ImageStatus
from qpannot.console import counted
from qpannot.errors import UsageError


class NothingAnnotatedError(UsageError):
    """A slide without annotations was accepted without saying that there are none."""


@dataclass(frozen=True)
class Saved:
    """What a save changed in the project.

    Parameters
    ----------
    added, changed, removed
        Annotations.
    conflicts
        Annotations that somebody else, as QuPath, changed since they were shown. What was painted
        was done upon those.
    status
        How the slide stands now.
    is_redrawn
        Whether `Opened.labels` was drawn anew, in place.
    said
        What to tell the person of the slide's state; by default why it is in it.
    """

    added: int
    changed: int
    removed: int
    conflicts: int
    status: ImageStatus
    is_redrawn: bool = False
    said: str = ""

    @property
    def message(self) -> str:
        """What happened, in a sentence."""
        counts = {"added": self.added, "changed": self.changed, "removed": self.removed}
        done = [f"{n} {what}" for what, n in counts.items() if n]
        text = f"annotations: {', '.join(done)}" if done else "nothing changed since the last save"
        if self.conflicts:
            text += (
                f"; {counted(self.conflicts, 'annotation')} had been changed by somebody else "
                "meanwhile, and what was painted was done upon that"
            )
        return f"{self.said or self.status.reason}; {text}."


class ChangedMeanwhileError(UsageError):
    """Of a slide was spoken that somebody else has changed since it was shown.

    Parameters
    ----------
    name
        Of the image.
    saved
        What came of the save before.
    """

    def __init__(self, name: str, saved: Saved) -> None:
        super().__init__(
            f"Somebody else changed the annotations of {name} while you had it open.",
            hint="What you painted is saved. Look at the slide as it is now, then do it again.",
        )
        self.saved = saved
