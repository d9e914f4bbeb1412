"""One step of the loop: what ``qpannot bootstrap`` does each time it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shapely.geometry.base import BaseGeometry

import qpannot
from qpannot.bootstrap.ledger import (
    ImageRecord,
    KeptProposal,
    Ledger,
    RoundRecord,
    geojson_of,
    now,
)
from qpannot.bootstrap.proposals import Origin, is_pristine, is_proposal, make_proposal
from qpannot.bootstrap.states import (
    ImageStatus,
    State,
    is_drawn_area,
    look,
    mirror,
    remember,
    status_of,
    survey,
)
from qpannot.errors import LockedError, ProjectError, QpannotError, SlideError
from qpannot.geometry import Mpp
from qpannot.linking import check_is_slide, known_slides, open_image, remember_slides
from qpannot.qupath import Annotation, PathClass, Project, ProjectImage
from qpannot.qupath.locking import ProjectLock
from qpannot.recipe import Recipe
from qpannot.tissue import detect_tissue

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

PROPOSABLE = (State.UNANNOTATED, State.PROPOSED)
"""States in which nothing of a person can be lost by a proposal."""

REPORT = "This is a defect of qpannot: please report it with this slide."

MIRROR_EVERY_S = 60.0
"""How often the states of slides are written into the project during a long round."""


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
    round
        The round that was worked on; ``None`` when there was nothing to do.
    proposed, empty, failed
        Images proposed for; those where nothing was found; those that were skipped, with the
        error.
    left_alone
        Images that were asked for but hold a person's work.
    statuses
        Every image of the project, afterwards.
    """

    round: int | None
    proposed: list[Proposed] = field(default_factory=list)
    empty: list[ProjectImage] = field(default_factory=list)
    failed: list[tuple[ProjectImage, QpannotError]] = field(default_factory=list)
    left_alone: list[ImageStatus] = field(default_factory=list)
    statuses: list[ImageStatus] = field(default_factory=list)


def bootstrap(
    project: Project,
    recipe: Recipe,
    *,
    only: Sequence[ProjectImage] | None = None,
    mpp: Mpp | None = None,
    each: Callable[[ProjectImage, int, int], None] = lambda image, done, total: None,
) -> Outcome:
    """Do the next step of the loop.

    Round 1 proposes a tissue threshold's outlines (AN1, H2G-Net sec. 2.1) for every unannotated
    image, or for as many as the recipe allows to wait for a person at one time. Images that a
    person annotated are never touched. Each image is finished before the next is begun, so that
    a run that was broken off goes on where it was.

    Parameters
    ----------
    project
        Opened for writing.
    only
        Propose for these images alone, and anew: also where a person deleted the proposal or
        nothing was found before, and in place of proposals that nobody touched. Images with a
        person's work are left alone all the same.
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    each
        Called before each image with the image, how many are done, and how many there are.

    Raises
    ------
    LockedError
        When another ``bootstrap`` works on the project.
    """
    ledger = Ledger.of(project)
    lock = ProjectLock(ledger.house / "run.lock")
    try:
        ledger.house.mkdir(exist_ok=True)
        lock.acquire(0)
    except OSError as error:
        raise ProjectError(
            project.folder,
            f"the project folder cannot be written ({error.strerror or error}).",
            hint="Check its permissions and free space, or copy the project to a folder of your "
            "own.",
        ) from error
    except LockedError as error:
        raise LockedError(
            project.path,
            "another 'qpannot bootstrap' is working on this project.",
            hint="Wait until it is done; 'qpannot status' shows how far it is.",
        ) from error
    try:
        return _FirstRound(project, ledger, recipe, mpp).run(only, each)
    finally:
        lock.release()


