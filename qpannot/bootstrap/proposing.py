"""Proposals put into a project, whichever method made them, and what is recorded of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shapely.geometry.base import BaseGeometry

import qpannot
from qpannot.bootstrap.image_record import ImageRecord, KeptProposal, geojson_of, now
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.outcome import Outcome, Proposed
from qpannot.bootstrap.states import (
    ImageStatus,
    State,
    is_drawn_area,
    look,
    status_of,
    survey,
)
from qpannot.bootstrap.words import mirror
from qpannot.console import Each
from qpannot.errors import QpannotError, SlideError
from qpannot.geometry import Mpp
from qpannot.linking import check_is_slide, known_slides, remember_slides
from qpannot.qupath import Annotation, PathClass, Project, ProjectImage
from qpannot.qupath.proposals import Origin, is_pristine, is_proposal, make_proposal
from qpannot.recipe import Recipe

QUPATH_CLASSES = tuple(
    PathClass(name, color)
    for name, color in (
        ("Tumor", (200, 0, 0)),
        ("Stroma", (150, 200, 150)),
        ("Immune cells", (160, 90, 160)),
        ("Necrosis", (50, 50, 50)),
        ("Other", (255, 200, 0)),
        ("Region*", (0, 0, 180)),
        ("Ignore*", (180, 180, 180)),
        ("Positive", (200, 50, 50)),
        ("Negative", (90, 90, 180)),
    )
)
"""What QuPath offers for annotating in a project that has no classes of its own."""

SPARE_COLORS = ((0, 140, 200), (160, 110, 0), (110, 60, 180), (0, 150, 110), (220, 90, 140))
"""Of classes that neither the project nor QuPath knows."""

PROPOSABLE = (State.UNANNOTATED, State.PROPOSED)
"""States in which nothing of a person can be lost by a proposal."""

REPORT = "This is a defect of qpannot: please report it with this slide."

MIRROR_EVERY_S = 60.0
"""How often the states of slides are written into the project during a long round."""


@dataclass(frozen=True)
class Found:
    """One area that a method found.

    Parameters
    ----------
    outline
        In full-resolution pixels of QuPath's frame.
    class_name
        ``None``: the recipe's ``proposal.class_name``.
    score
        How probable it is, 0 to 1, where the method tells.
    """

    outline: BaseGeometry
    class_name: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Findings:
    """What a method found on one slide.

    Parameters
    ----------
    areas
        One for each annotation; none where nothing was found.
    origin
        Where they came from.
    pixel_um
        The size of a pixel, ``None`` where that is unknown.
    """

    areas: Sequence[Found]
    origin: Origin
    pixel_um: Mpp | None


class Round:
    """A round on one project: puts what a method finds into it, slide by slide.

    Each slide is finished before the next is begun, so that a run that was broken off goes on
    where it was.

    Parameters
    ----------
    number
        From 1.
    method
        In words, for the record.
    settings
        Those that decide what is found: where nothing was, it is not looked for again with them.
    may_clear
        Whether earlier proposals that nobody touched are taken away where nothing is found.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        recipe: Recipe,
        *,
        number: int,
        method: str,
        settings: dict[str, Any],
        may_clear: bool = False,
    ) -> None:
        self.project = project
        self.ledger = ledger
        self.recipe = recipe
        self.number = number
        self.method = method
        self.settings = settings
        self.may_clear = may_clear

    def propose(
        self,
        targets: Sequence[ProjectImage],
        find: Callable[[ProjectImage], Findings],
        outcome: Outcome,
        each: Each,
    ) -> None:
        """Propose for images, and record it in the ledger and in ``outcome``.

        Nothing of a person is replaced, also not what was saved or said while a slide was read. A
        slide that cannot be read, or is another than the project shows, is skipped.

        Parameters
        ----------
        find
            Reads a slide and returns what is to be proposed.
        each
            Told of each image before it is begun, in the stage ``Proposing``.
        """
        classes = _ensure_classes(self.project, self.recipe)
        outcome.round = self.number
        self._save({})
        known = known_slides(self.project)
        mirrored = time.monotonic()
        failed: dict[str, str] = {}
        opened: list[ProjectImage] = []
        try:
            for done, image in enumerate(targets):
                each("Proposing", image.name, done, len(targets))
                opened.append(image)
                try:
                    check_is_slide(image, known.get(image.id))
                    self._propose(image, find, classes, outcome)
                except QpannotError as error:
                    outcome.failed.append((image, error))
                    failed[image.id] = error.message
                if time.monotonic() - mirrored > MIRROR_EVERY_S:
                    self._mirror(opened)
                    remember_slides(self.project, opened)
                    mirrored = time.monotonic()
        finally:
            self._mirror(targets)
            remember_slides(self.project, opened)
            self._save(failed)

    def _save(self, failed: dict[str, str]) -> None:
        """Record the round as it stands: what was proposed is told from the records of images."""
        record = self.ledger.round(self.number) or RoundRecord(
            number=self.number,
            method=self.method,
            started=now(),
            qpannot=qpannot.__version__,
            recipe=self.recipe.model_dump(mode="json"),
        )
        record.proposed = [
            status.image.id
            for status in survey(self.project, self.ledger)
            if status.round == self.number
        ]
        record.failed = failed
        record.finished = now()
        self.ledger.save_round(record)

    def _mirror(self, images: Sequence[ProjectImage]) -> None:
        mirror(self.project, self.ledger, [status_of(image, self.ledger) for image in images])

    def _propose(
        self,
        image: ProjectImage,
        find: Callable[[ProjectImage], Findings],
        classes: Mapping[str, PathClass],
        outcome: Outcome,
    ) -> None:
        started = time.monotonic()
        try:
            found = find(image)
        except QpannotError:
            raise
        except Exception as error:  # one slide must not end a run over 2,000
            reason = f"it cannot be outlined ({type(error).__name__}: {error})."
            raise SlideError(image.name, reason, hint=REPORT) from error
        # What a person saved or said while the slide was read goes first.
        fingerprint = image.fingerprint()
        status = status_of(image, self.ledger)
        annotations = image.annotations()
        made_by_us = [annotation for annotation in annotations if is_proposal(annotation)]
        locked = self.recipe.proposal.locked
        has_work = any(not is_pristine(each) or each.locked > locked for each in made_by_us)
        has_work |= not made_by_us and any(is_drawn_area(each) for each in annotations)
        if status.error or status.state not in PROPOSABLE or has_work:
            outcome.left_alone.append(status)
            return
        if not found.areas:
            outcome.empty.append(image)
            if made_by_us and self.may_clear:
                image.write_annotations(remove=made_by_us, unless_changed_since=fingerprint)
                _mark_written(image, self.ledger)
            if self.may_clear or not made_by_us:
                self.ledger.edit_image(image.id, image.name, self._found_nothing)
            return
        proposals, kept = [], []
        for area in found.areas:
            origin = replace(found.origin, score=area.score)
            path_class = classes[area.class_name or self.recipe.proposal.class_name]
            proposal = make_proposal(area.outline, path_class, origin, locked=locked)
            proposals.append(proposal)
            kept.append(_kept(proposal, origin))
        # before the write, so that a crash loses no origin
        self.ledger.edit_image(image.id, image.name, lambda record: _intend(record, kept))
        image.write_annotations(add=proposals, remove=made_by_us, unless_changed_since=fingerprint)
        _mark_written(image, self.ledger)
        area_px2 = sum(proposal.geometry.area for proposal in proposals)
        pixel_um = found.pixel_um
        outcome.proposed.append(
            Proposed(
                image.id,
                image.name,
                len(proposals),
                area_px2 * pixel_um.x * pixel_um.y / 1e6 if pixel_um else None,
                time.monotonic() - started,
                len(made_by_us),
            )
        )

    def _found_nothing(self, record: ImageRecord) -> None:
        record.nothing_found = {
            "method": self.method,
            "settings": self.settings,
            "when": now(),
        }


