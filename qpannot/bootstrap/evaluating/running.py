"""Designs over reviewed slides: what each measures there, and how long a slide takes."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from shapely.geometry.base import BaseGeometry

from qpannot.bootstrap.advice import labels
from qpannot.bootstrap.evaluating.designs import Design, Runner
from qpannot.bootstrap.evaluating.store import Store, key_of
from qpannot.bootstrap.scoring import judged_area
from qpannot.bootstrap.truth import Failures, Lesson
from qpannot.bootstrap.work import Work
from qpannot.errors import QpannotError
from qpannot.evaluation.measuring import ClassMeasures, mean_of_classes, measure
from qpannot.evaluation.statistics import SlideResult
from qpannot.inference.choosing import cores
from qpannot.qupath import ProjectImage
from qpannot.recipe import Recipe
from qpannot.sampling import Opener, Part
from qpannot.sampling.areas import resolve_areas
from qpannot.slide import Slide
from qpannot.tissue import detect_tissue

logger = logging.getLogger(__name__)

STAGE = "Evaluating"


@dataclass(frozen=True, eq=False)
class Measured:
    """A design on a slide.

    Parameters
    ----------
    slide
        What the slide is called; no other is called so.
    seen
        What the design knows the slide from, if it does.
    classes
        What was measured of each class.
    """

    design: str
    image: ProjectImage
    slide: str
    seen: Part | None
    classes: Mapping[str, ClassMeasures]

    def result(self, class_name: str | None = None) -> SlideResult:
        """Return the metrics of a class, or the means over the classes."""
        own = self.classes
        metrics = mean_of_classes(own) if class_name is None else own[class_name].metrics
        return SlideResult(self.design, self.slide, metrics, self.image.metadata)


@dataclass
class Measurements:
    """All designs on all slides.

    Parameters
    ----------
    measured
        Design by design, and within it slide by slide.
    reused
        How many of them an earlier run had measured.
    failed
        Slides that could not be measured, each as often as it could not.
    """

    measured: list[Measured] = field(default_factory=list)
    reused: int = 0
    failed: Failures = field(default_factory=list)


def truth_of(lesson: Lesson, recipe: Recipe) -> tuple[dict[str, BaseGeometry], BaseGeometry | None]:
    """Return the area of each class that a person says is there, and where that person looked.

    ``None`` for the latter is everywhere.
    """
    areas = resolve_areas(lesson.annotations, recipe.labels, is_truth=lesson.is_truth)
    return (
        dict(zip(recipe.labels.classes, areas.classes, strict=True)),
        judged_area(areas, recipe),
    )


def measure_designs(
    work: Work,
    designs: Sequence[Design],
    lessons: Sequence[Lesson],
    openers: Mapping[str, Opener],
    store: Store,
) -> Measurements:
    """Measure designs on reviewed slides.

    What a store holds and still fits is not measured again: the annotations, the slide, the design
    and the settings are the same. A slide that fails for a design is left out there, and named.

    Parameters
    ----------
    designs
        Of different names.
    lessons
        The slides, with a person's annotations.
    openers
        What opens them, by image ID; slides without are left out.
    store
        Where measurements are kept.
    """
    settings = work.recipe.evaluation
    decisive = (
        {"mpp": settings.mpp, "threshold": settings.threshold, "bins": settings.calibration_bins},
        work.recipe.labels.model_dump(mode="json"),
        work.recipe.tissue.model_dump(mode="json"),
    )
    called = labels(work.project.images)
    readable = [lesson for lesson in lessons if lesson.image.id in openers]
    found = Measurements()
    tissues: dict[str, Sequence[BaseGeometry]] = {}
    tasks = [(design, lesson) for design in designs for lesson in readable]
    total = len(tasks)
    for done, (design, lesson) in enumerate(tasks):
        image = lesson.image
        opener = openers[image.id]
        what = f"{called[image.id]}, {design.name}"

        def show(patch: int, patches: int, at: int = done, what: str = what) -> None:
            name = f"{what} ({patch:,}/{patches:,} patches)"
            work.each(STAGE, name, at + patch / max(1, patches), total)

        work.each(STAGE, what, done, total)
        try:
            with opener() as slide:
                key, size = key_of(design.key(slide), lesson.key, decisive), slide.size
            classes = store.measures(design.name, image.id, key)
            if classes is None:
                truth, within = truth_of(lesson, work.recipe)
                if image.id not in tissues and not design.is_baseline:
                    with opener() as slide:
                        tissues[image.id] = detect_tissue(slide, work.recipe.tissue)
                classes = measure(
                    design.heatmap(image.id, opener, show),
                    size,
                    truth,
                    settings,
                    within=within,
                    tissue=tissues.get(image.id),
                    is_probability=not design.is_baseline,
                )
                store.keep_measures(design.name, image.id, key, classes)
            else:
                found.reused += 1
        except QpannotError as error:
            found.failed.append((image, error))
            continue
        except Exception as error:
            logger.exception("%s: evaluating it failed in a way nobody foresaw", what)
            unforeseen = QpannotError(
                f"{what}: {type(error).__name__}: {error}",
                hint="Report this with the log, which tells where it happened.",
            )
            unforeseen.__cause__ = error
            found.failed.append((image, unforeseen))
            continue
        seen = design.seen.get(image.id)
        found.measured.append(Measured(design.name, image, called[image.id], seen, classes))
    return found


@dataclass(frozen=True)
class Runtime:
    """How long one slide took a design on one engine.

    Parameters
    ----------
    seconds
        Of each repetition, by stage; ``Total`` is all of them.
    """

    design: str
    engine: str
    seconds: Mapping[str, Sequence[float]]


def time_designs(
    work: Work,
    designs: Sequence[Design],
    lessons: Sequence[Lesson],
    openers: Mapping[str, Opener],
    repeat: int,
    store: Store,
) -> tuple[list[Runtime], Lesson | None, Failures]:
    """Run designs again and again on one slide, that of middle size, on each engine there is.

    Before the first run that counts one does not: it loads the engine, and the file into the
    system's cache.

    Parameters
    ----------
    repeat
        How many runs count.
    store
        What was timed on this machine, with the same libraries, is not timed again.

    Returns
    -------
    list, Lesson, list
        The runtimes; the slide; the slide with the error where it failed.
    """
    sizes: list[tuple[int, str, Lesson]] = []
    for lesson in lessons:
        size = lesson.image.server.size
        if lesson.image.id in openers and size:
            sizes.append((size.width * size.height, lesson.image.id, lesson))
    if not sizes:
        return [], None, []
    chosen = sorted(sizes, key=lambda each: each[:2])[len(sizes) // 2][2]
    opener = openers[chosen.image.id]
    where = (_machine(), work.recipe.heatmap.batch_size)
    found: list[Runtime] = []
    tasks = [
        (design, number, runner)
        for design in designs
        for number, runner in enumerate(design.runners)
    ]
    total = len(tasks) * (repeat + 1)
    try:
        for place, (design, number, runner) in enumerate(tasks):
            with opener() as slide:
                key = key_of(design.key(slide), chosen.image.id, repeat, *where)
                kept = store.runs(design.name, number, key)
                if kept is None:
                    kept = _timed(work, design, runner, slide, repeat, place, total)
                    store.keep_runs(design.name, number, key, *kept)
            engine, seconds = kept
            is_known = any((each.design, each.engine) == (design.name, engine) for each in found)
            if engine and not is_known:  # what does not suit the model gives way to torch
                found.append(Runtime(design.name, engine, seconds))
    except QpannotError as error:
        return found, chosen, [(chosen.image, error)]
    return found, chosen, []


def _machine() -> list[object]:
    """Return what seconds depend on beside the work itself."""
    import torch

    engines = {}
    for name in ("torch", "openvino", "onnxruntime"):
        with contextlib.suppress(PackageNotFoundError):
            engines[name] = version(name)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return [platform.node(), cores(), gpu, engines]


def _timed(
    work: Work,
    design: Design,
    runner: Runner,
    slide: Slide,
    repeat: int,
    place: int,
    total: int,
) -> tuple[str, dict[str, list[float]]]:
    seconds: dict[str, list[float]] = defaultdict(list)
    engine = ""
    for run in range(repeat + 1):
        work.each(
            "Timing", f"{design.name}, run {run} of {repeat}", place * (repeat + 1) + run, total
        )
        timed = runner(slide)
        engine = timed.engine
        if run:
            for stage, taken in timed.seconds.items():
                seconds[stage].append(taken)
            seconds["Total"].append(sum(timed.seconds.values()))
    return engine, dict(seconds)
