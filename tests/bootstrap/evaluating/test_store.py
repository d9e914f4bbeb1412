from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from qpannot.bootstrap.evaluating.store import Store, key_of
from qpannot.evaluation.measuring import ClassMeasures
from qpannot.evaluation.metrics import Reliability

MEASURES = {
    "Tumor": ClassMeasures(
        {"dice": 1 / 3, "hd95_um": math.nan},
        1.5,
        0.0,
        Reliability(np.array([3, 0]), np.array([0.1, 0.0]), np.array([2.0, 0.0])),
    ),
    "Stroma": ClassMeasures({"dice": 1.0}, 0.0, 0.0),
}


def test_what_is_kept_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    Store(tmp_path).keep_measures("net", "1", "key", MEASURES)
    found = Store(tmp_path).measures("net", "1", "key")
    assert found is not None and list(found) == ["Tumor", "Stroma"]
    tumor = found["Tumor"]
    assert tumor.metrics["dice"] == 1 / 3 and math.isnan(tumor.metrics["hd95_um"])
    assert (tumor.true_mm2, tumor.predicted_mm2) == (1.5, 0.0)
    assert tumor.reliability is not None and MEASURES["Tumor"].reliability is not None
    assert tumor.reliability.error == MEASURES["Tumor"].reliability.error
    assert tumor.reliability.counts.dtype == np.int64
    assert found["Stroma"].reliability is None


def test_what_fits_no_more_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_measures("net", "1", "key", MEASURES)
    assert store.measures("net", "1", "other key") is None
    assert store.measures("net", "2", "key") is None
    assert store.measures("other", "1", "key") is None


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_measures("net", "1", "key", MEASURES)
    (file,) = tmp_path.rglob("*.json")
    file.write_text(file.read_text()[:-20])
    assert store.measures("net", "1", "key") is None


@pytest.mark.parametrize("name", ["..", "a/b", "Mob-PW (II)", "a\\b", "."])
def test_designs_of_any_name_keep_to_the_folder(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "measured")
    store.keep_measures(name, "1", "key", MEASURES)
    assert store.measures(name, "1", "key") is not None
    (file,) = tmp_path.rglob("*.json")
    assert file.parent.parent == tmp_path / "measured"


def test_runtimes_are_kept_by_what_ran(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_runs("net", 0, "key", "torch on cpu", {"Total": [1.25, 2.5]})
    assert store.runs("net", 0, "key") == ("torch on cpu", {"Total": [1.25, 2.5]})
    assert store.runs("net", 1, "key") is None and store.runs("net", 0, "other") is None


def test_a_key_changes_with_anything_that_is_told() -> None:
    keys = {key_of("a", {"mpp": 4}), key_of("a", {"mpp": 2}), key_of("b", {"mpp": 4}), key_of("a")}
    assert len(keys) == 4 and key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
