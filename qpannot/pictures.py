"""Pictures of slides with their annotations outlined: the quickest way to see a project."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageEnhance, ImageFont
from shapely.geometry.base import BaseGeometry

from qpannot.geometry import Size
from qpannot.qupath import Annotation

UNCLASSIFIED = (255, 0, 255)
"""The outline of annotations without a class colour."""

CELL = Size(420, 346)
"""What one image takes on a contact sheet, caption included, in pixels."""

BEFORE_COLOR, AFTER_COLOR = "#e08214", "#0b4fa8"
"""Orange and blue, which the colour-blind tell apart, on stained tissue too."""

COMPARED_PX = 480
"""The longer side of a comparison."""

_CAPTION_PX = 26
_GAP_PX = 8

_FINER = 2
"""Comparisons are drawn larger by this, for smooth lines."""


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


def compared(
    overview: NDArray[np.uint8],
    full_size: Size,
    before: Mapping[str, BaseGeometry],
    after: Mapping[str, BaseGeometry],
) -> Image.Image:
    """Return a small overview of a slide with what was changed of its areas.

    The outlines before are dashed in `BEFORE_COLOR`, those after solid in `AFTER_COLOR`. What was
    removed is tinted as the one and hatched, what was added is tinted as the other; what was given
    another class is both. The slide's own colours are muted.

    Parameters
    ----------
    overview
        RGB, shape (height, width, 3): the whole slide, in QuPath's frame.
    full_size
        The slide at full resolution, which the coordinates are in.
    before, after
        The area of each class. A class that either lacks is empty there.

    Returns
    -------
    Image
        At most `COMPARED_PX` wide and high.
    """
    picture = Image.fromarray(overview).convert("RGB")
    picture.thumbnail((COMPARED_PX, COMPARED_PX), Image.Resampling.BOX)
    size = picture.size
    picture = ImageEnhance.Color(picture).enhance(0.4)
    picture = Image.blend(picture, Image.new("RGB", size, "white"), 0.35)
    picture = picture.point(lambda value: 255 if value > 238 else value)  # glass: no colours spent
    fine = (size[0] * _FINER, size[1] * _FINER)
    factors = np.array([fine[0] / full_size.width, fine[1] / full_size.height])
    drawn_before, drawn_after = (
        {name: _scaled(area, factors) for name, area in areas.items()} for areas in (before, after)
    )
    layer = picture.resize(fine, Image.Resampling.NEAREST)
    added = _mask(fine, _left_over(drawn_after, drawn_before))
    removed = _mask(fine, _left_over(drawn_before, drawn_after))
    y, x = np.ogrid[: fine[1], : fine[0]]
    hatched = np.where((x + y) % (9 * _FINER) < 1.5 * _FINER, 0.75, 0.15)
    for mask, strength, color in ((added, 0.4, AFTER_COLOR), (removed, hatched, BEFORE_COLOR)):
        alpha = Image.fromarray((mask * strength * 255).astype(np.uint8))
        layer.paste(ImageColor.getrgb(color), (0, 0, *fine), alpha)
    draw = ImageDraw.Draw(layer)
    rings_before, rings_after = (
        [ring for area in areas.values() for ring in _rings(area)]
        for areas in (drawn_before, drawn_after)
    )
    for color, width_px in (("white", 4), (AFTER_COLOR, 2)):
        for ring in rings_after:
            draw.line([*map(tuple, ring)], fill=color, width=width_px * _FINER, joint="curve")
    for color, width_px in (("white", 3), (BEFORE_COLOR, 2)):
        for ring in rings_before:
            for dash in _dashes(ring, 7 * _FINER):
                draw.line([*map(tuple, dash)], fill=color, width=width_px * _FINER, joint="curve")
    return layer.resize(size, Image.Resampling.BOX)


def small_png(picture: Image.Image, max_bytes: int = 60_000) -> bytes:
    """Return a picture as PNG with as many colours as fit into a number of bytes, at least 8."""
    for colors in (128, 64, 32, 16, 8):
        file = io.BytesIO()
        # the median cut would give no entry to the colour of a thin line
        reduced = picture.quantize(colors, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        reduced.save(file, "PNG", optimize=True)
        if file.tell() <= max_bytes:
            break
    return file.getvalue()


def captioned(picture: Image.Image, caption: str) -> Image.Image:
    """Return a picture with a line of text above it, widened where the text needs it."""
    font = ImageFont.load_default(size=16)
    width = max(picture.width, int(font.getlength(caption)) + 8)
    result = Image.new("RGB", (width, picture.height + _CAPTION_PX), "white")
    result.paste(picture, ((width - picture.width) // 2, _CAPTION_PX))
    ImageDraw.Draw(result).text((4, 3), drawable(caption), fill="black", font=font)
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


def _scaled(area: BaseGeometry, factors: NDArray[np.float64]) -> BaseGeometry:
    """Return what of an area can be seen in a picture's pixels."""
    scaled = shapely.transform(area, lambda xy: xy * factors)
    seen = shapely.simplify(scaled, _FINER / 4)
    return shapely.make_valid(seen, method="structure", keep_collapsed=False)


