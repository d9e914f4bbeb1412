"""Which slides teach a refinement network, and which choose its best epoch. Pure.

A patch network's heatmaps of the slides it was fitted to are better than any that it makes of new
slides. A refinement network that learns from them learns to trust heatmaps too much; H2G-Net does
so nevertheless ("trained using the same training set", sec. 3.2), for lack of other slides.

- ``held_out``: from slides the patch network was not fitted to, nor to others of their patients.
  Those of the validation part, by which only its best epoch was chosen, and those reviewed since.
  They are divided anew.
- ``paper``: slides of the training part teach, those of the validation part choose.

Slides of the test part do neither, by either protocol: of the whole method, they are what is left
to judge it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from qpannot.errors import QpannotError
from qpannot.recipe import Recipe
from qpannot.sampling import Part, split_slides, with_their_patients

Protocol = Literal["held_out", "paper"]


class TooFewSlidesError(QpannotError):
    """There are no slides that could teach a refinement network, or none to choose by."""


@dataclass(frozen=True)
class Roles:
    """Which slides a refinement network is trained on.

    Parameters
    ----------
    protocol
        The one that is followed.
    teach, choose
        Slides it learns from, and by which its best epoch is chosen.
    reason
        Why another protocol is followed than was asked for, if so.
    """

    protocol: Protocol
    teach: tuple[str, ...]
    choose: tuple[str, ...]
    reason: str = ""

    def __str__(self) -> str:
        whose = {
            "held_out": "that the patch network was not fitted to",
            "paper": "of the patch network's own training (the paper's protocol)",
        }
        return (
            f"{len(self.teach)} slides teach and {len(self.choose)} choose the refinement network, "
            f"{whose[self.protocol]}."
        )


def assign_roles(
    slides: Mapping[str, Mapping[str, str]],
    parts: Mapping[str, Part],
    fitted: Collection[str],
    recipe: Recipe,
) -> Roles:
    """Return which slides teach and which choose; see the module for the rules.

    Parameters
    ----------
    slides
        Metadata of the reviewed slides, by slide; one patient's (``split.by``) stay together.
    parts
        What each is for, of the patch network's split.
    fitted
        Slides whose patches the patch network learned from. Those that only chose its best epoch
        are not among them.
    recipe
        Its ``refinement`` names the protocol, and ``train_after``: how many held-out slides are
        enough for it. Its ``split`` says which share of them chooses.

    Raises
    ------
    TooFewSlidesError
        There are no slides to learn from, or none to choose by.
    """
    settings = recipe.refinement
    usable = {key: data for key, data in slides.items() if parts.get(key, Part.TEST) != Part.TEST}
    reason = ""
    if settings.protocol == "held_out" and settings.use_heatmap:
        known = with_their_patients(fitted, slides, recipe.split.by)
        own = {key: data for key, data in usable.items() if key not in known}
        if len(own) >= settings.train_after:
            shares = recipe.split.model_copy(update={"test": 0.0})
            roles = Roles("held_out", *_divided(own, split_slides(own, shares)))
            if roles.teach and roles.choose:
                return roles
            reason = (
                f"The reviewed slides that are new to the patch network ({len(own)}) cannot be "
                "divided into those that teach and those that choose: they are of one patient "
                "(split.by), or none may choose (split.validation)."
            )
        else:
            reason = (
                f"Only {len(own)} of {len(slides)} reviewed slides may teach and are new to the "
                f"patch network, fewer than refinement.train_after ({settings.train_after})."
            )
    return _checked(Roles("paper", *_divided(usable, parts), reason))


def _divided(
    slides: Collection[str], parts: Mapping[str, Part]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    teach, choose = (
        tuple(sorted(key for key in slides if parts[key] == part))
        for part in (Part.TRAIN, Part.VALIDATION)
    )
    return teach, choose


def _checked(roles: Roles) -> Roles:
    for found, what in ((roles.teach, "learn from"), (roles.choose, "choose its best epoch by")):
        if not found:
            raise TooFewSlidesError(
                f"There are no slides that the refinement network could {what}.",
                hint="Review more slides, or change their shares (split.train, split.validation).",
            )
    return roles
