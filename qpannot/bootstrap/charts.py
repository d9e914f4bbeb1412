"""The charts of a round's report, as SVG that stands by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

WIDTH, HEIGHT = 680, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 150, 32, 40
_COLORS = ("#0b4fa8", "#e08214", "#1b7837", "#762a83")
_DASHES = ("", "6 4", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class SlideScore:
    """Dice of one held-out slide."""

    name: str
    dice: float


@dataclass(frozen=True)
class RoundScore:
    """How a round's model did on the held-out slides.

    Parameters
    ----------
    kept
        Whether the round's model was kept.
    part
        What these slides are for: ``test`` or ``validation``.
    """

    round: int
    slides: tuple[SlideScore, ...]
    kept: bool = True
    part: str = "validation"

    @property
    def mean(self) -> float | None:
        """The mean over slides, ``None`` of none."""
        return fmean(slide.dice for slide in self.slides) if self.slides else None


@dataclass(frozen=True)
class Curve:
    """What was measured over the epochs of a training.

    Parameters
    ----------
    panel
        Curves of one panel share a chart: ``loss``, ``Dice of patches``.
    label
        ``training`` or ``validation``, say.
    points
        Epoch and value.
    """

    panel: str
    label: str
    points: tuple[tuple[int, float], ...]


def score_chart(scores: Sequence[RoundScore]) -> Markup:
    """Return Dice by round: a dot for each slide, a line through the means.

    A hollow mean is that of a model which was not kept.
    """
    measured = [score for score in scores if score.slides]
    axes = _Axes.of(
        [score.round for score in measured],
        [slide.dice for score in measured for slide in score.slides],
        highest=1.0,
    )
    parts = [axes.drawn("round", "Dice on held-out slides")]
    for score in measured:
        for slide in score.slides:
            parts.append(
                Markup(
                    '<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="#777" fill-opacity="0.55">'
                    "<title>{}, round {}: {:.3f}</title></circle>"
                ).format(
                    axes.x(score.round), axes.y(slide.dice), slide.name, score.round, slide.dice
                )
            )
    means = [(score.round, score.mean, score.kept) for score in measured if score.mean is not None]
    parts.append(axes.line([(x, y) for x, y, _ in means], _COLORS[0], ""))
    for x, y, kept in means:
        parts.append(
            Markup(
                '<circle cx="{0:.1f}" cy="{1:.1f}" r="5" fill="{3}" stroke="{4}" stroke-width="2"/>'
                '<text x="{0:.1f}" y="{1:.1f}" dx="9" dy="-7" class="mean">{2:.3f}</text>'
            ).format(axes.x(x), axes.y(y), y, _COLORS[0] if kept else "white", _COLORS[0])
        )
    return _svg(parts, "Dice of each round on the held-out slides")


def curve_chart(curves: Sequence[Curve]) -> Markup:
    """Return the curves of one panel over epochs, each named at its right end."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    axes = _Axes.of(xs, ys)
    parts = [axes.drawn("epoch", curves[0].panel)]
    for index, curve in enumerate(curves):
        color, dash = _COLORS[index % len(_COLORS)], _DASHES[index % len(_DASHES)]
        parts.append(axes.line(curve.points, color, dash))
        row = _TOP + 12 + 18 * index
        parts.append(
            Markup(
                '<path d="M{} {}h24" fill="none" stroke="{}" stroke-width="2" '
                'stroke-dasharray="{}"/><text x="{}" y="{}">{}</text>'
            ).format(
                WIDTH - _RIGHT + 14, row, color, dash, WIDTH - _RIGHT + 44, row + 4, curve.label
            )
        )
    return _svg(parts, curves[0].panel)


def cost_chart(minutes: Sequence[tuple[int, float]]) -> Markup:
    """Return the minutes that a slide took to correct, by the round that had proposed for it.

    Parameters
    ----------
    minutes
        Rounds and means, first to last.
    """
    axes = _Axes.of([x for x, _ in minutes], [0.0, *(y for _, y in minutes)])
    parts = [axes.drawn("proposed in round", "minutes per slide")]
    parts.append(axes.line(minutes, _COLORS[0], ""))
    for x, y in minutes:
        parts.append(
            Markup(
                '<circle cx="{0:.1f}" cy="{1:.1f}" r="5" fill="{3}"/>'
                '<text x="{0:.1f}" y="{1:.1f}" dx="9" dy="-7" class="mean">{2:.1f}</text>'
            ).format(axes.x(x), axes.y(y), y, _COLORS[0])
        )
    return _svg(parts, "Minutes that a slide took to correct, by round")


@dataclass(frozen=True)
class _Axes:
    """``low`` and ``high`` are the lowest and highest tick, in steps from zero."""

    first: int
    last: int
    low: int
    high: int
    step: float

    @classmethod
    def of(cls, xs: Sequence[int], ys: Sequence[float], *, highest: float | None = None) -> _Axes:
        low, high = min(ys), max(ys) if highest is None else highest
        rough = (high - low) / 4 or abs(low) / 10 or 1.0
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))
        ticks = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(min(xs), max(xs), *ticks, step)

    def x(self, value: float) -> float:
        room = WIDTH - _LEFT - _RIGHT
        if self.first == self.last:
            return _LEFT + room / 2
        return _LEFT + 16 + (room - 32) * (value - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        room = HEIGHT - _TOP - _BOTTOM
        return _TOP + room * (self.high - value / self.step) / max(1, self.high - self.low)

    def line(self, points: Sequence[tuple[int, float]], color: str, dash: str) -> Markup:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return Markup(
            '<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}"/>'
        ).format(path, color, dash)

    def drawn(self, below: str, beside: str) -> Markup:
        parts = []
        for k in range(self.low, self.high + 1):
            value = k * self.step
            parts.append(
                Markup(
                    '<path d="M{} {:.1f}H{}" stroke="#ddd"/>'
                    '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
                ).format(
                    _LEFT,
                    self.y(value),
                    WIDTH - _RIGHT,
                    _LEFT - 6,
                    self.y(value) + 4,
                    f"{value:.3g}",
                )
            )
        every = max(1, -(-(self.last - self.first + 1) // 10))
        for x in range(self.first, self.last + 1, every):
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    self.x(x), HEIGHT - _BOTTOM + 17, x
                )
            )
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                middle, HEIGHT - 6, below
            )
        )
        parts.append(Markup('<text x="4" y="14">{}</text>').format(beside))
        return Markup("").join(parts)


def _svg(parts: Sequence[Markup], title: str) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">'
        "{}</svg>"
    ).format(WIDTH, HEIGHT, title, Markup("").join(parts))
