"""Patch tables on disk: one small file per slide, made anew only when it no longer fits."""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import shapely

from qpannot.qupath import Annotation
from qpannot.qupath.files import write_atomically
from qpannot.recipe import Recipe
from qpannot.sampling.areas import is_drawn
from qpannot.sampling.index import PatchTable, index_slide
from qpannot.sampling.labels import LeftOut
from qpannot.slide import Slide

VERSION = 1
"""To be raised when the same slide, annotations and recipe give another table than before."""

DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What numpy raises of files that are damaged or missing."""

_COLUMNS = ("x", "y", "label", "tissue", "fractions")


def stored_index(
    folder: Path,
    slide_id: str,
    slide: Slide,
    annotations: Sequence[Annotation],
    recipe: Recipe,
    *,
    is_truth: Callable[[Annotation], bool] = is_drawn,
) -> PatchTable:
    """Return the labelled patches of a slide, from the file that holds them where it still fits.

    Parameters
    ----------
    folder
        Where the tables lie; made where it is missing.
    slide_id
        What the slide is known by; names the file.
    slide, annotations, recipe, is_truth
        As for `index_slide`.

    Raises
    ------
    MissingMppError
        The slide has no known pixel size.
    SlideError
        The slide cannot be read.
    ProjectError
        The table cannot be written.
    """
    path = folder / f"{quote(slide_id, safe=' ')}.npz"
    key = index_key(slide, annotations, recipe, is_truth=is_truth)
    table = load_table(path, key)
    if table is None:
        table = index_slide(slide, annotations, recipe, is_truth=is_truth)
        folder.mkdir(parents=True, exist_ok=True)
        save_table(path, table, key)
    return table


def index_key(
    slide: Slide,
    annotations: Sequence[Annotation],
    recipe: Recipe,
    *,
    is_truth: Callable[[Annotation], bool] = is_drawn,
) -> str:
    """Return a digest of everything that `index_slide` depends on. Reads no pixels."""
    settings = {
        name: getattr(recipe, name).model_dump(mode="json")
        for name in ("tissue", "patches", "labels")
    }
    image = (
        slide.path.name,
        slide.path.stat().st_size,
        slide.identity,
        slide.bounds_origin,
        (slide.size.width, slide.size.height),
        (slide.mpp.x, slide.mpp.y),
        slide.quarter_turns,
    )
    digest = hashlib.sha256(json.dumps([VERSION, settings, image], sort_keys=True).encode())
    for annotation in annotations:
        said = [annotation.class_name, bool(is_truth(annotation))]
        digest.update(json.dumps(said).encode())
        digest.update(shapely.to_wkb(annotation.geometry, byte_order=1))
    return digest.hexdigest()


def save_table(path: Path, table: PatchTable, key: str) -> None:
    """Write a table with its key; a crash leaves the old file or the new one.

    Raises
    ------
    ProjectError
        The file cannot be written.
    """
    header = {
        "key": key,
        "classes": table.classes,
        "size_px": table.size_px,
        "mpp": table.mpp,
        "width": table.width,
        "height": table.height,
        "left_out": {reason.name: count for reason, count in table.left_out.items()},
    }
    file = io.BytesIO()
    columns = {name: getattr(table, name) for name in _COLUMNS}
    np.savez_compressed(file, header=np.array(json.dumps(header)), **columns)
    write_atomically(path, file.getvalue())


def load_table(path: Path, key: str) -> PatchTable | None:
    """Return the table in a file, or None where there is none of that key or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header.pop("key") != key:
                return None
            columns = {name: file[name] for name in _COLUMNS}
        header["classes"] = tuple(header["classes"])
        left_out = {LeftOut[name]: count for name, count in header.pop("left_out").items()}
        return PatchTable(**columns, **header, left_out=left_out)
    except DAMAGED:
        return None  # it is made anew
