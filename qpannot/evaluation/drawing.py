"""Figures of a few lines, dots and words, as SVG and as PNG of the same."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from qpannot.pictures import drawable

FONT_PX = 12
FINER = 2
"""PNG is drawn larger by this, and shrunk, for smooth lines."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points; ``dash`` is the length of its dashes and gaps, 0 for none."""

    points: Sequence[Point]
    color: str = "#1a1a1a"
    width: float = 2
    dash: float = 0


@dataclass(frozen=True)
class Dot:
    """A filled circle; ``title`` is shown where the mouse rests on it, in SVG."""

    x: float
    y: float
    radius: float
    color: str
    opacity: float = 1
    title: str = ""


@dataclass(frozen=True)
class Text:
    """Words; ``anchor`` says which end of them is at ``x``, and ``y`` is their base line."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True)
class Figure:
    """A drawing in pixels from its upper left corner, what comes later on top.

    Parameters
    ----------
    title
        What it shows, for those who cannot see it.
    """

    width: int
    height: int
    title: str
    parts: Sequence[Line | Dot | Text]


def to_svg(figure: Figure) -> Markup:
    """Return a figure as SVG that stands by itself."""
    body = Markup("").join(_svg(part) for part in figure.parts)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" '
        'role="img" aria-label="{2}" font-family="system-ui, Arial, sans-serif" font-size="{3}" '
        'fill="#1a1a1a">{4}</svg>'
    ).format(figure.width, figure.height, figure.title, FONT_PX, body)


def to_png(figure: Figure, scale: int = 2) -> bytes:
    """Return a figure as PNG on white, ``scale`` times as wide and high in pixels.

    Letters that Pillow's own font lacks lose their accents, or are left out.
    """
    factor = scale * FINER
    picture = Image.new("RGB", (figure.width * factor, figure.height * factor), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=FONT_PX * factor)
    for part in figure.parts:
        if isinstance(part, Text):
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[part.anchor]
            where = (part.x * factor, part.y * factor)
            draw.text(where, drawable(part.text), fill="#1a1a1a", font=font, anchor=anchor)
        elif isinstance(part, Dot):
            _draw_dot(picture, part, factor)
        else:
            for piece in _dashes(np.array(part.points, float) * factor, part.dash * factor):
                width = max(1, round(part.width * factor))
                draw.line([*map(tuple, piece)], fill=part.color, width=width, joint="curve")
    file = io.BytesIO()
    picture.resize((figure.width * scale, figure.height * scale), Image.Resampling.BOX).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()


def _svg(part: Line | Dot | Text) -> Markup:
    if isinstance(part, Text):
        return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
            part.x, part.y, part.anchor, part.text
        )
    if isinstance(part, Dot):
        title = Markup("<title>{}</title>").format(part.title) if part.title else Markup("")
        return Markup(
            '<circle cx="{:.1f}" cy="{:.1f}" r="{:g}" fill="{}" fill-opacity="{:g}">{}</circle>'
        ).format(part.x, part.y, part.radius, part.color, part.opacity, title)
    dash = Markup(' stroke-dasharray="{0:g} {0:g}"').format(part.dash) if part.dash else Markup("")
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in part.points)
    return Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="{:g}"{}/>').format(
        points, part.color, part.width, dash
    )


def _draw_dot(picture: Image.Image, dot: Dot, factor: int) -> None:
    radius = dot.radius * factor
    side = int(2 * radius) + 2
    mask = Image.new("L", (side, side))
    middle = side / 2
    edges = (middle - radius, middle - radius, middle + radius, middle + radius)
    ImageDraw.Draw(mask).ellipse(edges, fill=round(255 * dot.opacity))
    corner = round(dot.x * factor - middle), round(dot.y * factor - middle)
    picture.paste(ImageColor.getrgb(dot.color), (*corner, corner[0] + side, corner[1] + side), mask)


def _dashes(line: NDArray[np.float64], length: float) -> list[NDArray[np.float64]]:
    """Return a line, or every other piece of it, each of a length."""
    if not length:
        return [line]
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    pieces = []
    for start in np.arange(0, along[-1], 2 * length):
        end = min(start + length, along[-1])
        inner = line[(along > start) & (along < end)]
        ends = [[np.interp(at, along, line[:, k]) for k in (0, 1)] for at in (start, end)]
        pieces.append(np.array([ends[0], *inner, ends[1]]))
    return pieces
