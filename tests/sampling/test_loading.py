from __future__ import annotations

import logging
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from qpannot.errors import QpannotError
from qpannot.geometry import Size
from qpannot.recipe.settings import AugmentationSettings
from qpannot.sampling import EpochSampler, Opener, PatchTable, PatchTree, opener_of
from qpannot.sampling.augmentation import augmented
from qpannot.sampling.handles import OpenSlides
from qpannot.sampling.loading import Batch, PatchLoader
from qpannot.sampling.tree import Stream, rng_of
from qpannot.slide import open_slide

SLIDES = ("a", "b", "c")
SIDE = 32
SMALL = Size(10, 10)


def write_noise(path: Path, seed: int) -> Path:
    """Write a slide at 1 mpp whose every patch differs."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 640, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            np.repeat(np.repeat(pixels, 8, axis=0), 8, axis=1)[:64],
            tile=(64, 64),
            photometric="rgb",
            resolution=(10_000, 10_000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(SLIDES):
        write_noise(tmp_path / f"{name}.tif", seed)
    return tmp_path


@pytest.fixture
def openers(folder: Path) -> dict[str, Opener]:
    return {name: partial(open_slide, folder / f"{name}.tif") for name in SLIDES}


@pytest.fixture
def tree(make_table: Callable[..., PatchTable]) -> PatchTree:
    tables = {name: make_table(40, 20) for name in SLIDES}
    return PatchTree(tables, {}, ("slide", "class"))


def sampler_of(tree: PatchTree, batches: int = 5) -> EpochSampler:
    return EpochSampler(tree, batch_size=8, batches=batches, seed=3)


def epoch(loader: PatchLoader, number: int = 0) -> list[Batch]:
    loader.sampler.set_epoch(number)
    return list(loader)


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_batches_hold_the_pixels_of_the_patches_drawn(
    tree: PatchTree, openers: Mapping[str, Opener]
) -> None:
    loader = PatchLoader(sampler_of(tree), openers)
    batches = epoch(loader)
    assert len(batches) == len(loader) == 5
    for batch, draws in zip(batches, sampler_of(tree), strict=True):
        assert batch.pixels.shape == (8, 3, SIDE, SIDE)
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert batch.rows.tolist() == draws.rows.tolist()
        assert batch.labels.tolist() == tree.label[draws.rows].tolist()
        for pixels, row in zip(batch.pixels, draws.rows.tolist(), strict=True):
            with openers[tree.slides[tree.slide[row]]]() as slide:
                patch = slide.read(tree.region(row), tree.mpp)
            assert np.array_equal(pixels.permute(1, 2, 0), patch)


def test_epochs_differ_and_can_be_repeated(tree: PatchTree, openers: Mapping[str, Opener]) -> None:
    loader = PatchLoader(sampler_of(tree), openers, augmentation=AugmentationSettings())
    first, second = epoch(loader, 0), epoch(loader, 1)
    assert not torch.equal(first[0].pixels, second[0].pixels)
    fresh = PatchLoader(sampler_of(tree), openers, augmentation=AugmentationSettings())
    assert_same(epoch(fresh, 1), second)


def test_augmentation_is_settled_by_seed_epoch_and_position(
    tree: PatchTree, openers: Mapping[str, Opener]
) -> None:
    settings = AugmentationSettings()
    plain = epoch(PatchLoader(sampler_of(tree), openers), 7)
    changed = epoch(PatchLoader(sampler_of(tree), openers, augmentation=settings), 7)
    for batch in range(5):
        for item in range(8):
            patch = plain[batch].pixels[item].permute(1, 2, 0).numpy()
            rng = rng_of(3, Stream.AUGMENT, 7, batch * 8 + item)
            found = changed[batch].pixels[item].permute(1, 2, 0).numpy()
            assert np.array_equal(found, augmented(patch, settings, rng))


def test_workers_give_the_same_batches_as_one_process_and_a_bad_slide_changes_nothing_of_that(
    tree: PatchTree, openers: dict[str, Opener], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "b.tif").unlink()
    settings = AugmentationSettings()
    alone = PatchLoader(sampler_of(tree), openers, augmentation=settings)
    shared = PatchLoader(sampler_of(tree), openers, augmentation=settings, workers=2)
    with caplog.at_level(logging.WARNING):
        for number in (0, 1):
            assert_same(epoch(shared, number), epoch(alone, number))
    assert list(shared.failures) == list(alone.failures) == ["b"]
    # Once for each loader, though both workers met it in both epochs.
    assert len([record for record in caplog.records if "b.tif" in record.message]) == 2


def test_a_slide_that_is_gone_is_replaced_by_draws_from_the_others(
    tree: PatchTree, openers: dict[str, Opener], folder: Path
) -> None:
    (folder / "b.tif").write_bytes(b"no slide")
    loader = PatchLoader(sampler_of(tree, batches=60), openers)
    batches = epoch(loader)
    rows = np.concatenate([batch.rows.numpy() for batch in batches])
    labels = np.concatenate([batch.labels.numpy() for batch in batches])
    slides = tree.slide[rows]
    assert np.bincount(slides, minlength=3) / 480 == pytest.approx([0.5, 0, 0.5], abs=0.1)
    assert labels.tolist() == tree.label[rows].tolist()
    assert labels.mean() == pytest.approx(0.5, abs=0.1)
    wanted = np.concatenate([draws.rows for draws in sampler_of(tree, batches=60)])
    readable = tree.slide[wanted] != 1
    assert (rows[readable] == wanted[readable]).all()
    assert list(loader.failures) == ["b"]
    assert "b.tif" in loader.failures["b"]


def test_one_damaged_place_costs_the_patches_there_and_no_others(
    tree: PatchTree, openers: dict[str, Opener], folder: Path
) -> None:
    path = folder / "a.tif"
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        offset = page.dataoffsets[3]
    # A tile that begins beyond the end of the file.
    data = path.read_bytes()
    needle = offset.to_bytes(4, "little")
    assert data.count(needle) == 1
    path.write_bytes(data.replace(needle, (2**31).to_bytes(4, "little")))
    loader = PatchLoader(sampler_of(tree, batches=60), openers)
    rows = np.concatenate([batch.rows.numpy() for batch in epoch(loader)])
    of_a = set(tree.x[rows[tree.slide[rows] == 0]].tolist())
    assert 3 * 64.0 not in of_a
    assert len(of_a) > 40
    assert list(loader.failures) == ["a"]


def test_a_slide_that_comes_back_is_read_again_in_the_next_epoch(
    tree: PatchTree, openers: dict[str, Opener], folder: Path
) -> None:
    shutil.move(folder / "c.tif", folder / "c.away")
    loader = PatchLoader(sampler_of(tree), openers)
    assert not any((tree.slide[batch.rows] == 2).any() for batch in epoch(loader, 0))
    shutil.move(folder / "c.away", folder / "c.tif")
    whole = PatchLoader(sampler_of(tree), openers)
    assert_same(epoch(loader, 1), epoch(whole, 1))


@pytest.mark.parametrize("workers", [0, 1])
def test_with_no_slide_left_the_run_stops_and_names_them(
    tree: PatchTree, openers: dict[str, Opener], folder: Path, workers: int
) -> None:
    for name in SLIDES:
        (folder / f"{name}.tif").unlink()
    loader = PatchLoader(sampler_of(tree), openers, workers=workers)
    with pytest.raises(QpannotError, match=r"No slide can be read") as caught:
        epoch(loader)
    message = str(caught.value)
    del caught  # it holds the loader, whose worker would outlive the test
    assert all(f"{name}.tif" in message for name in SLIDES)
    assert "Traceback" not in message


def test_few_slides_are_open_at_a_time(openers: Mapping[str, Opener]) -> None:
    slides = OpenSlides(openers, limit=2)
    first = slides["a"]
    slides["b"], slides["a"], slides["c"]
    assert len(slides) == 2
    assert slides["a"] is first
    with pytest.raises(QpannotError, match="closed"):
        b = slides["b"]
        slides["a"], slides["c"]
        b.thumbnail(SMALL)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list files")
def test_a_slide_no_longer_used_is_really_closed(openers: Mapping[str, Opener]) -> None:
    slides = OpenSlides(openers, limit=1)
    for name in (*SLIDES, *SLIDES):
        slides[name].thumbnail(SMALL)
    names = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if _exists(n)]
    assert sum(name.endswith(".tif") for name in names) <= 1


def _exists(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_open_slides_travel_closed(openers: Mapping[str, Opener]) -> None:
    slides = OpenSlides(openers, limit=2)
    slides["a"]
    copy = pickle.loads(pickle.dumps(slides))
    assert len(copy) == 0
    assert copy["a"].size == slides["a"].size
    assert copy["a"] is not slides["a"]


def test_a_view_is_opened_as_it_is_though_it_was_closed_here(folder: Path) -> None:
    with open_slide(folder / "a.tif") as whole:
        view = whole.rotated(1)
        expected = view.thumbnail(SMALL)
        opener = opener_of(view)
    for again in (opener(), pickle.loads(pickle.dumps(opener))()):
        assert np.array_equal(again.thumbnail(SMALL), expected)
