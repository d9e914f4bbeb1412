"""What the metrics of slides say together: means, their uncertainty, and which designs differ."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from qpannot.sampling import value_of

RESAMPLES = 10_000


@dataclass(frozen=True)
class SlideResult:
    """What was measured of one design on one slide.

    Parameters
    ----------
    design
        What is evaluated.
    slide
        As the project calls it.
    metrics
        By name, as of `qpannot.evaluation.metrics.pixel_metrics`; NaN: could not be measured.
    metadata
        Of the slide, as ``{"grade": "II"}``.
    """

    design: str
    slide: str
    metrics: Mapping[str, float]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a mean lies with some confidence; NaN where that cannot be told."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean and the spread of some values.

    Parameters
    ----------
    mean
        NaN of no value.
    sd
        The standard deviation of the sample (n - 1); NaN of fewer than two values.
    count
        How many values there are.
    missing
        How many more could not be measured (NaN), and are left out.
    interval
        Of the mean, if it was asked for.
    """

    mean: float
    sd: float
    count: int
    missing: int = 0
    interval: Interval | None = None


@dataclass(frozen=True, eq=False)
class TukeyTest:
    """Which groups' means differ, with all pairs of groups in mind.

    Parameters
    ----------
    names
        Of the groups.
    p_values
        Shape [groups, groups], symmetric. NaN on the diagonal, and where it cannot be told.
    differences
        Mean of the row's group minus that of the column's, shape [groups, groups].
    left_out
        Why groups could not be compared, by name.
    """

    names: tuple[str, ...]
    p_values: NDArray[np.float64]
    differences: NDArray[np.float64]
    left_out: Mapping[str, str]

    def between(self, one: str, other: str) -> float:
        """Return the p-value of two groups."""
        return float(self.p_values[self.names.index(one), self.names.index(other)])


def summarize(values: Iterable[float], *, interval: Interval | None = None) -> Summary:
    """Return the mean and the standard deviation of slides' values.

    Parameters
    ----------
    values
        One a slide. NaN is left out, and counted.
    interval
        Of the mean, as `bootstrap_interval` finds it, to be kept with it.

    Raises
    ------
    ValueError
        A value is infinite.
    """
    found, missing = _measured(values)
    return Summary(
        mean=float(found.mean()) if len(found) else math.nan,
        sd=float(found.std(ddof=1)) if len(found) > 1 else math.nan,
        count=len(found),
        missing=missing,
        interval=interval,
    )


def summary_of(results: Sequence[SlideResult], metric: str) -> Summary:
    """Return the mean and the standard deviation of a metric over slides."""
    return summarize(result.metrics.get(metric, math.nan) for result in results)


