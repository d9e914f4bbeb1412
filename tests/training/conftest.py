"""Slides of two textures that a small network tells apart in a few steps, and their patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

from qpannot.recipe import Recipe
from qpannot.sampling import LeftOut, Opener, Part, PatchTable
from qpannot.slide import open_slide

SIDE = 32
COLUMNS, ROWS = 8, 4
PARTS = {"a": Part.TRAIN, "b": Part.TRAIN, "c": Part.VALIDATION, "d": Part.TEST}


def write_textures(path: Path, seed: int) -> Path:
    """Write a slide at 1 mpp: noise in its left half, stripes in the right."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 200, (ROWS * SIDE, COLUMNS * SIDE, 3), dtype=np.uint8)
    half = COLUMNS * SIDE // 2
    stripes = 120 + 70 * (np.arange(half) // 4 % 2)
    pixels[:, half:] = pixels[:, half:] // 8 + stripes[:, None].astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            pixels,
            tile=(64, 64),
            photometric="rgb",
            resolution=(10_000, 10_000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    return path


def table_of(*, with_tumor: bool = True) -> PatchTable:
    """Return the patches of such a slide; its stripes are tumour."""
    x, y = np.meshgrid(SIDE * np.arange(COLUMNS), SIDE * np.arange(ROWS))
    label = (x.ravel() >= COLUMNS * SIDE / 2).astype(np.int16)
    kept = label <= with_tumor
    return PatchTable(
        x=x.ravel()[kept].astype(np.float64),
        y=y.ravel()[kept].astype(np.float64),
        label=label[kept],
        tissue=np.ones(kept.sum(), np.float32),
        fractions=label[kept, None].astype(np.float32),
        classes=("Non-tumor", "Tumor"),
        size_px=SIDE,
        mpp=1.0,
        width=float(SIDE),
        height=float(SIDE),
        left_out=dict.fromkeys(LeftOut, 0),
    )


@dataclass
class Study:
    """What a training is given; it can be pickled, and changed before."""

    slides: Path
    tables: dict[str, PatchTable] = field(
        default_factory=lambda: {name: table_of() for name in PARTS}
    )
    parts: dict[str, Part] = field(default_factory=lambda: dict(PARTS))

    @property
    def openers(self) -> Mapping[str, Opener]:
        return {name: partial(open_slide, self.slides / f"{name}.tif") for name in self.tables}

    def take_tumor_from(self, *names: str) -> None:
        """Leave out the patches that are tumour."""
        self.tables |= {name: table_of(with_tumor=False) for name in names}


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textures")
    for seed, name in enumerate(PARTS):
        write_textures(folder / f"{name}.tif", seed)
    return folder


@pytest.fixture(scope="session")
def new_study(slides: Path) -> Callable[[], Study]:
    return lambda: Study(slides)


@pytest.fixture
def study(new_study: Callable[[], Study]) -> Study:
    return new_study()


def tiny_recipe(**training: object) -> Recipe:
    """Return a recipe whose epochs take a fraction of a second."""
    return Recipe.model_validate(
        {
            "patches": {"size_px": SIDE, "mpp": 1.0},
            "network": {"encoder": "test_resnet", "weights": None, "hidden_units": 16},
            "clusters": {"batches": 2, "batch_size": 8, "k": 3, "weights": None},
            "training": {
                "learning_rate": 1e-3,
                "batch_size": 8,
                "train_batches": 6,
                "validation_batches": 3,
                "epochs": 3,
                "workers": 0,
                **training,
            },
        }
    )


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    """Make a small recipe from settings of its training."""
    return tiny_recipe
