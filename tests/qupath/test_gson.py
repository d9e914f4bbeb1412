from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.qupath import gson

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_qupaths_own_files_come_out_byte_for_byte(shared_data: Path) -> None:
    files = [
        path
        for path in (shared_data / "qupath").glob("**/*project*/**/*")
        if path.suffix in (".json", ".qpproj", ".backup")
    ]
    assert files
    for path in files:
        text = path.read_bytes().decode()
        pretty = path.name != "summary.json"
        assert gson.dumps(gson.loads(text), pretty=pretty) == text, path.name


@given(JSON, st.booleans())
def test_what_is_written_is_read_back(value: Any, pretty: bool) -> None:
    text = gson.dumps(value, pretty=pretty)
    assert gson.loads(text) == value
    assert gson.dumps(gson.loads(text), pretty=pretty) == text


@given(st.text())
def test_strings_are_safe_for_html_as_gsons_are(text: str) -> None:
    written = gson.dumps(text, pretty=True)
    assert json.loads(written) == text
    assert not set(written[1:-1]) & set("<>&='\u2028\u2029")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (0.499, "0.499"),
        (1e-5, "1.0E-5"),
        (1e7, "1.0E7"),
        (9999999.0, "9999999.0"),
        (123456789.5, "1.234567895E8"),
        (-2.5e-10, "-2.5E-10"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
    ],
)
def test_numbers_are_spelt_as_java_does(value: float, text: str) -> None:
    assert gson.dumps(value, pretty=False) == text


def test_the_spelling_of_numbers_that_were_read_is_kept() -> None:
    assert gson.dumps(gson.loads('{"a":0.2500,"b":1e2}'), pretty=False) == '{"a":0.2500,"b":1e2}'


def test_nesting_without_end_is_an_error_and_no_crash() -> None:
    with pytest.raises(ValueError, match="deep"):
        gson.loads("[" * 200_000)