def summary_with_interval(
    results: Sequence[SlideResult],
    metric: str,
    *,
    seed: int,
    unit: str | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Summary:
    """Return the same with the interval of the mean.

    Parameters
    ----------
    unit
        Key of the slides' metadata that tells what is drawn as a whole, as ``patient``. A slide
        without it stands for itself, as does every slide where this is ``None``.
    seed, confidence, resamples
        See `bootstrap_interval`.
    """
    values = [result.metrics.get(metric, math.nan) for result in results]
    named = [value_of(result.metadata, unit) if unit else "" for result in results]
    units = [
        (True, name) if name else (False, result.slide)
        for name, result in zip(named, results, strict=True)
    ]
    interval = bootstrap_interval(
        values, seed=seed, units=units, confidence=confidence, resamples=resamples
    )
    return summarize(values, interval=interval)


def grouped(results: Iterable[SlideResult], key: str) -> dict[str, list[SlideResult]]:
    """Return the results of slides by a key of their metadata.

    Parameters
    ----------
    key
        Case and spaces around it do not matter, nor those around the slides' values.

    Returns
    -------
    dict
        Sorted by value, numbers by size; last ``""``, of the slides that have none.
    """
    groups: dict[str, list[SlideResult]] = {}
    for result in results:
        groups.setdefault(value_of(result.metadata, key), []).append(result)
    return {name: groups[name] for name in sorted(groups, key=_place)}


def by_design(results: Iterable[SlideResult], metric: str) -> dict[str, list[float]]:
    """Return the slides' values of a metric by design, designs as they come.

    A slide without the metric has NaN.
    """
    designs: dict[str, list[float]] = {}
    for result in results:
        designs.setdefault(result.design, []).append(result.metrics.get(metric, math.nan))
    return designs


def bootstrap_interval(
    values: Sequence[float],
    *,
    seed: int,
    units: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return where the mean of slides' values lies, by drawing slides again and again.

    Parameters
    ----------
    values
        One a slide. NaN is left out. For two designs on the same slides: the differences.
    seed
        The same one gives the same interval.
    units
        What is drawn as a whole, as each slide's patient; slides of one are no independent news.
        ``None``: each slide is drawn by itself.
    confidence
        Between 0 and 1.
    resamples
        How often the slides are drawn.

    Returns
    -------
    Interval
        NaN of fewer than two slides or units, which say nothing of how others would differ.

    Raises
    ------
    ValueError
        A value is infinite, the confidence is none, or units and values are of different numbers.

    Notes
    -----
    Efron's percentile interval of the mean: it never leaves the range of the values, and is too
    narrow for few slides.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"no interval of confidence {confidence} from {resamples} draws")
    names = list(range(len(values)) if units is None else units)
    if len(names) != len(values):
        raise ValueError(f"{len(values)} values are not of {len(names)} units")
    _measured(values)
    sums: dict[Hashable, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        if not math.isnan(value):
            sums.setdefault(name, []).append(value)
    if len(sums) < 2:
        return Interval(math.nan, math.nan)
    totals = np.array([math.fsum(own) for own in sums.values()])
    counts = np.array([len(own) for own in sums.values()])
    generator = np.random.default_rng(seed)
    # how often each unit is drawn says as much as which ones are
    times = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    means = (times @ totals) / (times @ counts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def tukey(groups: Mapping[str, Sequence[float]]) -> TukeyTest:
    """Compare the means of all pairs of groups by Tukey's range test.

    Parameters
    ----------
    groups
        Values by name: of designs, one a slide. NaN is left out.

    Returns
    -------
    TukeyTest
        Groups of fewer than two values, and all groups where none has any spread, cannot be
        compared: their p-values are NaN, and it says why.

    Raises
    ------
    ValueError
        A value is infinite.

    Notes
    -----
    H2G-Net sec. 3.3, on the Dice of all designs but Otsu. The test (Tukey-Kramer for groups of
    different sizes) takes the groups for independent and equally spread; designs judged on the same
    slides are not independent, which mostly makes its p-values too large. They are exact here; the
    paper's "p ~ 0.9" is likely the upper end of an interpolated table.
    """
    names = tuple(groups)
    found = [_measured(values)[0] for values in groups.values()]
    p_values = np.full((len(names), len(names)), np.nan)
    means = np.array([own.mean() if len(own) else np.nan for own in found])
    left_out = {
        name: "no value" if not len(own) else "one value"
        for name, own in zip(names, found, strict=True)
        if len(own) < 2
    }
    fit = [index for index, own in enumerate(found) if len(own) > 1]
    if fit and all(np.ptp(found[index]) == 0 for index in fit):
        left_out |= dict.fromkeys([names[index] for index in fit], "no spread in any group")
    elif len(fit) == 1:
        left_out[names[fit[0]]] = "nothing to compare it with"
    elif fit:
        from scipy.stats import tukey_hsd  # half a second

        p_values[np.ix_(fit, fit)] = tukey_hsd(*(found[index] for index in fit)).pvalue
        np.fill_diagonal(p_values, np.nan)
    return TukeyTest(names, p_values, means[:, None] - means[None, :], left_out)


def different_pairs(test: TukeyTest, level: float = 0.05) -> list[tuple[str, str, float]]:
    """Return the pairs of groups whose means differ, and their p-values, the surest first."""
    pairs = [(one, other, test.between(one, other)) for one, other in combinations(test.names, 2)]
    return sorted((pair for pair in pairs if pair[2] < level), key=lambda pair: pair[2])


def _measured(values: Iterable[float]) -> tuple[NDArray[np.float64], int]:
    """Return the values that are numbers, and how many are not."""
    found = np.array(list(values), np.float64)
    if np.isinf(found).any():
        raise ValueError("a metric of a slide is a number or NaN, never infinite")
    is_missing = np.isnan(found)
    return found[~is_missing], int(is_missing.sum())


def _place(name: str) -> tuple[bool, bool, float, str]:
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    is_number = math.isfinite(number)
    return not name, not is_number, number if is_number else 0.0, name