class _FirstRound:
    """Round 1 on one project: a tissue threshold's outlines, AN1."""

    number = 1

    def __init__(self, project: Project, ledger: Ledger, recipe: Recipe, mpp: Mpp | None) -> None:
        self.project = project
        self.ledger = ledger
        self.recipe = recipe
        self.mpp = mpp
        tissue = recipe.tissue
        otsu = tissue.method == "otsu"
        method = "Otsu on saturation" if otsu else f"tissue threshold {tissue.threshold}"
        self.origin = Origin(round=self.number, method=f"AN1: {method}")
        self.settings = {**tissue.model_dump(mode="json"), "mpp": mpp.mean if mpp else None}

    def run(
        self,
        only: Sequence[ProjectImage] | None,
        each: Callable[[ProjectImage, int, int], None],
    ) -> Outcome:
        """Propose for what is to be proposed for, and record it."""
        statuses = survey(self.project, self.ledger)
        _finish_broken_off(self.ledger, statuses)
        remember(self.ledger, statuses)
        mirror(self.project, self.ledger, statuses)
        targets = _targets(statuses, self.ledger, self.recipe, self.settings, only)
        outcome = Outcome(round=self.number if targets else None)
        wanted = {image.id for image in (self.project.images if only is None else only)}
        outcome.failed = [
            (status.image, status.error)
            for status in statuses
            if status.error and status.image.id in wanted
        ]
        if only is not None:
            chosen = {image.id for image in targets}
            outcome.left_alone = [
                status
                for status in statuses
                if status.image.id in wanted - chosen and not status.error
            ]
        if targets:
            self._propose_for_all(targets, outcome, each)
        outcome.statuses = survey(self.project, self.ledger)
        return outcome

    def _propose_for_all(
        self,
        targets: Sequence[ProjectImage],
        outcome: Outcome,
        each: Callable[[ProjectImage, int, int], None],
    ) -> None:
        path_class = _ensure_class(self.project, self.recipe)
        self._save_round({})
        known = known_slides(self.project)
        mirrored = time.monotonic()
        failed: dict[str, str] = {}
        opened: list[ProjectImage] = []
        try:
            for done, image in enumerate(targets):
                each(image, done, len(targets))
                opened.append(image)
                try:
                    check_is_slide(image, known.get(image.id))
                    self._propose(image, path_class, outcome)
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
            self._save_round(failed)

    def _save_round(self, failed: dict[str, str]) -> None:
        """Record the round as it stands: what was proposed is told from the records of images."""
        record = self.ledger.round(self.number) or RoundRecord(
            number=self.number,
            method=self.origin.method,
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
        mirror(self.project, self.ledger, [self._status(image) for image in images])

    def _status(self, image: ProjectImage) -> ImageStatus:
        return status_of(image, self.ledger)

    def _propose(self, image: ProjectImage, path_class: PathClass, outcome: Outcome) -> None:
        started = time.monotonic()
        with open_image(image, fallback_mpp=self.mpp) as slide:
            pixel_um = slide.mpp_or_none
            try:
                outlines = detect_tissue(slide, self.recipe.tissue)
            except QpannotError:
                raise
            except Exception as error:  # one slide must not end a run over 2,000
                reason = f"its tissue cannot be outlined ({type(error).__name__}: {error})."
                raise SlideError(image.name, reason, hint=REPORT) from error
        # What a person saved or said while the slide was read goes first.
        fingerprint = image.fingerprint()
        status = self._status(image)
        annotations = image.annotations()
        made_by_us = [annotation for annotation in annotations if is_proposal(annotation)]
        locked = self.recipe.proposal.locked
        has_work = any(not is_pristine(each) or each.locked > locked for each in made_by_us)
        has_work |= not made_by_us and any(is_drawn_area(each) for each in annotations)
        if status.error or status.state not in PROPOSABLE or has_work:
            outcome.left_alone.append(status)
            return
        if not outlines:
            outcome.empty.append(image)
            if not made_by_us:
                self._record(image, self._found_nothing)
            return
        proposals = [
            make_proposal(outline, path_class, self.origin, locked=locked) for outline in outlines
        ]
        kept = [_kept(proposal, self.origin) for proposal in proposals]
        # before the write, so that a crash loses no origin
        self._record(image, lambda record: _intend(record, kept))
        image.write_annotations(add=proposals, remove=made_by_us, unless_changed_since=fingerprint)
        _mark_written(image, self.ledger)
        area_px2 = sum(proposal.geometry.area for proposal in proposals)
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

    def _record(self, image: ProjectImage, change: Callable[[ImageRecord], None]) -> None:
        self.ledger.edit_image(image.id, image.name, change)

    def _found_nothing(self, record: ImageRecord) -> None:
        record.nothing_found = {
            "method": self.origin.method,
            "settings": self.settings,
            "when": now(),
        }


def _targets(
    statuses: Sequence[ImageStatus],
    ledger: Ledger,
    recipe: Recipe,
    settings: dict[str, Any],
    only: Sequence[ProjectImage] | None,
) -> list[ProjectImage]:
    asked = None if only is None else {image.id for image in only}
    targets = []
    for status in statuses:
        image = status.image
        if status.error or status.state not in PROPOSABLE:
            continue
        if asked is not None:
            if image.id in asked:
                targets.append(image)
            continue
        nothing = ledger.image(image.id, image.name).nothing_found
        found_nothing_with_these = nothing is not None and nothing["settings"] == settings
        if status.state is State.UNANNOTATED and not status.rejected | found_nothing_with_these:
            targets.append(image)
    if recipe.round.slides is None or asked is not None:
        return targets
    waiting = sum(status.state is State.PROPOSED for status in statuses)
    return targets[: max(0, recipe.round.slides - waiting)]


def _ensure_class(project: Project, recipe: Recipe) -> PathClass:
    wanted = PathClass(recipe.proposal.class_name, recipe.proposal.color)
    offered = list(project.classes or QUPATH_CLASSES)
    if wanted not in offered:
        offered.append(wanted)
    if offered != list(project.classes):
        project.set_classes(offered)
    known = offered[offered.index(wanted)]
    return known if known.color else wanted


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


def _finish_broken_off(ledger: Ledger, statuses: Sequence[ImageStatus]) -> None:
    """Complete the record of proposals that a crash left in the project but not in the ledger."""
    for status in statuses:
        if status.state is not State.PROPOSED or status.error:
            continue
        record = ledger.image(status.image.id, status.image.name)
        if any(not kept.written for kept in record.proposals):
            _mark_written(status.image, ledger)
