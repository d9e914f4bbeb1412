"""What reviewed slides teach: which of their annotations are true, and the patches they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.readers.apart import readers_of
from qpannot.bootstrap.readers.merging import merged
from qpannot.bootstrap.states import REVIEWED, ImageStatus, is_vouched, key_of
from qpannot.console import Each, silent
from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.linking import check_is_slide, known_slides, open_image
from qpannot.qupath import Annotation, Project, ProjectImage
from qpannot.qupath.proposals import is_untouched
from qpannot.recipe import Recipe
from qpannot.sampling import Opener, PatchTable, opener_of, stored_index

Failures = list[tuple[ProjectImage, QpannotError]]


@dataclass(frozen=True)
class Lesson:
    """A reviewed slide.

    Parameters
    ----------
    annotations
        All of the image's, in QuPath's order; where several people read it independently, one set
        made of theirs (`qpannot.bootstrap.readers.merging`).
    is_vouched
        Whether a person said that they are right, all of them. Else the person changed some:
        proposals that nobody touched are then no truth, and nothing is learned where they lie.
    key
        See `states.key_of`.
    """

    image: ProjectImage
    annotations: tuple[Annotation, ...]
    is_vouched: bool
    key: str

    def is_truth(self, annotation: Annotation) -> bool:
        """Tell whether an annotation may be learned from."""
        return self.is_vouched or not is_untouched(annotation)

    @property
    def untouched(self) -> int:
        """How many proposals are not learned from."""
        return sum(not self.is_truth(annotation) for annotation in self.annotations)


def lessons_of(
    statuses: Iterable[ImageStatus], ledger: Ledger, recipe: Recipe, each: Each = silent
) -> tuple[list[Lesson], Failures]:
    """Return the reviewed slides among images, and those whose annotations cannot be read.

    Parameters
    ----------
    each
        Told of each slide that several people read, in the stage ``Merging readings``: outlines of
        hundreds of thousands of vertices take seconds.
    """
    lessons: list[Lesson] = []
    failed: Failures = []
    reviewed = [own for own in statuses if not own.error and own.state in REVIEWED]
    for done, status in enumerate(reviewed):
        image = status.image
        if status.seen and status.seen.annotators:
            each("Merging readings", image.name, done, len(reviewed))
        try:
            record = ledger.image(image.id, image.name)
            key = key_of(status, ledger, recipe.annotators.rule)
            annotations = truth_in(image.annotations(), image, record, recipe)
            lessons.append(Lesson(image, annotations, is_vouched(image, record), key))
        except QpannotError as error:
            failed.append((image, error))
    return lessons, failed


def truth_in(
    annotations: Sequence[Annotation], image: ProjectImage, record: ImageRecord, recipe: Recipe
) -> tuple[Annotation, ...]:
    """Return which annotations of an image tell the truth of it, all of them or what is merged.

    Whatever trains or judges sees this one set.

    Parameters
    ----------
    annotations
        All of the image's.
    """
    readers = readers_of(annotations, record, is_vouched=is_vouched(image, record))
    return tuple(annotations) if readers is None else merged(readers, recipe)


def metadata_of(project: Project) -> dict[str, Mapping[str, str]]:
    """Return the metadata of every image, by image ID."""
    return {image.id: image.metadata for image in project.images}


@dataclass
class Material:
    """What a network is trained and judged on, by image ID.

    Parameters
    ----------
    tables
        The labelled patches.
    openers
        What opens the slides.
    metadata
        The images' own.
    failed
        Slides that cannot be learned from.
    """

    tables: dict[str, PatchTable] = field(default_factory=dict)
    openers: dict[str, Opener] = field(default_factory=dict)
    metadata: dict[str, Mapping[str, str]] = field(default_factory=dict)
    failed: Failures = field(default_factory=list)


def material_of(
    project: Project,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    folder: Path,
    *,
    mpp: Mpp | None = None,
    each: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Material:
    """Return the patches of reviewed slides, from the tables in a folder where those still fit.

    A slide that cannot be read is left out and named.

    Parameters
    ----------
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    each
        Called before each slide with its name, how many are done, and how many there are.
    """
    known = known_slides(project)
    material = Material()
    for done, lesson in enumerate(lessons):
        image = lesson.image
        each(image.name, done, len(lessons))
        try:
            check_is_slide(image, known.get(image.id))
            with open_image(image, fallback_mpp=mpp) as slide:
                table = stored_index(
                    folder,
                    image.id,
                    slide,
                    lesson.annotations,
                    recipe,
                    is_truth=lesson.is_truth,
                )
                material.openers[image.id] = opener_of(slide)
        except QpannotError as error:
            material.failed.append((image, error))
            continue
        material.tables[image.id] = table
        material.metadata[image.id] = image.metadata
    return material
