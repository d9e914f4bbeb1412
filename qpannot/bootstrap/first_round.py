"""Round 1: a tissue threshold's outlines (AN1, H2G-Net sec. 2.1) on slides without annotations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.proposing import PROPOSABLE, Findings, Found, Round
from qpannot.bootstrap.states import ImageStatus, State
from qpannot.geometry import Mpp
from qpannot.linking import open_image
from qpannot.qupath import Project, ProjectImage
from qpannot.qupath.proposals import Origin
from qpannot.recipe import Recipe
from qpannot.tissue import detect_tissue

NUMBER = 1


class FirstRound:
    """Round 1 on one project.

    Parameters
    ----------
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    """

    def __init__(self, project: Project, ledger: Ledger, recipe: Recipe, mpp: Mpp | None) -> None:
        tissue = recipe.tissue
        otsu = tissue.method == "otsu"
        method = "Otsu on saturation" if otsu else f"tissue threshold {tissue.threshold}"
        self.ledger = ledger
        self.recipe = recipe
        self.mpp = mpp
        self.origin = Origin(round=NUMBER, method=f"AN1: {method}")
        self.settings: dict[str, Any] = {
            **tissue.model_dump(mode="json"),
            "mpp": mpp.mean if mpp else None,
        }
        self.round = Round(
            project,
            ledger,
            recipe,
            number=NUMBER,
            method=self.origin.method,
            settings=self.settings,
        )

    def targets(
        self, statuses: Sequence[ImageStatus], asked: Collection[str] | None
    ) -> list[ProjectImage]:
        """Return the images to propose for.

        Those without annotations, as many as the recipe lets wait for a person at one time; where
        a person deleted the proposal, or these settings found nothing, there is no second one.

        Parameters
        ----------
        statuses
            Every image of the project.
        asked
            The IDs of images a person asked for: all of these that hold nobody's work.
        """
        open_to_it = [
            status for status in statuses if status.state in PROPOSABLE and not status.error
        ]
        if asked is not None:
            return [status.image for status in open_to_it if status.image.id in asked]
        targets = [
            status.image
            for status in open_to_it
            if status.state is State.UNANNOTATED
            and not status.rejected
            and not self._found_nothing_before(status.image)
        ]
        if self.recipe.round.slides is None:
            return targets
        waiting = sum(status.state is State.PROPOSED for status in statuses)
        return targets[: max(0, self.recipe.round.slides - waiting)]

    def _found_nothing_before(self, image: ProjectImage) -> bool:
        nothing = self.ledger.image(image.id, image.name).nothing_found
        return nothing is not None and nothing["settings"] == self.settings

    def find(self, image: ProjectImage) -> Findings:
        """Return the outlines of the tissue of a slide."""
        with open_image(image, fallback_mpp=self.mpp) as slide:
            outlines = detect_tissue(slide, self.recipe.tissue)
            return Findings([Found(each) for each in outlines], self.origin, slide.mpp_or_none)