def finish_broken_off(ledger: Ledger, statuses: Sequence[ImageStatus]) -> None:
    """Complete the records of proposals that a crash left in the project but not in the ledger.

    Those of images, and that of the last round: no rerun looks again at a slide that has its
    proposal already.
    """
    last = max(ledger.rounds(), key=lambda record: record.number, default=None)
    unrecorded: list[str] = []
    for status in statuses:
        image, number = status.image, status.round
        if status.state is State.PROPOSED and not status.error:
            record = ledger.image(image.id, image.name)
            if any(not kept.written for kept in record.proposals):
                _mark_written(image, ledger)
                record = ledger.image(image.id, image.name)
            number = record.standing[-1].round if record.standing else number
        if last and number == last.number and image.id not in last.proposed:
            unrecorded.append(image.id)
    if last and unrecorded:
        last.proposed = [*last.proposed, *unrecorded]
        ledger.save_round(last)


def _ensure_classes(project: Project, recipe: Recipe) -> dict[str, PathClass]:
    """Return the classes of proposals as the project has them; those it lacks are added to it."""
    offered = list(project.classes or QUPATH_CLASSES)
    colors = {each.name: each.color for each in QUPATH_CLASSES}
    colors[recipe.proposal.class_name] = recipe.proposal.color
    spare = iter(SPARE_COLORS * len(recipe.labels.classes))
    found: dict[str, PathClass] = {}
    for name in dict.fromkeys([recipe.proposal.class_name, *recipe.labels.classes]):
        wanted = PathClass(name, colors.get(name) or next(spare))
        if wanted not in offered:
            offered.append(wanted)
        known = offered[offered.index(wanted)]
        found[name] = known if known.color else wanted
    if offered != list(project.classes):
        project.set_classes(offered)
    return found


def _kept(proposal: Annotation, origin: Origin) -> KeptProposal:
    geometry: BaseGeometry = proposal.geometry
    return KeptProposal(
        id=proposal.id,
        round=origin.round,
        method=origin.method,
        model=origin.model,
        score=origin.score,
        class_name=proposal.class_name,
        made=now(),
        geometry=geojson_of(geometry),
    )


def _intend(record: ImageRecord, kept: list[KeptProposal]) -> None:
    record.nothing_found = None
    record.proposals = [each for each in record.proposals if each.written] + kept


def _mark_written(image: ProjectImage, ledger: Ledger) -> None:
    """Record which proposals the project holds now, and what else is to be seen there."""
    present = {annotation.id for annotation in image.annotations()}

    def change(record: ImageRecord) -> None:
        record.proposals = [each for each in record.proposals if each.written or each.id in present]
        for each in record.proposals:
            each.replaced = each.id not in present
            each.written = True
        record.seen = look(image, record)

    ledger.edit_image(image.id, image.name, change)
