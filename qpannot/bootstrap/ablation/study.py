"""What all designs of an ablation study share: its slides, divided once and for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from qpannot.bootstrap.predicting import openers_of
from qpannot.bootstrap.states import survey
from qpannot.bootstrap.truth import Failures, Lesson, lessons_of
from qpannot.bootstrap.work import Work
from qpannot.console import counted
from qpannot.errors import QpannotError
from qpannot.qupath.files import write_atomically
from qpannot.sampling import Opener, Part, split_slides

SPLIT = "split.json"
SHOWN = 5


class KeptSlide(BaseModel):
    """What a slide was for, and how it was annotated, when the study began."""

    name: str
    part: Part
    key: str


class _Split(BaseModel):
    format: Literal[1] = 1
    slides: dict[str, KeptSlide]


@dataclass(frozen=True)
class Study:
    """The slides of an ablation study.

    Parameters
    ----------
    folder
        Where everything is kept.
    slides
        By image ID, as they were when the study began.
    lessons
        Those of them that are reviewed and can be read now.
    openers
        What opens these, by image ID.
    failed
        Slides that cannot be read.
    newer
        Names of slides that were reviewed since, and are left out.
    """

    work: Work
    folder: Path
    slides: Mapping[str, KeptSlide]
    lessons: tuple[Lesson, ...]
    openers: Mapping[str, Opener]
    failed: Failures
    newer: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Part]:
        """What each slide is for, by image ID."""
        return {key: own.part for key, own in self.slides.items()}

    @property
    def told(self) -> str:
        """How the slides are divided, in words."""
        parts = list(self.parts.values())
        shares = ", ".join(f"{parts.count(part)} {part}" for part in Part)
        return f"One split of {counted(len(parts), 'reviewed slide')} for all designs: {shares}."

    def check_is_unchanged(self) -> None:
        """See that a design would be trained on what the others were trained on.

        Raises
        ------
        QpannotError
            Slides that teach or choose are annotated otherwise by now, or cannot be read.
        """
        now = {lesson.image.id: lesson.key for lesson in self.lessons}
        used = {key: own for key, own in self.slides.items() if own.part is not Part.TEST}
        gone = [own.name for key, own in used.items() if key not in now]
        changed = [own.name for key, own in used.items() if now.get(key, own.key) != own.key]
        if gone or changed:
            told = [
                f"{', '.join(names[:SHOWN])}{' and others' if names[SHOWN:] else ''} {what}"
                for names, what in (
                    (gone, "cannot be read, or are not reviewed any more"),
                    (changed, "are annotated otherwise"),
                )
                if names
            ]
            raise QpannotError(
                f"Since the study in {self.folder} began, {'; '.join(told)}: designs that are "
                "trained now could not be compared with the others.",
                hint="Bring them back as they were, or begin anew in another folder: -o FOLDER",
            )


def open_study(work: Work, folder: Path) -> Study:
    """Return the slides of a study, divided as they were when it began, or now.

    Parameters
    ----------
    folder
        Of the study; made where it is missing.

    Raises
    ------
    QpannotError
        There is no slide to learn from, or the record in the folder is damaged.
    """
    lessons, failed = lessons_of(
        survey(work.project, work.ledger, work.each), work.ledger, work.recipe, work.each
    )
    openers, unreadable = openers_of(work, [lesson.image for lesson in lessons])
    readable = tuple(lesson for lesson in lessons if lesson.image.id in openers)
    path = folder / SPLIT
    if path.exists():
        slides = _read(path)
    else:
        slides = _divided(work, readable)
        text = json.dumps(
            _Split(slides=slides).model_dump(mode="json"), indent=1, ensure_ascii=False
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (text + "\n").encode())
    newer = tuple(lesson.image.name for lesson in readable if lesson.image.id not in slides)
    return Study(
        work,
        folder,
        slides,
        tuple(lesson for lesson in readable if lesson.image.id in slides),
        openers,
        [*failed, *unreadable],
        newer,
    )


def _divided(work: Work, lessons: tuple[Lesson, ...]) -> dict[str, KeptSlide]:
    if not lessons:
        raise QpannotError(
            f"{work.project.path}: no slide is reviewed, or none of them can be read.",
            hint="Annotate slides in QuPath, or say that their proposals are right: "
            "qpannot approve IMAGE",
        )
    metadata = {lesson.image.id: lesson.image.metadata for lesson in lessons}
    parts = split_slides(metadata, work.recipe.split, work.ledger.parts())
    return {
        lesson.image.id: KeptSlide(
            name=lesson.image.name, part=parts[lesson.image.id], key=lesson.key
        )
        for lesson in lessons
    }


def _read(path: Path) -> dict[str, KeptSlide]:
    try:
        return _Split.model_validate_json(path.read_bytes()).slides
    except ValidationError as error:
        raise QpannotError(
            f"{path} is damaged, or of a newer qpannot.",
            hint="Begin anew in another folder: -o FOLDER",
        ) from error
