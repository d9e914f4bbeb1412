"""What one run of the loop did, and how things stand after it."""

from __future__ import annotations

from dataclasses import dataclass, field

from qpannot.bootstrap.ledger import RoundRecord
from qpannot.bootstrap.scripts import Installed
from qpannot.bootstrap.states import ImageStatus
from qpannot.errors import QpannotError
from qpannot.qupath import ProjectImage
from qpannot.recipe import Recipe


@dataclass(frozen=True)
class Proposed:
    """What was proposed for one image."""

    image_id: str
    name: str
    annotations: int
    area_mm2: float | None
    """``None`` where the slide's pixel size is unknown."""
    seconds: float
    replaced: int = 0
    """Untouched proposals these took the place of."""


@dataclass
class Outcome:
    """What one run of ``bootstrap`` did, and how things stand after it.

    Parameters
    ----------
    recipe
        The one it worked with.
    round
        The round that was worked on; ``None`` when there was nothing to do.
    learned
        What is recorded of the round, where a network was trained in it.
    proposed, empty, failed
        Images proposed for; those where nothing was found; those that were skipped, with the
        error.
    left_alone
        Images that were asked for but hold a person's work.
    statuses
        Every image of the project, afterwards.
    scripts
        What came of putting the scripts for QuPath into the project.
    """

    recipe: Recipe
    round: int | None = None
    learned: RoundRecord | None = None
    proposed: list[Proposed] = field(default_factory=list)
    empty: list[ProjectImage] = field(default_factory=list)
    failed: list[tuple[ProjectImage, QpannotError]] = field(default_factory=list)
    left_alone: list[ImageStatus] = field(default_factory=list)
    statuses: list[ImageStatus] = field(default_factory=list)
    scripts: Installed = field(default_factory=Installed)

    @property
    def has_failures(self) -> bool:
        """Whether something was skipped: slides, or the refinement stage."""
        refinement = self.learned.refinement if self.learned else None
        return bool(self.failed or (refinement and refinement.error))
