"""``qpannot demo``: the loop on made slides with known tumours, a simulated pathologist in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpannot.cli.common import SetOption
from qpannot.cli.network import SPARSE
from qpannot.cli.outcomes import show_outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpannot.bootstrap.ledger import Ledger, RoundRecord
    from qpannot.demo import DemoSlide
    from qpannot.qupath import Project, ProjectImage
    from qpannot.recipe import Recipe

HELD_OUT = 2
"""Slides at the end that are never corrected, of two patients."""

LEAST = 5
"""Slides: two rounds of corrections, and those held out."""

ROUNDS = 3
"""AN1, and two rounds with a network."""

PROCESSES = 4
"""That make slides, at most; each takes a gigabyte."""

SETTINGS = ("round.slides=null", "round.train_after=1")
"""In which the demo's recipe differs from ``quick``."""


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to make it.")] = Path(
        "qpannot-demo"
    ),
    slides: Annotated[
        int, typer.Option(min=LEAST, max=200, metavar="N", help="How many slides.")
    ] = 6,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Other numbers make other slides.")
    ] = 0,
    size: Annotated[
        int,
        typer.Option(
            metavar="PX", help="Width and height of a slide in pixels, a multiple of 256."
        ),
    ] = 10_240,
    set_: SetOption = None,
) -> None:
    """Run two rounds of the loop on synthetic slides with known tumours, in a few minutes.

    A simulated pathologist corrects what is proposed, by the known tumours and a little carelessly,
    on all slides but the last two. After each round it says how well these two are outlined, which
    no network was ever shown. No QuPath, no Java and no GPU are needed; open the
    project in QuPath afterwards, or look at the pictures and reports. Repeating the command goes on
    where it was, and only shows the figures once it is done.

    Example: qpannot demo
    """
    from qpannot.bootstrap.ledger import Ledger
    from qpannot.console import say
    from qpannot.qupath import open_project
    from qpannot.recipe import load_recipe

    recipe = load_recipe("quick", (*SETTINGS, *(set_ or ())))  # what is mistyped is told at once
    project_folder = folder / "project"
    exists = bool(list(project_folder.glob("*.qpproj")))
    if exists:
        _check_is_this_demo(project_folder, slides)
    made = _make_slides(folder / "slides", slides, seed, size)
    held_out = made[-HELD_OUT:]
    with open_project(project_folder, "r+" if exists else "x") as project:
        _add(project, made)
        ledger = Ledger.of(project)
        if _is_done(ledger.round(ROUNDS)):
            say("The demo is done already; nothing was trained or corrected again.")
        else:
            _run(project, ledger, made, recipe, seed)
        _show_end(folder, project, ledger, held_out)


def _check_is_this_demo(project_folder: Path, slides: int) -> None:
    from qpannot.errors import UsageError
    from qpannot.qupath import open_project

    with open_project(project_folder) as project:
        found = len(project.images)
    if found not in (0, slides):
        raise UsageError(
            f"{project_folder.parent} holds a demo of {found} slides, not of {slides}.",
            hint=f"Go on with that one by --slides {found}, or name another folder.",
        )


def _make_slides(folder: Path, count: int, seed: int, size: int) -> list[DemoSlide]:
    import os

    from qpannot.console import progress
    from qpannot.demo import make_demo_slides

    done = 0
    with progress("Making slides") as advance:
        advance("the first, with its textures", 0, count)

        def show(slide: DemoSlide) -> None:
            nonlocal done
            done += 1
            if done < count:
                advance(f"after {slide.name}", done, count)

        processes = min(os.cpu_count() or 1, PROCESSES)
        return make_demo_slides(
            folder, count=count, seed=seed, size_px=size, progress=show, processes=processes
        )


def _add(project: Project, made: Sequence[DemoSlide]) -> None:
    """Add the slides that are not in the project yet."""
    from qpannot.linking import describe_slide

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


