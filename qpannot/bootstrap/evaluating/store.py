"""What was measured, kept so that a rerun measures only what changed: a file a design and slide."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, ValidationError

from qpannot.evaluation.measuring import ClassMeasures
from qpannot.evaluation.metrics import Reliability
from qpannot.qupath.files import write_atomically

VERSION = 2
"""To be raised when the same slide, truth and design are measured otherwise than before."""


_Kept = TypeVar("_Kept", bound=BaseModel)


class _Bins(BaseModel):
    counts: list[int]
    probability_sums: list[float]
    truth_sums: list[float]


class _Class(BaseModel):
    metrics: dict[str, float | None]
    true_mm2: float
    predicted_mm2: float
    bins: _Bins | None


class _Measured(BaseModel):
    key: str
    classes: dict[str, _Class]


class _Runs(BaseModel):
    key: str
    engine: str
    seconds: dict[str, list[float]]


class Store:
    """The measurements of one folder.

    Parameters
    ----------
    folder
        Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def measures(self, design: str, slide_id: str, key: str) -> dict[str, ClassMeasures] | None:
        """Return what was measured of a slide, ``None`` where it fits no more.

        Parameters
        ----------
        key
            See `key_of`.
        """
        found = _read(self._path(design, slide_id), _Measured)
        if found is None or found.key != key:
            return None
        return {name: _measures(each) for name, each in found.classes.items()}

    def keep_measures(
        self, design: str, slide_id: str, key: str, measures: Mapping[str, ClassMeasures]
    ) -> None:
        """Keep what was measured of a slide, in place of what was before."""
        classes = {name: _record(each) for name, each in measures.items()}
        _write(self._path(design, slide_id), _Measured(key=key, classes=classes))

    def runs(self, design: str, number: int, key: str) -> tuple[str, dict[str, list[float]]] | None:
        """Return what ran a design and the seconds of each stage, ``None`` where it fits no more.

        Parameters
        ----------
        number
            Of the design's runner.
        """
        found = _read(self._path(design, f"runtime-{number}"), _Runs)
        return (found.engine, found.seconds) if found and found.key == key else None

    def keep_runs(
        self, design: str, number: int, key: str, engine: str, seconds: Mapping[str, list[float]]
    ) -> None:
        """Keep how long a slide took."""
        runs = _Runs(key=key, engine=engine, seconds=dict(seconds))
        _write(self._path(design, f"runtime-{number}"), runs)

    def _path(self, design: str, name: str) -> Path:
        safe = quote(design, safe=" ").replace(".", "%2E")  # ".." is a folder as well
        return self.folder / safe / f"{quote(name, safe=' ')}.json"


def key_of(*told: object) -> str:
    """Return a digest of all that decides a measurement."""
    text = json.dumps([VERSION, *told], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _record(measures: ClassMeasures) -> _Class:
    bins = measures.reliability
    return _Class(
        metrics={
            name: None if math.isnan(value) else value for name, value in measures.metrics.items()
        },
        true_mm2=measures.true_mm2,
        predicted_mm2=measures.predicted_mm2,
        bins=None
        if bins is None
        else _Bins(
            counts=bins.counts.tolist(),
            probability_sums=bins.probability_sums.tolist(),
            truth_sums=bins.truth_sums.tolist(),
        ),
    )


def _measures(record: _Class) -> ClassMeasures:
    bins = record.bins
    return ClassMeasures(
        {name: math.nan if value is None else value for name, value in record.metrics.items()},
        record.true_mm2,
        record.predicted_mm2,
        None
        if bins is None
        else Reliability(
            np.array(bins.counts, np.int64), _array(bins.probability_sums), _array(bins.truth_sums)
        ),
    )


def _array(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def _read(path: Path, kind: type[_Kept]) -> _Kept | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # it is measured again


def _write(path: Path, record: BaseModel) -> None:
    write_atomically(path, (record.model_dump_json() + "\n").encode())
