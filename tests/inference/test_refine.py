from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from qpannot.affine import Affine
from qpannot.errors import UsageError
from qpannot.geometry import Mpp
from qpannot.heatmap import Heatmap, load_heatmap, save_heatmap
from qpannot.inference import SlideResult, heatmap_path, refine_heatmap, refine_slides
from qpannot.models.refinement import RefinementBundle, refinement_network, save_refinement
from qpannot.recipe import Recipe
from qpannot.sampling import Opener
from qpannot.slide import open_slide

WriteTruth = Callable[..., Path]
FilesBelow = Callable[[Path], dict[str, tuple[int, bytes]]]
MakeRefinement = Callable[..., RefinementBundle]

DESIGN = "smp:linknet/tu-test_resnet"
CLASSES = ("Non-tumor", "Tumor")
PATCH_MODEL = "ef" * 32
MPP = Mpp.square(1)
WIDTH, HEIGHT = 768, 500
"""Of the slides, in pixels of 1 um."""


class _Copy(nn.Module):
    """Answers the heatmap that it is shown; of a slide alone, whatever is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.ones(1))  # tells where the network is

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        tumour = images[:, 3:] if images.shape[1] > 3 else 1 - images[:, 1:2]
        logit = torch.logit(tumour.clamp(1e-6, 1 - 1e-6))
        return (torch.cat([torch.zeros_like(logit), logit], dim=1),)


@pytest.fixture
def make_refinement(tmp_path: Path) -> MakeRefinement:
    """Make a bundle whose network hands on the heatmap as it sees it."""

    def make(
        fit: str = "pad", size_px: int = 96, channels: int = 4, seed: int = 0
    ) -> RefinementBundle:
        torch.manual_seed(seed)
        network = refinement_network(DESIGN, channels=channels, size_px=size_px)
        card = save_refinement(
            tmp_path / f"refinement-{fit}-{size_px}-{channels}-{seed}",
            network,
            Recipe.model_validate({"refinement": {"fit": fit, "size_px": size_px}}),
            classes=CLASSES,
            patch_model_sha256=PATCH_MODEL if channels > 3 else None,
            protocol="paper",
            slides=[],
            metrics={},
        )
        network.body = _Copy()  # type: ignore[assignment]
        return RefinementBundle(tmp_path, card, network.eval())

    return make


def heatmap_of(tumour: NDArray[np.floating], slide_id: str = "", model: str = "") -> Heatmap:
    """A heatmap of cells of 32 px from the probabilities of tumour."""
    probabilities = np.stack([1 - tumour, tumour], axis=2).astype(np.float32)
    model = model or f"{PATCH_MODEL[:12]}-1"
    affine = Affine(WIDTH / tumour.shape[1], WIDTH / tumour.shape[1])
    return Heatmap(probabilities, CLASSES, affine, MPP, slide=slide_id, model=model)


@pytest.fixture
def path(write_slide_of: WriteTruth) -> Path:
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    truth[100:400, 100:600] = 1
    truth[200:300, 200:500] = 2
    return write_slide_of(truth)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_what_is_refined_lies_where_the_heatmap_lay(
    path: Path, make_refinement: MakeRefinement, fit: str
) -> None:
    tumour = np.zeros((16, 24))
    tumour[4:9, 6:17] = 1  # of 32 px: x from 192 to 544, y from 128 to 288
    bundle = make_refinement(fit)
    with open_slide(path) as slide:
        found = refine_heatmap(slide, heatmap_of(tumour), bundle, slide_id="7")
    assert (found.slide, found.classes, found.mpp) == ("7", CLASSES, MPP)
    assert (found.affine.x, found.affine.y) == (0, 0)
    height, width = found.shape
    if fit == "pad":
        assert found.affine.dx == found.affine.dy == WIDTH / 96
        assert (height, width) == (63, 96)  # 500 px are 62.5 pixels
    else:
        assert (found.affine.dx, found.affine.dy) == (WIDTH / 96, HEIGHT / 96)
        assert (height, width) == (96, 96)
    rows, columns = np.nonzero(found.channel("Tumor") > 0.5)
    corners = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    off = np.abs(found.affine.to_slide(corners) - [[192, 128], [544, 288]])
    assert (off <= [found.affine.dx, found.affine.dy]).all()
    assert np.allclose(found.probabilities.sum(axis=2), 1, atol=1e-5)


def test_what_was_not_predicted_counts_as_nothing_and_gets_an_answer(
    path: Path, make_refinement: MakeRefinement
) -> None:
    tumour = np.full((16, 24), np.nan)
    tumour[4:7, 4:7] = 0.8
    with open_slide(path) as slide:
        found = refine_heatmap(slide, heatmap_of(tumour), make_refinement())
    assert np.isfinite(found.probabilities).all()
    assert found.channel("Tumor").max() == pytest.approx(0.8, abs=0.01)
    assert found.slide == path.name


def test_from_the_slide_alone_no_heatmap_is_needed(
    path: Path, make_refinement: MakeRefinement
) -> None:
    bundle = make_refinement(channels=3)
    with open_slide(path) as slide:
        found = refine_heatmap(slide, None, bundle)
        same = refine_heatmap(slide, heatmap_of(np.ones((16, 24))), bundle)
    dark = found.channel("Tumor") > 0.5
    share = dark.mean() * found.shape[0] * found.affine.dy * WIDTH / (300 * 500)
    assert share == pytest.approx(1, abs=0.05)  # the tissue
    assert same.model == found.model


def test_a_heatmap_that_is_needed_and_missing_is_named(
    path: Path, make_refinement: MakeRefinement
) -> None:
    with open_slide(path) as slide, pytest.raises(UsageError, match=r"slide\.svs has no heatmap"):
        refine_heatmap(slide, None, make_refinement())


IDS = ("1", "a/b: ü")


@pytest.fixture
def heatmaps(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for key, value in zip(IDS, (0.25, 0.75), strict=True):
        found[key] = heatmap_path(tmp_path / "heatmaps", key)
        save_heatmap(found[key], heatmap_of(np.full((16, 24), value), key))
    return found


@pytest.fixture
def run(
    path: Path, heatmaps: dict[str, Path], tmp_path: Path, make_refinement: MakeRefinement
) -> Callable[..., list[SlideResult]]:
    openers: dict[str, Opener] = {key: partial(open_slide, path) for key in IDS}
    bundle = make_refinement()

    def refine(**others: object) -> list[SlideResult]:
        arguments = {
            "slides": openers,
            "heatmaps": heatmaps,
            "bundle": bundle,
            "folder": tmp_path / "refined",
        }
        return refine_slides(**(arguments | others))  # type: ignore[arg-type]

    return refine


def states(results: list[SlideResult]) -> list[str]:
    return [result.state for result in results]


def test_refined_heatmaps_are_saved_and_not_made_again(
    run: Callable[..., list[SlideResult]], tmp_path: Path, files_below: FilesBelow
) -> None:
    results = run()
    assert states(results) == ["predicted", "predicted"]
    saved = [load_heatmap(result.path) for result in results]
    assert [heatmap.slide for heatmap in saved] == list(IDS)
    middles = [heatmap.channel("Tumor")[30, 48] for heatmap in saved]
    assert middles == pytest.approx([0.25, 0.75], abs=0.01)
    before = files_below(tmp_path / "refined")
    assert states(run()) == ["current", "current"]
    assert files_below(tmp_path / "refined") == before


def test_another_heatmap_or_model_is_refined_anew(
    run: Callable[..., list[SlideResult]],
    heatmaps: dict[str, Path],
    make_refinement: MakeRefinement,
) -> None:
    run()
    save_heatmap(heatmaps["1"], heatmap_of(np.zeros((16, 24)), "1", f"{PATCH_MODEL[:12]}-2"))
    assert states(run()) == ["predicted", "current"]
    assert states(run(bundle=make_refinement(seed=1))) == ["predicted", "predicted"]


def test_a_slide_without_a_heatmap_fails_alone(
    run: Callable[..., list[SlideResult]], heatmaps: dict[str, Path], tmp_path: Path
) -> None:
    results = run(heatmaps={IDS[1]: heatmaps[IDS[1]]})
    assert states(results) == ["failed", "predicted"]
    assert isinstance(results[0].error, UsageError)
    assert not heatmap_path(tmp_path / "refined", "1").exists()


def test_heatmaps_of_another_patch_network_are_warned_of(
    run: Callable[..., list[SlideResult]],
    heatmaps: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run()
    assert "another patch network" not in caplog.text
    for key in IDS:
        save_heatmap(heatmaps[key], heatmap_of(np.zeros((16, 24)), key, "0123456789ab-1"))
    assert states(run()) == ["predicted", "predicted"]
    assert caplog.text.count("another patch network") == 1


def test_heatmaps_are_never_overwritten_by_what_comes_of_them(
    run: Callable[..., list[SlideResult]], heatmaps: dict[str, Path]
) -> None:
    with pytest.raises(UsageError, match="holds the heatmaps"):
        run(folder=heatmaps["1"].parent)