def _run(
    project: Project, ledger: Ledger, made: Sequence[DemoSlide], recipe: Recipe, seed: int
) -> None:
    """Go through the rounds that are not done yet."""
    from qpannot.bootstrap.loop import bootstrap
    from qpannot.bootstrap.reporting import write_report
    from qpannot.cli.outcomes import advice_on
    from qpannot.console import say, stages

    held_out = made[-HELD_OUT:]
    queue = made[:-HELD_OUT]
    n_first = max(2, len(queue) * 3 // 4)
    to_correct = {2: queue[:n_first], 3: queue[n_first:]}
    say(
        f"The network will never be shown {_names(held_out)}; how well their "
        "tumours are outlined is measured by the truth that the generator knows. Dice: 1 where "
        "outlines are the same, 0 where they have nothing in common."
    )
    for number in range(1, ROUNDS + 1):
        if _is_done(ledger.round(number)) or (number == 1 and _has_first_proposals(project)):
            continue
        if number == 1:
            say("\nRound 1 (AN1): everything that a threshold takes for tissue is proposed.")
        else:
            slides = to_correct[number]
            _correct(project, slides, seed=seed + number)
            say(
                f"\nRound {number} (AN2): the simulated pathologist has corrected "
                f"{_names(slides)}. A network learns from all that was corrected so far, and "
                "outlines the other slides anew."
            )
        with stages(quiet=("Looking",), sparse=SPARSE) as each:
            outcome = bootstrap(project, recipe, each=each)
        report = write_report(project, outcome, advice_on(project, outcome))
        show_outcome(project, outcome, report, advise=False)
        dice = _dice_after(number, project, ledger, held_out)
        say(f"Dice with the true tumours of {_names(held_out)}: {dice:.3f}")


def _names(slides: Sequence[DemoSlide]) -> str:
    *others, last = [slide.path.name for slide in slides]
    return f"{', '.join(others)} and {last}" if others else last


def _is_done(record: RoundRecord | None) -> bool:
    return record is not None and record.is_complete


def _has_first_proposals(project: Project) -> bool:
    """Tell whether round 1 has been at every image."""
    from qpannot.bootstrap.ledger import Ledger

    ledger = Ledger.of(project)
    records = [ledger.image(image.id, image.name) for image in project.images]
    return all(record.standing or record.nothing_found for record in records)


def _correct(project: Project, slides: Sequence[DemoSlide], *, seed: int) -> None:
    """Correct the proposals of slides as a person does in QuPath, and say that they are right."""
    import numpy as np

    from qpannot.bootstrap.ledger import Ledger
    from qpannot.bootstrap.review import say
    from qpannot.bootstrap.states import State
    from qpannot.demo.pathologist import correct
    from qpannot.qupath.proposals import is_untouched

    ledger = Ledger.of(project)
    tumor = next(known for known in project.classes if known.name == "Tumor")
    images = _images(project)
    for index, slide in enumerate(slides):
        image = images[slide.path.name]
        if ledger.image(image.id, image.name).word:
            continue  # corrected before the demo was broken off
        proposals = [each for each in image.annotations() if is_untouched(each)]
        if proposals:
            rng = np.random.default_rng([seed, index])
            found = correct(proposals, slide.tumour, tumor, mpp=slide.mpp, rng=rng)
            image.write_annotations(add=found.add, replace=found.replace, remove=found.remove)
        say(project, [image], State.REVIEWED, by="the simulated pathologist", allow_empty=True)


def _images(project: Project) -> Mapping[str, ProjectImage]:
    return {image.name: image for image in project.images}


def _dice_after(
    number: int, project: Project, ledger: Ledger, slides: Sequence[DemoSlide]
) -> float:
    """Return the mean Dice of what was proposed for slides up to a round, as the ledger has it."""
    from statistics import fmean

    import shapely

    images = _images(project)
    last = max(
        record.number
        for record in ledger.rounds()
        if record.number <= number and _proposed_itself(record)
    )

    def dice(slide: DemoSlide) -> float:
        image = images[slide.path.name]
        proposals = ledger.image(image.id, image.name).proposals
        return slide.dice(
            shapely.union_all([each.shape for each in proposals if each.round == last])
        )

    return fmean(dice(slide) for slide in slides)


def _proposed_itself(record: RoundRecord) -> bool:
    """Tell whether a round made new proposals, rather than keep an earlier model and its own."""
    training, judgement = record.training, record.judgement
    return training is None or (judgement is not None and judgement.kept == training.model)


def _show_end(
    folder: Path, project: Project, ledger: Ledger, held_out: Sequence[DemoSlide]
) -> None:
    """Show the figures of every round, and where everything is."""
    from qpannot.bootstrap.states import survey
    from qpannot.cli.drawing import write_pictures
    from qpannot.console import say, show_table

    write_pictures(survey(project, ledger), folder / "pictures")
    say(f"\nDice with the true tumours of {_names(held_out)}, which no network was shown:")
    rows = []
    for number in range(1, ROUNDS + 1):
        record = ledger.round(number)
        assert record is not None
        how = "tissue threshold (AN1)"
        if record.training is not None:
            parts = record.training.parts
            teaching = sum(part == "train" for part in parts.values())
            how = f"network (AN2), {len(parts)} slides corrected, {teaching} of them to learn from"
        rows.append((f"{number}", how, f"{_dice_after(number, project, ledger, held_out):.3f}"))
    show_table(("round", "outlined by", "Dice"), rows)
    say(f"\nPictures: {folder / 'pictures' / 'overview.png'}")
    say(f"Reports:  {ledger.house / 'reports'}")
    say(f"Project, for QuPath: {project.path}")
    say(
        f"Correct {_names(held_out)} in QuPath yourself, and go on: "
        f"qpannot bootstrap {project.path.parent}"
    )
