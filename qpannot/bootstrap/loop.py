"""One step of the loop: what ``qpannot bootstrap`` does each time it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from filelock import FileLock, Timeout
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
from qpannot.bootstrap.proposals import Origin, is_untouched, make_proposal
from qpannot.bootstrap.states import ImageStatus, State, look, mirror, status_of, survey
from qpannot.errors import LockedError, QpannotError
from qpannot.geometry import Mpp
from qpannot.linking import open_image
from qpannot.qupath import Annotation, PathClass, Project, ProjectImage
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
    lock = FileLock(ledger.house / "run.lock")
    try:
        ledger.house.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(
            project.path,
            "another 'qpannot bootstrap' is working on this project.",
            hint="Wait until it is done; 'qpannot status' shows how far it is.",
        ) from None
    with lock:
        return _first_round(project, ledger, recipe, only, mpp, each)


def _first_round(
    project: Project,
    ledger: Ledger,
    recipe: Recipe,
    only: Sequence[ProjectImage] | None,
    mpp: Mpp | None,
    each: Callable[[ProjectImage, int, int], None],
) -> Outcome:
    statuses = {status.image.id: status for status in survey(project, ledger)}
    _finish_broken_off(ledger, statuses.values())
    targets = _targets(list(statuses.values()), ledger, recipe, only)
    outcome = Outcome(round=1 if targets else None)
    asked = {image.id for image in only or ()} - {image.id for image in targets}
    outcome.left_alone = [statuses[image_id] for image_id in statuses if image_id in asked]
    if targets:
        path_class = _ensure_class(project, recipe)
        record = ledger.round(1) or RoundRecord(
            number=1,
            method=_method(recipe),
            started=now(),
            qpannot=qpannot.__version__,
            recipe=recipe.model_dump(mode="json"),
        )
        record.failed = {}
        ledger.save_round(record)
    mirrored = time.monotonic()
    try:
        for done, image in enumerate(targets):
            each(image, done, len(targets))
            try:
                proposed = _propose(image, ledger, recipe, path_class, mpp)
            except QpannotError as error:
                outcome.failed.append((image, error))
                continue
            if proposed is None:
                outcome.empty.append(image)
            else:
                outcome.proposed.append(proposed)
            statuses[image.id] = status_of(image, ledger.image(image.id, image.name))
            if time.monotonic() - mirrored > MIRROR_EVERY_S:
                mirror(project, statuses.values())
                mirrored = time.monotonic()
    finally:
        mirror(project, statuses.values())
        if targets:
            record.proposed = sorted(
                {*record.proposed, *(proposed.image_id for proposed in outcome.proposed)}, key=int
            )
            record.failed = {image.id: error.message for image, error in outcome.failed}
            record.finished = now()
            ledger.save_round(record)
    outcome.statuses = survey(project, ledger)
    return outcome


def _method(recipe: Recipe) -> str:
    tissue = recipe.tissue
    if tissue.method == "otsu":
        return "AN1: Otsu on saturation"
    return f"AN1: tissue threshold {tissue.threshold}"


def _targets(
    statuses: list[ImageStatus],
    ledger: Ledger,
    recipe: Recipe,
    only: Sequence[ProjectImage] | None,
) -> list[ProjectImage]:
    asked = None if only is None else {image.id for image in only}
    settings = recipe.tissue.model_dump(mode="json")
    targets = []
    for status in statuses:
        if status.error:
            continue
        if asked is not None:
            if status.image.id in asked and status.state in (State.UNANNOTATED, State.PROPOSED):
                targets.append(status.image)
            continue
        if status.state is not State.UNANNOTATED:
            continue
        nothing = ledger.image(status.image.id, status.image.name).nothing_found
        if not status.rejected and not (nothing and nothing["settings"] == settings):
            targets.append(status.image)
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


def _propose(
    image: ProjectImage, ledger: Ledger, recipe: Recipe, path_class: PathClass, mpp: Mpp | None
) -> Proposed | None:
    started = time.monotonic()
    with open_image(image, fallback_mpp=mpp) as slide:
        outlines = detect_tissue(slide, recipe.tissue)
        pixel_um = slide.mpp_or_none
    record = ledger.image(image.id, image.name)
    origin = Origin(round=1, method=_method(recipe))
    earlier = [annotation for annotation in image.annotations() if is_untouched(annotation)]
    if not outlines and earlier:
        return None
    if not outlines:
        record.nothing_found = {
            "method": origin.method,
            "settings": recipe.tissue.model_dump(mode="json"),
            "when": now(),
        }
        ledger.save_image(record)
        return None
    proposals = [
        make_proposal(outline, path_class, origin, locked=recipe.proposal.locked)
        for outline in outlines
    ]
    record.nothing_found = None
    record.proposals = [kept for kept in record.proposals if kept.written]
    record.proposals += [_kept(proposal, origin) for proposal in proposals]
    ledger.save_image(record)  # what is about to be written, so that a crash loses no origin
    image.write_annotations(add=proposals, remove=earlier)
    _mark_written(image, ledger, record)
    area_um2 = sum(p.geometry.area for p in proposals) * (
        pixel_um.x * pixel_um.y if pixel_um else 0
    )
    return Proposed(
        image.id,
        image.name,
        len(proposals),
        area_um2 / 1e6 if pixel_um else None,
        time.monotonic() - started,
        len(earlier),
    )


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


def _mark_written(image: ProjectImage, ledger: Ledger, record: ImageRecord) -> None:
    present = {annotation.id for annotation in image.annotations()}
    for kept in record.proposals:
        kept.replaced = kept.written and kept.id not in present
        kept.written = True
    record.seen = look(image, record)
    ledger.save_image(record)


def _finish_broken_off(ledger: Ledger, statuses: Any) -> None:
    """Complete the record of proposals that a crash left in the project but not in the ledger."""
    for status in statuses:
        if status.state is not State.PROPOSED:
            continue
        record = ledger.image(status.image.id, status.image.name)
        if any(not kept.written for kept in record.proposals):
            present = {annotation.id for annotation in status.image.annotations()}
            record.proposals = [
                kept for kept in record.proposals if kept.written or kept.id in present
            ]
            _mark_written(status.image, ledger, record)
