"""Heatmaps as pyramidal OME-TIFF, which QuPath, napari and FastPathology open as it is.

A pixel is one byte: 0 where nothing was predicted, else 1 + 254 p rounded, so that one half is
kept exactly and every other probability to 1/508. Each class is a channel with its name and colour;
the levels of the pyramid lie in SubIFDs, each a quarter as wide as the one before. FastPathology
shows the first channel only, and uses the pyramid if there is no other.

What OME has no place for (the affine, the slide, the model) is JSON in the image's description.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.errors import QpannotError
from qpannot.geometry import Mpp
from qpannot.heatmap.heatmap import Heatmap

NOT_PREDICTED = 0
STEPS = 254
"""Steps from probability 0, which is written as 1, to probability 1, which is 255."""

TILE_PX = 256
LEVEL_STEP = 4
SMALLEST_LEVEL_PX = 512
"""No level is made of one whose longer side has no more pixels than this."""

KIND, VERSION = "qpannot heatmap", 1

Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 128, 255),
    (255, 255, 0),
    (255, 0, 255),
    (0, 255, 255),
    (255, 128, 0),
)
"""For classes whose colour nobody said, in turn."""

SAMPLE_FORMAT, SMALLEST_SAMPLE = 339, 340
"""TIFF tags."""

_DECODED = np.concatenate([[np.nan], np.arange(STEPS + 1) / STEPS]).astype(np.float32)


def heatmap_path(folder: Path, slide_id: str) -> Path:
    """Return where the heatmap of a slide lies in the folder of its model."""
    return folder / f"{quote(slide_id, safe=' ')}.ome.tif"


def save_heatmap(
    path: Path, heatmap: Heatmap, *, colors: Mapping[str, Color] | None = None
) -> None:
    """Write a heatmap, whole or not at all; an older file is replaced.

    Memory stays small beside a memory-mapped heatmap: blocks of rows are read, once for each class
    and level.

    Parameters
    ----------
    path
        Should end in ``.ome.tif``: some programs go by it.
    heatmap
        Probabilities from 0 to 1, or NaN.
    colors
        Of classes by name, as the project has them.

    Raises
    ------
    ValueError
        A probability is less than 0 or more than 1.
    QpannotError
        The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, heatmap, colors or {})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise QpannotError(
            f"{path}: the heatmap cannot be written ({error.strerror or error}).",
            hint="Check free space and permissions of the folder, then run the command again.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_heatmap(path: Path) -> Heatmap:
    """Return a heatmap that `save_heatmap` wrote, at its full resolution.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    QpannotError
        It cannot be read, or is no such heatmap.
    """
    again = "Delete the file and predict the slide again."
    try:
        with tifffile.TiffFile(path) as tiff:
            about = _description(tiff.ome_metadata)
            if about.get("kind") != KIND or about.get("version") != VERSION:
                raise QpannotError(f"{path}: no heatmap of this version of qpannot.", hint=again)
            shape = (len(about["classes"]), *tiff.series[0].shape[-2:])
            codes = tiff.series[0].asarray().reshape(shape)
        probabilities = np.empty((*shape[1:], shape[0]), np.float32)
        for channel, code in enumerate(codes):
            probabilities[..., channel] = _DECODED[code]
        return Heatmap(
            probabilities,
            tuple(about["classes"]),
            Affine(**about["affine"]),
            Mpp(**about["mpp"]),
            slide=about["slide"],
            model=about["model"],
        )
    except FileNotFoundError as error:
        raise QpannotError(f"{path}: no such file.", hint="Predict the slide first.") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise QpannotError(f"{path}: a damaged heatmap ({error}).", hint=again) from error


def _description(ome: str | None) -> dict[str, Any]:
    if ome is None:
        return {}
    try:
        text = ElementTree.fromstring(ome).findtext("{*}Image/{*}Description")
        about = json.loads(text or "{}")
    except (ElementTree.ParseError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _write(path: Path, heatmap: Heatmap, colors: Mapping[str, Color]) -> None:
    width_um, height_um = heatmap.pixel_um
    steps = [1]
    while max(heatmap.shape) > SMALLEST_LEVEL_PX * steps[-1]:
        steps.append(steps[-1] * LEVEL_STEP)
    affine, mpp = heatmap.affine, heatmap.mpp
    about = {
        "kind": KIND,
        "version": VERSION,
        "classes": heatmap.classes,
        "affine": {"dx": affine.dx, "dy": affine.dy, "x": affine.x, "y": affine.y},
        "mpp": {"x": mpp.x, "y": mpp.y},
        "slide": heatmap.slide,
        "model": heatmap.model,
        "pixels": f"0: not predicted; others: probability (value - 1) / {STEPS}",
    }
    shown = [
        colors.get(name, COLORS[index % len(COLORS)]) for index, name in enumerate(heatmap.classes)
    ]
    metadata = {
        "axes": "CYX",
        "Description": json.dumps(about, ensure_ascii=False),
        "PhysicalSizeX": width_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": height_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(heatmap.classes), "Color": [_rgba(color) for color in shown]},
    }
    is_alone = len(heatmap.classes) == 1
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        for step in steps:
            height, width = (-(-size // step) for size in heatmap.shape)
            is_full = step == 1
            tiff.write(
                _tiles(heatmap.probabilities, step),
                shape=(len(heatmap.classes), height, width),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="minisblack",
                compression="adobe_deflate",
                resolution=(1e4 / (width_um * step), 1e4 / (height_um * step)),
                resolutionunit="CENTIMETER",
                extratags=[(SMALLEST_SAMPLE, "H", 1, 1, False)] if is_alone else (),
                subifds=len(steps) - 1 if is_full else None,
                subfiletype=0 if is_full else 1,
                metadata=metadata if is_full else None,
            )
    if is_alone:
        _say_sample_format(path)


def _rgba(color: Color) -> int:
    """Return OME's signed 32-bit RGBA, opaque."""
    red, green, blue = color
    packed = red << 24 | green << 16 | blue << 8 | 255
    return packed - (1 << 32) if packed >= 1 << 31 else packed


def _tiles(probabilities: NDArray[np.float32], step: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles of a level, channel by channel."""
    height, width, channels = probabilities.shape
    rows = max(step, TILE_PX)  # read at a time; both are powers of two
    for channel in range(channels):
        for top in range(0, height, TILE_PX * step):
            strips = [
                _reduced(
                    _encoded(probabilities[start : min(start + rows, height), :, channel]), step
                )
                for start in range(top, min(top + TILE_PX * step, height), rows)
            ]
            strip = np.concatenate(strips)
            for left in range(0, -(-width // step), TILE_PX):
                tile = np.zeros((TILE_PX, TILE_PX), np.uint8)
                part = strip[:, left : left + TILE_PX]
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile


def _encoded(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    is_known = ~np.isnan(probabilities)
    known = np.where(is_known, probabilities, 0)
    if known.min() < 0 or known.max() > 1:
        raise ValueError(f"probabilities from {known.min()} to {known.max()}, not from 0 to 1")
    return np.where(is_known, np.rint(known * STEPS) + 1, NOT_PREDICTED).astype(np.uint8)


def _reduced(codes: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Return the mean of what was predicted in squares of pixels."""
    if step == 1:
        return codes
    rows, columns = (-(-size // step) for size in codes.shape)
    padded = np.zeros((rows * step, columns * step), np.uint8)
    padded[: codes.shape[0], : codes.shape[1]] = codes
    squares = padded.reshape(rows, step, columns, step)
    known = (squares != NOT_PREDICTED).sum(axis=(1, 3), dtype=np.uint32)
    total = squares.sum(axis=(1, 3), dtype=np.uint32)
    mean = np.rint(total / np.maximum(known, 1))
    return np.where(known > 0, mean, NOT_PREDICTED).astype(np.uint8)


def _say_sample_format(path: Path) -> None:
    """Have the file say that its samples are unsigned integers, which is what it means unsaid.

    FAST 4.18, FastPathology's engine, reads no pyramid in which this is unsaid, but passes the file
    on to OpenSlide, which shows its full resolution. Of several channels it takes the second for
    the first one's next level: there it is left unsaid. tifffile does not write the tag, so that
    its neighbour in the order of tags, with the same value, is written and renamed.
    """
    with tifffile.TiffFile(path, mode="r+") as tiff:
        code = struct.pack(f"{tiff.byteorder}H", SAMPLE_FORMAT)
        for page in tiff.pages:
            for each in (page, *(page.pages or ())):
                tiff.filehandle.seek(each.aspage().tags[SMALLEST_SAMPLE].offset)
                tiff.filehandle.write(code)
