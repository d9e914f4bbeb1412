"""The demo, small: what it prints is what the project, the ledger and the known truth say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import shapely

from qpannot.bootstrap.ledger import Ledger
from qpannot.demo import make_demo_slides
from qpannot.qupath import open_project

SMALL = ("--slides", "5", "--size", "1536")
BRIEF = (
    "patches.size_px=32",
    "network.encoder=test_resnet",
    "training.train_batches=10",
    "training.validation_batches=2",
    "training.epochs=2",
    "training.workers=0",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, here: Callable[..., Any]) -> tuple[Path, str]:
    """The folder of a demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    ended = here("demo", folder, *SMALL, *(part for each in BRIEF for part in ("--set", each)))
    assert ended.code == 0, ended.err
    return folder, ended.out


def test_the_demo_is_two_rounds_with_a_network(done: tuple[Path, str]) -> None:
    folder, said = done
    first, second, third = Ledger(folder / "project").rounds()
    assert first.training is None and second.training and third.training
    assert second.is_complete and third.is_complete and second.judgement and third.judgement
    assert set(second.training.slides) < set(third.training.slides)
    assert second.corrections  # of so small a network there may be nothing to correct
    assert "the simulated pathologist" in said
    assert len(list((folder / "project" / "qpannot" / "reports").glob("round-*.html"))) == 3
    assert (folder / "pictures" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_the_dice_it_prints_is_measured_by_the_truth_of_the_generator(
    done: tuple[Path, str],
) -> None:
    folder, said = done
    truth = {
        slide.path.name: slide
        for slide in make_demo_slides(folder / "slides", count=5, size_px=1536)
    }
    printed = re.findall(r"Dice with the true tumours of (.+) and (.+): (\d\.\d{3})", said)
    assert len(printed) == 3 and len({(one, other) for one, other, _ in printed}) == 1
    with open_project(folder / "project") as project:
        ledger = Ledger.of(project)
        third = ledger.round(3)
        held_out = [image for image in project.images if image.name in printed[0][:2]]
        dices = [
            truth[image.name].dice(shapely.union_all([a.geometry for a in image.annotations()]))
            for image in held_out
        ]
    assert len(held_out) == 2
    assert printed[2][2] == f"{fmean(dices):.3f}"
    assert third is not None and third.training is not None
    assert not {image.id for image in held_out} & set(third.training.slides)


def test_repeating_it_trains_nothing_again(
    done: tuple[Path, str], here: Callable[..., Any]
) -> None:
    folder, said = done
    models = folder / "project" / "qpannot" / "models"
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.is_file()}
    again = here("demo", folder, *SMALL)
    assert again.code == 0 and "done already" in again.out
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.is_file()} == before
    assert said.splitlines()[-8:] == again.out.splitlines()[-8:]


def test_another_number_of_slides_is_not_mixed_into_it(
    done: tuple[Path, str], here: Callable[..., Any]
) -> None:
    folder, _ = done
    ended = here("demo", folder, "--slides", "6", "--size", "1536")
    assert ended.code == 2 and "--slides 5" in ended.err
    assert len(list((folder / "slides").glob("*.svs"))) == 5
