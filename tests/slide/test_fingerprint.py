from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qpannot.errors import SlideError
from qpannot.slide.fingerprint import fingerprint_slide


def test_a_copy_under_another_name_has_the_same_fingerprint(
    slide_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "other.svs"
    shutil.copy(slide_file, copy)
    os.utime(copy, (0, 0))
    assert fingerprint_slide(copy) == fingerprint_slide(slide_file)


def test_another_slide_of_the_same_name_has_another(
    make_slide: Callable[..., Path], slide_file: Path, tmp_path: Path
) -> None:
    other = make_slide(tmp_path / "b" / slide_file.name, tissue=False)
    assert fingerprint_slide(other) != fingerprint_slide(slide_file)


@pytest.mark.parametrize("place", [0, 1 << 20, (40 << 20) - 1])
def test_large_files_are_told_apart_without_being_read_whole(tmp_path: Path, place: int) -> None:
    one, other = tmp_path / "one.svs", tmp_path / "other.svs"
    for path in (one, other):
        with path.open("wb") as file:
            file.truncate(40 << 20)  # sparse
    with other.open("r+b") as file:
        file.seek(place)
        file.write(b"x" * (2 << 20))
        file.truncate(40 << 20)
    assert fingerprint_slide(one).size_bytes == fingerprint_slide(other).size_bytes
    assert fingerprint_slide(one) != fingerprint_slide(other)


def test_the_files_beside_a_mirax_slide_count_and_its_name_does_not(tmp_path: Path) -> None:
    def write(name: str, data: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "Slidedat.ini").write_text("[GENERAL]")
        (folder / "Data0000.dat").write_bytes(data)
        path = folder.with_suffix(".mrxs")
        path.write_bytes(b"the same preview")
        return path

    one, same, other = write("1", b"pixels"), write("2", b"pixels"), write("3", b"others")
    assert fingerprint_slide(one) == fingerprint_slide(same) != fingerprint_slide(other)


def test_a_slide_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"gone\.svs: cannot be read"):
        fingerprint_slide(tmp_path / "gone.svs")