def _left_over(
    some: Mapping[str, BaseGeometry], others: Mapping[str, BaseGeometry]
) -> list[BaseGeometry]:
    nothing = shapely.MultiPolygon()
    return [area.difference(others.get(name, nothing)) for name, area in some.items()]


def _mask(size: tuple[int, int], areas: Iterable[BaseGeometry]) -> NDArray[np.bool_]:
    mask = np.zeros((size[1], size[0]), bool)
    for area in areas:
        one = Image.new("1", size)
        draw = ImageDraw.Draw(one)
        # what lies in a hole is smaller than what has the hole, and drawn after it
        for part in sorted(_polygons(area), key=lambda part: -shapely.Polygon(part.exterior).area):
            draw.polygon([*map(tuple, shapely.get_coordinates(part.exterior))], fill=1)
            for hole in part.interiors:
                draw.polygon([*map(tuple, shapely.get_coordinates(hole))], fill=0)
        mask |= np.asarray(one)
    return mask


def _rings(area: BaseGeometry) -> list[NDArray[np.float64]]:
    lines = shapely.get_rings(_polygons(area))
    return [shapely.get_coordinates(line) for line in lines]


def _polygons(area: BaseGeometry) -> list[shapely.Polygon]:
    parts = shapely.get_parts(shapely.get_parts(area))
    return [part for part in parts if isinstance(part, shapely.Polygon) and not part.is_empty]


def _dashes(ring: NDArray[np.float64], length: float) -> Iterable[NDArray[np.float64]]:
    """Return every other piece of a ring."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    pieces = max(1, round(along[-1] / length / 2)) * 2
    cuts = np.linspace(0, along[-1], pieces + 1)
    ends = np.stack([np.interp(cuts, along, ring[:, k]) for k in (0, 1)], axis=1)
    for k in range(0, pieces, 2):
        first, last = np.searchsorted(along, cuts[k : k + 2], side="right")
        yield np.concatenate([ends[k : k + 1], ring[first:last], ends[k + 1 : k + 2]])


def drawable(text: str) -> str:
    """Return text in the letters that Pillow's own font has: without accents and other scripts."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or "?"


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """Return the text, its middle left out where it is too long."""
    text = drawable(text)
    kept = len(text)
    short = text
    while font.getlength(short) > width_px and kept > 8:
        kept -= 2
        short = f"{text[: kept // 2]}...{text[-(kept - kept // 2) :]}"
    return short


def file_name(image_id: str, image_name: str) -> str:
    """Return a file name for the picture of an image that every file system takes."""
    stem = drawable(image_name.rsplit(".", 1)[0])
    return f"{image_id}-{re.sub(r'[^A-Za-z0-9._-]+', '_', stem)[:80]}.png"


def read_thumbnail(path: Path) -> NDArray[np.uint8]:
    """Return QuPath's thumbnail of an image as RGB, shape (height, width, 3)."""
    with Image.open(path) as thumbnail:
        return np.asarray(thumbnail.convert("RGB"))
