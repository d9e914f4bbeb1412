"""Pictures of slides with their annotations outlined: the quickest way to see a project."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from qpannot.geometry import Size
from qpannot.qupath import Annotation

UNCLASSIFIED = (255, 0, 255)
"""The outline of annotations without a class colour."""

CELL = Size(420, 346)
"""What one image takes on a contact sheet, caption included, in pixels."""

_CAPTION_PX = 26
_GAP_PX = 8


def outlined(
    overview: NDArray[np.uint8],
    full_size: Size,
    annotations: Sequence[Annotation],
    *,
    width_px: int = 2,
) -> Image.Image:
    """Return an overview of a slide with its annotations outlined.

    Parameters
    ----------
    overview
        RGB, shape (height, width, 3): the whole slide, in QuPath's frame.
    full_size
        The slide at full resolution, which the annotations' coordinates are in.
    annotations
        Outlined in their own colour, else their class's.
    width_px
        Of the line.
    """
    height, width = overview.shape[:2]
    factors = np.array([width / full_size.width, height / full_size.height])
    picture = Image.fromarray(overview).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for annotation in annotations:
        class_color = annotation.path_class.color if annotation.path_class else None
        color = annotation.color or class_color or UNCLASSIFIED
        for part in shapely.get_parts(annotation.geometry):
            if isinstance(part, shapely.Point):
                x, y = np.array([part.x, part.y]) * factors
                radius = width_px + 1
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color)
                continue
            lines = (
                [part.exterior, *part.interiors] if isinstance(part, shapely.Polygon) else [part]
            )
            for line in lines:
                points = shapely.get_coordinates(line) * factors
                draw.line([*map(tuple, points)], fill=color, width=width_px, joint="curve")
    return picture


def captioned(picture: Image.Image, caption: str) -> Image.Image:
    """Return a picture with a line of text above it, widened where the text needs it."""
    font = ImageFont.load_default(size=16)
    width = max(picture.width, int(font.getlength(caption)) + 8)
    result = Image.new("RGB", (width, picture.height + _CAPTION_PX), "white")
    result.paste(picture, ((width - picture.width) // 2, _CAPTION_PX))
    ImageDraw.Draw(result).text((4, 3), _drawable(caption), fill="black", font=font)
    return result


def contact_sheet(pictures: Sequence[tuple[Image.Image, str]], *, columns: int = 4) -> Image.Image:
    """Return small copies of pictures with their captions on one sheet, row by row."""
    cell = CELL
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (cell.width + _GAP_PX) + _GAP_PX, rows * (cell.height + _GAP_PX) + _GAP_PX),
        (230, 230, 230),
    )
    font = ImageFont.load_default(size=16)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((cell.width, cell.height - _CAPTION_PX))
        row, column = divmod(index, columns)
        x = _GAP_PX + column * (cell.width + _GAP_PX)
        y = _GAP_PX + row * (cell.height + _GAP_PX)
        draw.text((x, y + 3), _fitted(caption, font, cell.width), fill="black", font=font)
        sheet.paste(small, (x + (cell.width - small.width) // 2, y + _CAPTION_PX))
    return sheet


def _drawable(text: str) -> str:
    """Return text in the letters that Pillow's own font has: without accents and other scripts."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or "?"


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """Return the text, its middle left out where it is too long."""
    text = _drawable(text)
    kept = len(text)
    short = text
    while font.getlength(short) > width_px and kept > 8:
        kept -= 2
        short = f"{text[: kept // 2]}...{text[-(kept - kept // 2) :]}"
    return short


def file_name(image_id: str, image_name: str) -> str:
    """Return a file name for the picture of an image that every file system takes."""
    stem = _drawable(image_name.rsplit(".", 1)[0])
    return f"{image_id}-{re.sub(r'[^A-Za-z0-9._-]+', '_', stem)[:80]}.png"


def read_thumbnail(path: Path) -> NDArray[np.uint8]:
    """Return QuPath's thumbnail of an image as RGB, shape (height, width, 3)."""
    with Image.open(path) as thumbnail:
        return np.asarray(thumbnail.convert("RGB"))
