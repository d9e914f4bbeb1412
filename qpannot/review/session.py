"""A person's way through the queue that the loop decided. Knows nothing of windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from qpannot.bootstrap.ledger import Ledger
from qpannot.bootstrap.proposing import QUPATH_CLASSES, SPARE_COLORS
from qpannot.bootstrap.readers.readings import hand_over
from qpannot.bootstrap.states import ImageStatus, survey
from qpannot.bootstrap.words import mirror, remember
from qpannot.console import Each, silent
from qpannot.errors import ReadOnlyError, UsageError
from qpannot.geometry import Mpp
from qpannot.heatmap import heatmap_path
from qpannot.linking import check_is_slide, known_slides, open_image
from qpannot.qupath import PathClass, Project, ProjectImage
from qpannot.recipe import BASE, Recipe, load_recipe
from qpannot.review.opened import Opened
from qpannot.review.queue import NOTE, Item, Reader, queue_of, refreshed
from qpannot.review.saved import ChangedMeanwhileError, NothingAnnotatedError, Saved

__all__ = [
    "NOTE",
    "ChangedMeanwhileError",
    "Item",
    "NothingAnnotatedError",
    "Opened",
    "Saved",
    "Session",
    "classes_of",
]

MAX_CLASSES = 254
"""A mask has room for so many, and for what is not painted."""


class Session:
    """A person's way through the slides that wait.

    Parameters
    ----------
    project
        Opened for writing.
    by
        Whatever the person wants to be known as; may be empty.
    second_reader
        Reads what others have reviewed, and says ``approved``.
    independent
        Draws alone, on annotations that carry the name ``by``.
    images
        IDs of the images to go through, in the order of the loop; by default those that wait for
        this reader, and then those that are done.
    mpp
        Resolution of slides of which neither the project nor the file tells it.
    tool
        Where the person works, for the record of the effort.
    clock
        Seconds that only ever grow, by which effort is measured.
    each
        Told of each image while the queue is made.

    Raises
    ------
    UsageError
        An independent reader has no name, or is a second reader.
    ReadOnlyError
        The project is open for reading.
    """

    def __init__(
        self,
        project: Project,
        *,
        by: str = "",
        second_reader: bool = False,
        independent: bool = False,
        images: Sequence[str] | None = None,
        mpp: Mpp | None = None,
        tool: str = "napari",
        clock: Callable[[], float] = time.monotonic,
        each: Each = silent,
    ) -> None:
        if project.mode == "r":
            raise ReadOnlyError(project.path)
        if independent and (not by or second_reader):
            raise UsageError(
                "An independent reader needs a name, and is no second reader.",
                hint="Give the name that the annotations shall carry (--by NAME), and leave out "
                "--second-reader: that is who approves what others have reviewed.",
            )
        self.project, self.by, self.second_reader = project, by, second_reader
        self.independent = independent
        self._reader = Reader(by, second_reader, independent)
        self._mpp, self._tool, self._clock = mpp, tool, clock
        self._known = known_slides(project)
        ledger = Ledger.of(project)
        statuses = survey(project, ledger, each, at_a_glance=True)
        remember(ledger, statuses)
        mirror(project, ledger, statuses)
        found = queue_of(project, statuses, self._reader, images)
        self._queue = [item for item in found if _why_not(item) is None]
        self.left_out = tuple(
            (item.image, why) for item in found if (why := _why_not(item)) is not None
        )
        """Images that cannot be opened, and why."""
        self.current: Opened | None = None
        """What is open."""

    @property
    def queue(self) -> tuple[Item, ...]:
        """The slides in the order in which they come, as they stand now."""
        return tuple(self._queue)

    @property
    def position(self) -> int | None:
        """Where in the queue the open slide is, from 0."""
        if self.current is None:
            return None
        return self._place(self.current.image.id)

    @property
    def waiting(self) -> int:
        """How many slides of the queue wait for this reader."""
        return sum(not item.done for item in self._queue)

    def open(self, image_id: str | None = None) -> Opened:
        """Open an image of the queue, by default the first that waits. What was open is closed.

        Raises
        ------
        UsageError
            It is not in the queue, or nothing waits.
        QpannotError
            Its slide or annotations cannot be read.
        """
        if image_id is None:
            waits = [item for item in self._queue if not item.done]
            if not waits:
                raise UsageError(
                    "No slide waits for a "
                    + ("second reader." if self.second_reader else "person."),
                    hint="'qpannot status' shows how the slides stand.",
                )
            item = waits[0]
        else:
            place = self._place(image_id)
            if place is None:
                raise UsageError(
                    f"The image {image_id} is not in the queue of this session.",
                    hint="Begin another session with this image.",
                )
            item = self._queue[place]
        return self._open(item)

    def _open(self, item: Item) -> Opened:
        self.close()
        image = item.image
        check_is_slide(image, self._known.get(image.id))
        slide = open_image(image, fallback_mpp=self._mpp)
        try:
            if self.second_reader:
                hand_over(Ledger.of(self.project), image)
            self.current = Opened(
                self.project,
                item,
                self._reader,
                slide,
                heatmap_of(Ledger.of(self.project), image),
                classes_of(self.project, image, self._recipe()),
                tell=self._note_status,
                tool=self._tool,
                clock=self._clock,
            )
        except BaseException:
            slide.close()
            raise
        return self.current

    def _recipe(self) -> Recipe:
        return Ledger.of(self.project).recipe() or load_recipe(BASE)

    def next(self) -> Opened | None:
        """Open the next that waits: after the open one, then from the beginning of the queue.

        ``None`` where no other waits; what is open then stays so.
        """
        here = self.position
        first = 0 if here is None else here + 1
        around = [*self._queue[first:], *self._queue[: max(0, first - 1)]]
        waits = [item for item in around if not item.done]
        return self._open(waits[0]) if waits else None

    def previous(self) -> Opened | None:
        """Open the one before the open one in the queue, done or not; ``None`` at its beginning."""
        here = self.position
        return self._open(self._queue[here - 1]) if here else None

    def skip(self) -> Opened | None:
        """Put the open slide to the end of this session's queue, and open the next that waits.

        Nothing is said of it, and what was painted stays in its journal.
        """
        here = self.position
        if here is None:
            return self.next()
        skipped = self._queue.pop(here)
        waits = [item for item in [*self._queue[here:], *self._queue[:here]] if not item.done]
        self._queue.append(skipped)
        return self._open(waits[0]) if waits else None

    def touched(self) -> None:
        """Say that the person did something, as moving the view: it counts as work."""
        if self.current is not None:
            self.current.touched()

    def close(self) -> None:
        """Close what is open. What was painted and not saved is there again next time."""
        opened, self.current = self.current, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _place(self, image_id: str) -> int | None:
        places = [n for n, item in enumerate(self._queue) if item.image.id == image_id]
        return places[0] if places else None

    def _note_status(self, status: ImageStatus) -> None:
        place = self._place(status.image.id)
        assert place is not None
        ledger = Ledger.of(self.project)
        self._queue[place] = refreshed(self._queue[place], status, ledger, self._reader)


def _why_not(item: Item) -> str | None:
    """Return why a slide of the queue cannot be opened."""
    if item.status.error is not None:
        return item.status.error.message
    return f"the slide is not at {item.image.path}" if item.status.slide_is_missing else None


def heatmap_of(ledger: Ledger, image: ProjectImage) -> Path | None:
    """Return the heatmap of an image by the model that is kept, the refined one if there is one."""
    names = [name for name in (ledger.kept_refinement(), ledger.kept_model()) if name]
    paths = [heatmap_path(ledger.heatmap_folder(name), image.id) for name in names]
    return next((path for path in paths if path.is_file()), None)


def classes_of(project: Project, image: ProjectImage, recipe: Recipe) -> tuple[PathClass, ...]:
    """Return the classes to paint with: the recipe's, those of the project, those of the image.

    QuPath's ``Ignore*`` is one of them, ``Region*`` is none. Each has a colour, the project's if
    that has one.
    """
    offered = project.classes or QUPATH_CLASSES
    labels = recipe.labels
    rest = [labels.rest] if labels.coverage == "partial" else []
    present = [each.path_class for each in image.annotations() if each.path_class is not None]
    wanted = [
        *map(PathClass, (recipe.proposal.class_name, *labels.classes, *rest)),
        *offered,  # before what is drawn, so that a class keeps its key from slide to slide
        PathClass("Ignore*"),
        *present,
    ]
    colors = {each.name: each.color for each in (*QUPATH_CLASSES, *present, *offered) if each.color}
    names = dict.fromkeys(each.name for each in wanted if each.name != "Region*")
    spare = iter(SPARE_COLORS * len(names))
    return tuple(
        PathClass(name, colors.get(name) or next(spare)) for name in list(names)[:MAX_CLASSES]
    )
