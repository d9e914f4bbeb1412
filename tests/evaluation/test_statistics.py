from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qpannot.evaluation.statistics import (
    SlideResult,
    bootstrap_interval,
    by_design,
    different_pairs,
    grouped,
    summarize,
    summary_with_interval,
    tukey,
)

NAN = math.nan
values = st.lists(st.floats(0, 1).map(lambda value: round(value, 3)), min_size=2, max_size=20)

# Published with SAS's results, in the documentation of scipy.stats.tukey_hsd
DRUGS = {
    "one": [24.5, 23.5, 26.4, 27.1, 29.9],
    "two": [28.4, 34.2, 29.5, 32.2, 30.1],
    "three": [26.1, 28.3, 24.3, 26.2, 27.8],
}


def result(slide: str, grade: str | None, design: str = "A", dice: float = 0.5) -> SlideResult:
    return SlideResult(design, slide, {"dice": dice}, {} if grade is None else {"Grade ": grade})


def test_mean_and_deviation_of_the_sample() -> None:
    found = summarize([0.5, 0.7, 0.9])
    assert found.mean == pytest.approx(0.7)
    assert found.sd == pytest.approx(0.2)  # 0.163 would be the population's
    assert (found.count, found.missing) == (3, 0)


def test_what_could_not_be_measured_is_left_out_and_counted() -> None:
    found = summarize([0.5, NAN, 0.7, NAN])
    assert found.mean == pytest.approx(0.6)
    assert (found.count, found.missing) == (2, 2)


def test_one_slide_has_no_spread_and_none_no_mean() -> None:
    one, none = summarize([0.5]), summarize([NAN])
    assert one.mean == 0.5 and math.isnan(one.sd)
    assert math.isnan(none.mean) and math.isnan(none.sd) and (none.count, none.missing) == (0, 1)
    assert summarize([]).count == 0


def test_an_infinite_value_is_an_error_everywhere() -> None:
    for call in (
        lambda: summarize([1, math.inf]),
        lambda: bootstrap_interval([1, math.inf], seed=0),
        lambda: tukey({"a": [1, 2], "b": [math.inf, 2]}),
    ):
        with pytest.raises(ValueError, match="never infinite"):
            call()


@given(values)
def test_it_is_the_standard_librarys(own: list[float]) -> None:
    found = summarize(own)
    assert found.mean == pytest.approx(fmean(own))
    assert found.sd == pytest.approx(stdev(own), abs=1e-12)


def test_groups_come_in_order_and_slides_without_one_last() -> None:
    results = [result("a", "10"), result("b", None), result("c", " 2"), result("d", "II")]
    groups = grouped([*results, result("e", "2"), result("f", " ")], "grade")
    assert list(groups) == ["2", "10", "II", ""]
    assert [each.slide for each in groups["2"]] == ["c", "e"]
    assert [each.slide for each in groups[""]] == ["b", "f"]


def test_a_slide_without_the_metric_is_missing_not_skipped() -> None:
    results = [result("a", None), SlideResult("A", "b", {}), result("a", None, "B", 0.25)]
    found = by_design(results, "dice")
    assert list(found) == ["A", "B"] and found["B"] == [0.25]
    assert found["A"][0] == 0.5 and math.isnan(found["A"][1])


def test_the_interval_of_two_slides_is_known() -> None:
    # of two, both are the first with 1 / 4, both the second with 1 / 4
    assert bootstrap_interval([0.0, 1.0], seed=1).low == 0.0
    inner = bootstrap_interval([0.0, 1.0], seed=1, confidence=0.4)
    assert (inner.low, inner.high) == (0.5, 0.5)


def test_the_interval_is_that_of_the_normal_for_many_slides() -> None:
    sample = np.random.default_rng(3).normal(0.8, 0.1, 400)
    found = bootstrap_interval(sample.tolist(), seed=0)
    half = 1.96 * sample.std(ddof=1) / 20
    assert found.low == pytest.approx(sample.mean() - half, abs=0.001)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.001)


def test_a_seed_makes_the_interval_the_same() -> None:
    own = [0.1, 0.5, 0.7, 0.9]
    assert bootstrap_interval(own, seed=5) == bootstrap_interval(own, seed=5)
    assert bootstrap_interval([*own, NAN], seed=5) == bootstrap_interval(own, seed=5)
    few = [bootstrap_interval(own, seed=seed, resamples=20) for seed in range(5)]
    assert len(set(few)) > 1


