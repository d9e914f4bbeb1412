"""``qpannot demo``: the loop on made slides with known tumours, a simulated pathologist in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpannot.cli.network import SPARSE
from qpannot.cli.outcomes import advice_on, show_outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpannot.demo import DemoSlide
    from qpannot.qupath import Project

HELD_OUT = 2
"""Slides at the end that the simulated pathologist never sees."""

LEAST = 5
"""Slides: two rounds of corrections, and those held out."""


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to make it.")] = Path(
        "qpannot-demo"
    ),
    slides: Annotated[int, typer.Option(min=LEAST, max=200, help="How many slides.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Other numbers make other slides.")] = 0,
    size: Annotated[
        int, typer.Option(help="Width and height of a slide in pixels, a multiple of 256.")
    ] = 10_240,
) -> None:
    """Run two rounds of the loop on synthetic slides with known tumours, in a few minutes.

    A simulated pathologist corrects what is proposed, by the known tumours and a little carelessly,
    on all slides but the last two. After each round it says how well these two are outlined, whose
    tumours no network was ever shown. No QuPath, no Java and no GPU are needed; open the project in
    QuPath afterwards, or look at the pictures and reports. Repeating the command goes on where it
    was.

    Example: qpannot demo
    """
    from itertools import count

    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.loop import bootstrap
    from qpannot.bootstrap.reporting import write_report
    from qpannot.bootstrap.states import survey
    from qpannot.cli.drawing import write_pictures
    from qpannot.console import progress, say, stages
    from qpannot.demo import make_demo_slides
    from qpannot.linking import describe_slide
    from qpannot.qupath import open_project
    from qpannot.recipe import load_recipe

    done = count(1)
    with progress("Making slides") as advance:
        advance("the first, with its textures", 0, slides)
        made = make_demo_slides(
            folder / "slides",
            count=slides,
            seed=seed,
            size_px=size,
            progress=lambda slide: advance(
                f"after {slide.name}", min(next(done), slides - 1), slides
            ),
        )
    truth = {slide.path.name: slide for slide in made}
    held_out = [slide.path.name for slide in made[-HELD_OUT:]]
    corrected = [slide.path.name for slide in made[:-HELD_OUT]]
    n_first = max(2, len(corrected) * 3 // 4)
    queue = [corrected[:n_first], corrected[n_first:]]
    recipe = load_recipe("quick", ["round.slides=null", "round.train_after=1"])
    project_folder = folder / "project"
    exists = bool(list(project_folder.glob("*.qpproj")))
    told: list[tuple[str, float]] = []
    with open_project(project_folder, "r+" if exists else "x") as project:
        known = {image.name for image in project.images}
        project.add_images(
            [
                describe_slide(
                    slide.path,
                    image_type="BRIGHTFIELD_H_E",
                    metadata={"patient": slide.patient, "grade": slide.grade},
                )
                for slide in made
                if slide.path.name not in known
            ]
        )
        for number, names in enumerate([[], *queue], 1):
            if names:
                _correct(project, names, truth, seed=seed + number)
                say(f"\nThe simulated pathologist corrected {', '.join(names)}.")
            with stages(quiet=("Looking",), sparse=SPARSE) as each:
                outcome = bootstrap(project, recipe, each=each)
            report = write_report(project, outcome, advice_on(project, outcome))
            show_outcome(project, outcome, report)
            dice = _mean_dice(project, held_out, truth)
            told.append((f"after round {number}", dice))
            say(f"Dice on the slides no network was shown: {dice:.3f}")
        write_pictures(survey(project, Ledger.of(project)), folder / "pictures")
        say(f"\nPictures: {folder / 'pictures' / 'overview.png'}")
        say(f"Project, for QuPath: {project.path}")
    say(f"Dice on {' and '.join(held_out)}, whose tumours no network was shown:")
    for when, dice in told:
        say(f"  {when}: {dice:.3f}")


def _correct(
    project: Project, names: list[str], truth: Mapping[str, DemoSlide], *, seed: int
) -> None:
    """Correct the proposals of images as a person does in QuPath, and say that they are right."""
    import numpy as np

    from qpannot.bootstrap.review import say
    from qpannot.bootstrap.states import State
    from qpannot.demo.pathologist import correct
    from qpannot.qupath.proposals import is_untouched

    tumor = next(known for known in project.classes if known.name == "Tumor")
    for image in project.images:
        proposals = [each for each in image.annotations() if is_untouched(each)]
        if image.name not in names or not proposals:
            continue
        slide = truth[image.name]
        rng = np.random.default_rng([seed, names.index(image.name)])
        found = correct(proposals, slide.tumour, tumor, mpp=slide.mpp, rng=rng)
        image.write_annotations(add=found.add, replace=found.replace, remove=found.remove)
        say(project, [image], State.REVIEWED, by="the simulated pathologist", allow_empty=True)


def _mean_dice(project: Project, names: list[str], truth: Mapping[str, DemoSlide]) -> float:
    from statistics import fmean

    import shapely

    return fmean(
        truth[image.name].dice(
            shapely.union_all([annotation.geometry for annotation in image.annotations()])
        )
        for image in project.images
        if image.name in names
    )
