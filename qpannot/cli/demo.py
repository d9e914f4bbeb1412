"""``qpannot demo``: a project of made slides with known tumours, and the main job run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to make it.")] = Path(
        "qpannot-demo"
    ),
    slides: Annotated[int, typer.Option(min=1, max=200, help="How many slides.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Other numbers make other slides.")] = 0,
    size: Annotated[
        int, typer.Option(help="Width and height of a slide in pixels, a multiple of 256.")
    ] = 10_240,
) -> None:
    """Make synthetic slides with known tumours, a QuPath project of them, and run round 1.

    Six slides take one to two minutes. Open the project in QuPath afterwards, or look at the
    pictures it writes. Repeating the command goes on where it was.

    Example: qpannot demo
    """
    from itertools import count

    import shapely

    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.loop import bootstrap
    from qpannot.bootstrap.states import survey
    from qpannot.cli.drawing import write_pictures
    from qpannot.cli.loop import show_outcome
    from qpannot.console import progress, say, stages
    from qpannot.demo import DemoSlide, make_demo_slides
    from qpannot.linking import describe_slide
    from qpannot.qupath import open_project
    from qpannot.recipe import load_recipe

    made_so_far = count(1)
    with progress("Making slides") as advance:

        def next_after(slide: DemoSlide) -> None:
            if (done := next(made_so_far)) < slides:
                advance(f"after {slide.name}", done, slides)

        advance("the first, with its textures", 0, slides)
        made = make_demo_slides(
            folder / "slides",
            count=slides,
            seed=seed,
            size_px=size,
            progress=next_after,
        )
    project_folder = folder / "project"
    exists = bool(list(project_folder.glob("*.qpproj")))
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
        with stages(quiet=("Looking",)) as each:
            outcome = bootstrap(project, load_recipe("quick"), each=each)
        write_pictures(survey(project, Ledger.of(project)), folder / "pictures")
        show_outcome(project, outcome)
        truth = {slide.path.name: slide for slide in made}
        dices = [
            truth[image.name].dice(shapely.union_all([a.geometry for a in image.annotations()]))
            for image in project.images
            if image.name in truth
        ]
        say(
            f"Dice of the annotations against the known tumours: {sum(dices) / len(dices):.3f} on "
            "average. (Round 1 outlines all tissue; a person cuts away what is not tumour.)"
        )
        say(f"Pictures: {folder / 'pictures' / 'overview.png'}")
