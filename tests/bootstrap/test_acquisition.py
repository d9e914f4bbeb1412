from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qpannot.affine import Affine
from qpannot.bootstrap.acquisition import Candidate, mean_entropy, rank
from qpannot.errors import SlideError
from qpannot.geometry import Mpp
from qpannot.heatmap import Heatmap, load_heatmap, save_heatmap

NAN = np.nan


def heatmap(probabilities: NDArray[np.float32]) -> Heatmap:
    names = ("rest", "Tumor", "Stroma")[: probabilities.shape[2]]
    return Heatmap(probabilities, names, Affine.downsampled(64), Mpp.square(0.5))


def two_classes(tumor: list[list[float]]) -> Heatmap:
    values = np.array(tumor, np.float32)
    return heatmap(np.stack([1 - values, values], axis=2))


def candidate(name: str, give: Callable[[], Heatmap | None]) -> Candidate:
    return Candidate(id=f"id-{name}", name=name, metadata={}, heatmap=give)


def of_doubt(name: str, tumor: float) -> Candidate:
    return candidate(name, lambda: two_classes([[tumor, NAN]]))


def not_needed() -> Heatmap:
    raise AssertionError("opened without need")


def test_the_slide_the_network_is_least_sure_of_comes_first() -> None:
    slides = [of_doubt("sure", 0.99), of_doubt("torn", 0.5), of_doubt("leaning", 0.8)]
    ranked = rank(slides, "entropy", seed=1)
    assert [slide.name for slide in ranked] == ["torn", "leaning", "sure"]
    assert ranked[0].score == pytest.approx(1) and ranked[0].id == "id-torn"
    assert ranked[0].reason.startswith("the network is least sure here: mean entropy 1.00")
    assert ranked[1].reason.startswith("number 2 of 3")
    assert "mean entropy 0.72" in ranked[1].reason  # of 0.8 and 0.2, in bits


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([[[0.5, 0.5]]], 1.0),
        ([[[1.0, 0.0]]], 0.0),
        ([[[1 / 3, 1 / 3, 1 / 3]]], 1.0),
        ([[[0.5, 0.5, 0.0]]], np.log(2) / np.log(3)),
        ([[[1.0, 0.0], [0.5, 0.5]], [[NAN, NAN], [0.5, 0.5]]], 2 / 3),
        ([[[0.5]]], 1.0),
        ([[[1.0]]], 0.0),
    ],
)
def test_entropy_is_a_mean_over_what_was_predicted(
    probabilities: list[list[list[float]]], expected: float
) -> None:
    assert mean_entropy(heatmap(np.array(probabilities, np.float32))) == pytest.approx(expected)


def test_entropy_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tumor = rng.random((37, 11))
    tumor[rng.random((37, 11)) < 0.3] = NAN
    whole = mean_entropy(two_classes(tumor.tolist()))
    monkeypatch.setattr("qpannot.bootstrap.acquisition._CELLS_AT_A_TIME", 40)
    assert mean_entropy(two_classes(tumor.tolist())) == pytest.approx(whole)


def test_slides_without_a_heatmap_come_last_and_say_why() -> None:
    def broken() -> Heatmap:
        raise SlideError("b.ome.tif", "not a TIFF")

    slides = [
        candidate("none", lambda: None),
        candidate("broken", broken),
        candidate("blank", lambda: two_classes([[NAN]])),
        of_doubt("sure", 1.0),
    ]
    ranked = rank(slides, "entropy", seed=0)
    assert ranked[0].name == "sure" and ranked[0].score == 0
    reasons = {slide.name: slide.reason for slide in ranked[1:]}
    assert all(slide.score is None for slide in ranked[1:])
    assert reasons["none"] == "last, because the network has not looked at it"
    assert reasons["broken"].endswith("cannot be read: b.ome.tif: not a TIFF")
    assert "no tissue" in reasons["blank"]


def test_lots_are_drawn_anew_with_another_seed_and_open_nothing() -> None:
    slides = [candidate(str(n), not_needed) for n in range(30)]
    first = rank(slides, "random", seed=0)
    assert [s.name for s in first] != [s.name for s in slides]
    assert rank(slides[::-1], "random", seed=0) == first
    assert rank(slides, "random", seed=1) != first
    assert {s.name for s in first} == {s.name for s in slides}
    assert all(s.score is None and s.reason == "drawn at random" for s in first)


def test_lots_stay_when_some_slides_are_done() -> None:
    slides = [candidate(str(n), not_needed) for n in range(20)]
    drawn = [s.name for s in rank(slides, "random", seed=5)]
    left = [s.name for s in rank(slides[3:], "random", seed=5)]
    assert left == [name for name in drawn if name not in {"0", "1", "2"}]


def test_equal_doubt_is_decided_by_lot() -> None:
    slides = [of_doubt(str(n), 0.7) for n in range(9)]
    by_lot = [s.name for s in rank(slides, "random", seed=2)]
    assert [s.name for s in rank(slides[::-1], "entropy", seed=2)] == by_lot


def test_one_heatmap_is_in_memory_at_a_time() -> None:
    alive: list[weakref.ref[Heatmap]] = []
    most = 0

    def give() -> Heatmap:
        nonlocal most
        made = two_classes([[0.4]])
        alive.append(weakref.ref(made))
        most = max(most, sum(each() is not None for each in alive))
        return made

    rank([candidate(str(n), give) for n in range(5)], "entropy", seed=0)
    assert len(alive) == 5 and most == 1


def test_heatmaps_on_disk_rank_as_they_did_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    made = {
        name: two_classes((rng.random((40, 50)) ** power).tolist())
        for name, power in (("a", 1), ("b", 5), ("c", 0.1))
    }
    for name, each in made.items():
        save_heatmap(tmp_path / f"{name}.ome.tif", each)
    in_memory = [candidate(name, lambda each=each: each) for name, each in made.items()]  # type: ignore[misc]
    on_disk = [
        candidate(name, lambda name=name: load_heatmap(tmp_path / f"{name}.ome.tif"))  # type: ignore[misc]
        for name in made
    ]
    one, other = (rank(slides, "entropy", seed=0) for slides in (in_memory, on_disk))
    assert [s.name for s in one] == [s.name for s in other]
    for here, there in zip(one, other, strict=True):
        assert here.score == pytest.approx(there.score, abs=0.02)


def test_each_slide_is_announced_before_it_is_measured() -> None:
    told: list[tuple[str, int, int]] = []
    rank(
        [of_doubt("a", 0.1), of_doubt("b", 0.2)],
        "entropy",
        seed=0,
        each=lambda name, done, total: told.append((name, done, total)),
    )
    assert sorted(name for name, _, _ in told) == ["a", "b"]
    assert [(done, total) for _, done, total in told] == [(0, 2), (1, 2)]
