"""JSON exactly as QuPath's Gson writes it, so that what was not changed stays as it was.

``dumps(loads(text)) == text`` holds for every JSON file QuPath 0.2 to 0.7 writes in a project
(``GsonTools.getInstance(pretty)``: two-space indent, HTML-safe escapes, Java's doubles).
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

_HTML = {ord(c): f"\\u{ord(c):04x}" for c in "<>&='"} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


class _ReadFloat(float):
    """A float that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> _ReadFloat:
        value = super().__new__(cls, text)
        value.text = text
        return value


def loads(text: str) -> Any:
    """Parse JSON, keeping the spelling of its numbers for ``dumps``.

    Raises
    ------
    ValueError
        When the text is not JSON.
    """
    try:
        return json.loads(text, parse_float=_ReadFloat)
    except RecursionError:
        raise ValueError("nested too deeply to be a QuPath file") from None


def dumps(value: Any, *, pretty: bool) -> str:
    """Write JSON as ``GsonTools.getInstance(pretty)`` does."""
    out: list[str] = []
    _write(value, out, "\n" if pretty else None)
    return "".join(out)


def encode(text: str) -> bytes:
    """Return the bytes of JSON text.

    A lone surrogate has no UTF-8; written as JSON's own escape it survives.
    """
    return text.encode("utf-8", "backslashreplace")


def java_double(value: float) -> str:
    """Return ``value`` as Java's ``Double.toString`` spells it (JDK 19 and newer)."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    number = Decimal(repr(value)).normalize()
    digits = "".join(map(str, number.as_tuple().digits))
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{number.adjusted()}"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_HTML)


def _write(value: Any, out: list[str], newline: str | None) -> None:
    if isinstance(value, str):
        out.append(_string(value))
    elif value is None or isinstance(value, bool):
        out.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, float):
        out.append(value.text if isinstance(value, _ReadFloat) else java_double(value))
    elif isinstance(value, dict):
        _write_items(
            [(_string(str(key)) + (": " if newline else ":"), item) for key, item in value.items()],
            "{}",
            out,
            newline,
        )
    elif isinstance(value, (list, tuple)):
        _write_items([("", item) for item in value], "[]", out, newline)
    else:
        raise TypeError(f"{type(value).__name__} has no place in JSON")


def _write_items(
    items: list[tuple[str, Any]], brackets: str, out: list[str], newline: str | None
) -> None:
    inner = None if newline is None else newline + "  "
    out.append(brackets[0])
    for index, (prefix, item) in enumerate(items):
        out.append(("," if index else "") + (inner or "") + prefix)
        _write(item, out, inner)
    if items and newline is not None:
        out.append(newline)
    out.append(brackets[1])
