"""What the stages of a round work on."""

from __future__ import annotations

from dataclasses import dataclass

from qpannot.bootstrap.ledger import Ledger
from qpannot.console import Each
from qpannot.geometry import Mpp
from qpannot.qupath import Project
from qpannot.recipe import Recipe


@dataclass(frozen=True)
class Work:
    """A project and how it is worked on.

    Parameters
    ----------
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    each
        Told of the stage, what is worked on, how much is done, and how much there is.
    """

    project: Project
    ledger: Ledger
    recipe: Recipe
    mpp: Mpp | None
    each: Each
