"""The slides of a report, with pictures of the worst."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qpannot.bootstrap.cropping import crop_to_tissue
from qpannot.bootstrap.evaluating.designs import Design
from qpannot.bootstrap.evaluating.evaluation import Evaluation
from qpannot.bootstrap.evaluating.report import SlideRow, number
from qpannot.bootstrap.evaluating.running import Measured, truth_of
from qpannot.bootstrap.report import PICTURES
from qpannot.bootstrap.reporting import OVERVIEW_PX
from qpannot.bootstrap.truth import Lesson
from qpannot.bootstrap.work import Work
from qpannot.errors import QpannotError
from qpannot.evaluation.measuring import predicted_area
from qpannot.geometry import Size
from qpannot.pictures import COMPARED_PX, compared, small_png
from qpannot.sampling import Opener, Part


def slide_rows(
    work: Work, evaluation: Evaluation, openers: Mapping[str, Opener]
) -> Iterable[SlideRow]:
    """Yield the slides of the design that is judged, the worst first, those pictured in front."""
    judged = [own for own in evaluation.measured if own.design == evaluation.judged]
    judged.sort(key=lambda own: (own.result().metrics["dice"], own.slide))
    lessons = {lesson.image.id: lesson for lesson in evaluation.selection.lessons}
    design = next((own for own in evaluation.designs if own.name == evaluation.judged), None)
    for place, own in enumerate(judged):
        key = own.image.id
        picture = None
        if design is not None and place < PICTURES:
            work.each("Drawing", own.slide, place, min(len(judged), PICTURES))
            picture = _picture(work, design, lessons[key], openers[key])
        metrics = own.result().metrics
        yield SlideRow(
            own.slide,
            (
                _part(own, evaluation.selection.parts[key]),
                *(number(metrics[name]) for name in ("dice", "recall", "precision")),
                number(metrics["hd95_um"], 1),
                number(metrics["ece"]),
            ),
            {
                other.design: other.result().metrics["dice"]
                for other in evaluation.measured
                if other.image.id == key
            },
            picture,
        )


def _part(own: Measured, part: Part) -> str:
    known = {Part.TRAIN: "fitted to", Part.VALIDATION: "chosen by"}
    return f"{part} ({known[own.seen]})" if own.seen in known else str(part)


def _picture(work: Work, design: Design, lesson: Lesson, opener: Opener) -> bytes | None:
    truth, _ = truth_of(lesson, work.recipe)
    settings = work.recipe.evaluation
    try:
        heatmap = design.heatmap(lesson.image.id, opener, lambda done, total: None)
        with opener() as slide:
            overview, size = slide.thumbnail(Size(OVERVIEW_PX, OVERVIEW_PX)), slide.size
    except QpannotError:
        return None  # the table has the numbers
    found = {name: predicted_area(heatmap, size, name, settings) for name in truth}
    part = crop_to_tissue(
        overview, size, [*truth.values(), *found.values()], longest_px=COMPARED_PX
    )
    before, after = (
        {name: part.moved(area) for name, area in areas.items()} for areas in (found, truth)
    )
    return small_png(compared(part.overview, part.full_size, before, after))