def test_slides_of_a_patient_are_drawn_together() -> None:
    own = [0.2, 0.2, 0.2, 0.2, 0.8, 0.8, 0.8, 0.8]
    patients = ["p"] * 4 + ["q"] * 4
    found = bootstrap_interval(own, seed=0, units=patients)
    assert (found.low, found.high) == pytest.approx((0.2, 0.8))
    assert bootstrap_interval(own, seed=0).low > 0.2
    # a mean over slides, not over patients
    uneven = bootstrap_interval([0.0, 1.0, 1.0, 1.0], seed=0, units="pqqq", confidence=0.4)
    assert uneven.low == uneven.high == 0.75


@pytest.mark.parametrize(
    ("own", "units"), [([], None), ([0.5], None), ([0.5, NAN], None), ([0.1, 0.9], "pp")]
)
def test_one_slide_says_nothing_of_others(own: list[float], units: str | None) -> None:
    found = bootstrap_interval(own, seed=0, units=units)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_senseless_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([1, 2], seed=0, confidence=95)
    with pytest.raises(ValueError, match="not of 1 units"):
        bootstrap_interval([1, 2], seed=0, units="p")


def test_tukeys_test_gives_the_published_p_values() -> None:
    found = tukey(DRUGS)
    assert found.between("one", "two") == pytest.approx(0.014, abs=5e-4)
    assert found.between("three", "one") == pytest.approx(0.980, abs=5e-4)
    assert found.between("two", "three") == pytest.approx(0.020, abs=5e-4)
    assert found.differences[1, 0] == pytest.approx(4.6)
    assert np.isnan(np.diag(found.p_values)).all() and not found.left_out
    assert [pair[:2] for pair in different_pairs(found)] == [("one", "two"), ("two", "three")]


spread = values.filter(lambda own: len(set(own)) > 1)


@settings(max_examples=25)  # a hundredth of a second each
@given(spread, spread)
def test_of_two_groups_it_is_students_t_test(one: list[float], other: list[float]) -> None:
    found = tukey({"one": one, "other": other})
    expected = stats.ttest_ind(one, other).pvalue
    assert found.between("one", "other") == pytest.approx(expected, abs=1e-6)


def test_groups_that_cannot_be_compared_are_named_and_do_not_spoil_the_others() -> None:
    found = tukey({"lone": [27.0, NAN], **DRUGS, "none": [NAN]})
    assert found.left_out == {"lone": "one value", "none": "no value"}
    assert found.between("one", "two") == tukey(DRUGS).between("one", "two")
    assert math.isnan(found.between("lone", "two")) and math.isnan(found.between("none", "lone"))
    assert found.names == ("lone", "one", "two", "three", "none")


def test_a_slide_that_could_not_be_measured_is_left_out_of_the_test() -> None:
    with_nan = {name: [*own, NAN] for name, own in DRUGS.items()}
    np.testing.assert_array_equal(tukey(with_nan).p_values, tukey(DRUGS).p_values)


def test_without_spread_or_company_nothing_is_claimed() -> None:
    flat = tukey({"a": [1, 1], "b": [2, 2]})
    assert np.isnan(flat.p_values).all()
    assert set(flat.left_out.values()) == {"no spread in any group"}
    alone = tukey({"a": [1, 2], "b": [1]})
    assert alone.left_out == {"a": "nothing to compare it with", "b": "one value"}
    assert tukey({}).p_values.shape == (0, 0) and different_pairs(flat) == []


def test_a_summary_draws_whole_patients_where_slides_name_them() -> None:
    dices = {"a": 0.2, "b": 0.4, "c": 0.8, "d": 1.0}
    patients = {"a": {"Patient": "1"}, "b": {"patient ": "1"}, "c": {"patient": "2"}, "d": {}}
    results = [SlideResult("net", key, {"dice": dices[key]}, patients[key]) for key in dices]
    alone = summary_with_interval(results, "dice", seed=0)
    together = summary_with_interval(results, "dice", seed=0, unit="patient")
    assert alone.interval == bootstrap_interval(list(dices.values()), seed=0)
    expected = bootstrap_interval(list(dices.values()), seed=0, units=["1", "1", "2", "d"])
    assert together.interval == expected != alone.interval
    assert together.mean == alone.mean == pytest.approx(0.6)


def test_slides_of_one_patient_tell_nothing_of_others() -> None:
    results = [SlideResult("net", key, {"dice": 0.5}, {"patient": "1"}) for key in "ab"]
    found = summary_with_interval(results, "dice", seed=0, unit="patient")
    assert found.interval is not None and math.isnan(found.interval.low)
    missing = summary_with_interval(results, "hd95_um", seed=0, unit="patient")
    assert missing.count == 0 and missing.missing == 2
