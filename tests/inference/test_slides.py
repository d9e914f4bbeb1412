from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qpannot.errors import MissingSlideError, QpannotError
from qpannot.heatmap import load_heatmap
from qpannot.inference import (
    Engines,
    SlideProgress,
    SlideResult,
    heatmap_path,
    predict_heatmap,
    predict_slides,
)
from qpannot.models import Bundle
from qpannot.recipe import Recipe
from qpannot.sampling import Opener
from qpannot.slide import open_slide

MakeRecipe = Callable[..., Recipe]
MakeBundle = Callable[..., Bundle]
WriteTruth = Callable[..., Path]
FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]
Run = Callable[..., list[SlideResult]]

IDS = ("1", "a/b: ü", "3")


@pytest.fixture
def openers(write_slide_of: WriteTruth) -> dict[str, Opener]:
    """Three slides: one has much tumour, one a little, one is glass."""
    truths: list[NDArray[np.uint8]] = [np.zeros((640, 640), np.uint8) for _ in IDS]
    truths[0][128:512, 128:512] = 2
    truths[1][128:512, 128:512] = 1
    truths[1][192:320, 192:320] = 2
    paths = [write_slide_of(truth, name=f"{n}.svs") for n, truth in enumerate(truths)]
    return {key: partial(open_slide, path) for key, path in zip(IDS, paths, strict=True)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "heatmaps"


@pytest.fixture
def run(
    openers: dict[str, Opener], folder: Path, make_bundle: MakeBundle, make_recipe: MakeRecipe
) -> Run:
    """Predict the slides with torch, of which some arguments may be others."""
    bundle = make_bundle()

    def predict(**others: object) -> list[SlideResult]:
        arguments = {"slides": openers, "bundle": bundle, "recipe": make_recipe(32)} | others
        arguments.setdefault("engines", Engines(arguments["bundle"], engine="torch", threads=2))  # type: ignore[arg-type]
        return predict_slides(**arguments, folder=folder)  # type: ignore[arg-type]

    return predict


def states(results: list[SlideResult]) -> list[str]:
    return [result.state for result in results]


def test_heatmaps_are_saved_as_they_were_predicted(
    run: Run, openers: dict[str, Opener], folder: Path, make_bundle: MakeBundle
) -> None:
    results = run(colors={"Tumor": (1, 2, 3)})
    assert [result.slide for result in results] == list(IDS)
    assert states(results) == ["predicted"] * 3
    assert [path.name for path in sorted(folder.iterdir())] == sorted(
        heatmap_path(folder, key).name for key in IDS
    )
    saved = [load_heatmap(result.path) for result in results]
    assert [heatmap.slide for heatmap in saved] == list(IDS)
    tumour = [np.nansum(heatmap.channel("Tumor") > 0.5) for heatmap in saved]
    assert tumour[0] > tumour[1] > tumour[2] == 0
    assert results[0].patches and results[2].patches == 0
    assert b'Color="16909311"' in results[0].path.read_bytes()  # 1, 2, 3 and opaque


def test_what_is_there_and_fits_is_kept(
    run: Run, folder: Path, files_below: FilesBelow, make_recipe: MakeRecipe
) -> None:
    run()
    before = files_below(folder)
    assert states(run()) == ["current"] * 3
    assert files_below(folder) == before
    assert states(run(recipe=make_recipe(64))) == ["predicted"] * 3


def test_another_model_predicts_anew(run: Run, make_bundle: MakeBundle) -> None:
    run()
    assert states(run(bundle=make_bundle("next", gain=9))) == ["predicted"] * 3


def test_a_slide_that_changed_is_predicted_anew(run: Run, write_slide_of: WriteTruth) -> None:
    run()
    changed = np.zeros((640, 640), np.uint8)
    changed[64:512, 128:512] = 2
    write_slide_of(changed, name="0.svs")
    assert states(run()) == ["predicted", "current", "current"]


def test_a_damaged_heatmap_is_predicted_anew(run: Run, folder: Path) -> None:
    run()
    path = heatmap_path(folder, "1")
    whole = load_heatmap(path)
    path.write_bytes(path.read_bytes()[:700])
    assert states(run()) == ["predicted", "current", "current"]
    found = load_heatmap(path)
    assert np.array_equal(found.probabilities, whole.probabilities, equal_nan=True)


def test_a_slide_that_fails_is_named_and_the_others_are_predicted(
    run: Run, openers: dict[str, Opener], folder: Path
) -> None:
    gone = partial(open_slide, folder.parent / "gone.svs")
    told: list[SlideResult] = []
    results = run(slides={"0": gone} | openers, each=told.append)
    assert states(results) == ["failed", "predicted", "predicted", "predicted"]
    assert told == results
    assert isinstance(results[0].error, MissingSlideError)
    assert "gone.svs" in str(results[0].error)
    assert not heatmap_path(folder, "0").exists()


def test_a_failure_nobody_foresaw_is_named_too(
    run: Run, openers: dict[str, Opener], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by zero")

    results = run(slides={"odd": fail} | openers)
    assert states(results) == ["failed", "predicted", "predicted", "predicted"]
    error = results[0].error
    assert isinstance(error, QpannotError) and "odd: ZeroDivisionError: by zero" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "Traceback" in caplog.text


def test_a_heatmap_that_cannot_be_written_fails_its_slide(run: Run, folder: Path) -> None:
    heatmap_path(folder, "1").mkdir(parents=True)
    results = run()
    assert states(results) == ["failed", "predicted", "predicted"]
    assert "cannot be written" in str(results[0].error)


def test_an_interrupted_run_goes_on_where_it_was(run: Run, folder: Path) -> None:
    def interrupt(progress: SlideProgress) -> None:
        if progress.number == 2 and progress.patches_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(show=interrupt)
    assert [path.name for path in folder.iterdir()] == [heatmap_path(folder, "1").name]
    assert states(run()) == ["current", "predicted", "predicted"]


def test_progress_names_the_slide_and_counts(run: Run) -> None:
    told: list[SlideProgress] = []
    first, *_ = run(show=told.append)
    assert {(at.slide, at.number, at.slides) for at in told} == {("1", 1, 3), (IDS[1], 2, 3)}
    of_first = [at for at in told if at.number == 1]
    assert of_first[-1].patches_done == of_first[-1].patches == first.patches
    assert [at.slides_done for at in of_first] == [0, 1]
    assert SlideProgress("1", 2, 3, patches_done=30, patches=40).slides_done == 1.75


def test_a_heatmap_of_predict_heatmap_is_current(
    run: Run, openers: dict[str, Opener], make_recipe: MakeRecipe, make_bundle: MakeBundle
) -> None:
    run()
    with openers["1"]() as slide:
        bundle = make_bundle("again")  # the same weights
        found = predict_heatmap(slide, bundle, make_recipe(32), slide_id="1")
    assert states(run(bundle=bundle))[0] == "current"
    assert found.heatmap.model
