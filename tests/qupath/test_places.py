from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpannot.errors import UsageError
from qpannot.qupath.places import PlaceChange, path_of_place, place_from_uri, uri_from_place


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("file:/mnt/a/1.svs", "/mnt/a/1.svs"),
        ("file:///mnt/a%20b/f%C3%A4rbung.svs", "/mnt/a b/färbung.svs"),
        ("file:///mnt/färbung.svs", "/mnt/färbung.svs"),
        ("file:///C:/Slides/1.svs", "C:/Slides/1.svs"),
        ("file:/C:/Slides/1.svs", "C:/Slides/1.svs"),
        ("C:\\Slides\\1.svs", "C:/Slides/1.svs"),
        ("file://server/share/1.svs", "//server/share/1.svs"),
        ("file:////server/share/1.svs", "//server/share/1.svs"),
        ("\\\\server\\share\\1.svs", "//server/share/1.svs"),
        ("/mnt/a/1%20.svs", "/mnt/a/1%20.svs"),
        ("https://server/1.svs", None),
        ("", None),
    ],
)
def test_every_spelling_of_a_file_means_a_place(uri: str, place: str | None) -> None:
    assert place_from_uri(uri) == place


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        ("/mnt/a b/färbung.svs", "file:///mnt/a%20b/f%C3%A4rbung.svs"),
        ("C:/Slides/1#2.svs", "file:///C:/Slides/1%232.svs"),
        ("//server/share/1.svs", "file://server/share/1.svs"),
        ("//192.168.0.7/share/1.svs", "file://192.168.0.7/share/1.svs"),
        # no host of a URI, as Java sees it
        ("//my_server/share/1.svs", "file:////my_server/share/1.svs"),
    ],
)
def test_places_are_spelt_as_java_spells_them(place: str, uri: str) -> None:
    assert uri_from_place(place) == uri
    assert place_from_uri(uri) == place


@pytest.mark.parametrize(
    ("old", "new", "uri", "moved"),
    [
        ("//old/share", "//new/share", "file://OLD/Share/b/1.svs", "file://new/share/b/1.svs"),
        ("//old/share/", "//new/x/", "file:////old/share/1.svs", "file://new/x/1.svs"),
        (r"\\old\share", "/mnt/new", "file://old/share/b/1.svs", "file:///mnt/new/b/1.svs"),
        ("file://old/share", "D:\\", "file://old/share/b/1.svs", "file:///D:/b/1.svs"),
        ("C:\\", "D:\\", "file:///c:/a/1.svs", "file:///D:/a/1.svs"),
        ("/mnt/a", "/mnt/b", "file:/mnt/a/s%20t/1.svs", "file:///mnt/b/s%20t/1.svs"),
        ("/mnt/fa\u0308rbung", "/mnt/b", "file:/mnt/f%C3%A4rbung/1.svs", "file:///mnt/b/1.svs"),
        ("/mnt/a", "/mnt/b", "file:/mnt/ab/1.svs", None),
        ("/mnt/a", "/mnt/b", "file:/mnt/A/1.svs", None),
        ("/old/share", "/mnt/b", "file://old/share/1.svs", None),
        ("/mnt/a", "/mnt/b", "https://server/mnt/a/1.svs", None),
    ],
)
def test_what_is_below_a_renamed_place_moves_and_nothing_else(
    old: str, new: str, uri: str, moved: str | None
) -> None:
    change, place = PlaceChange.of(old, new), place_from_uri(uri)
    there = change.apply(place) if place else None
    assert (uri_from_place(there) if there else None) == moved


def test_a_relative_path_is_no_place_to_rename() -> None:
    with pytest.raises(UsageError, match="'slides' is no absolute path"):
        PlaceChange.of("slides", "/mnt/b")


def test_one_file_that_moved_tells_where_its_folder_went() -> None:
    change = PlaceChange.between("//old/share/batch 1/1.svs", "/mnt/new/batch 1/1.svs")
    assert change == PlaceChange("//old/share", "/mnt/new")
    assert PlaceChange.between("/a/1.svs", "/b/renamed.svs") is None


def test_places_of_windows_are_shown_as_windows_does() -> None:
    assert str(path_of_place("//server/share/1.svs")) == r"\\server\share\1.svs"
    assert path_of_place("C:/a/1.svs") == PureWindowsPath("C:/a/1.svs")
    assert path_of_place("/mnt/1.svs") == Path("/mnt/1.svs")


names = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.skipif(os.name == "nt", reason="names as POSIX allows them")
@given(st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_a_path_comes_back_from_its_uri(parts: list[str]) -> None:
    place = "/" + "/".join(parts)
    drive_like = parts[0][1:] == ":" and parts[0][0].isascii() and parts[0][0].isalpha()
    assert drive_like or place_from_uri(uri_from_place(place)) == place
    assert drive_like or place_from_uri(Path(place).as_uri()) == place
