from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from qpannot.errors import QpannotError
from qpannot.sampling import EpochSampler, PatchTable, PatchTree

MakeTable = Callable[..., PatchTable]
PAPER = ("grade", "slide", "class")


@pytest.fixture
def tables(make_table: MakeTable) -> dict[str, PatchTable]:
    return {
        "a": make_table(1, 200),
        "b": make_table(30, 5),
        "c": make_table(10, 10),
        "d": make_table(40, 0),
        "glass": make_table(0, 0),
    }


METADATA: Mapping[str, Mapping[str, str]] = {
    "a": {"grade": "1", "scanner": "X"},
    "b": {"grade": "2", "scanner": "X"},
    "c": {"grade": "2", "scanner": "Y"},
    "d": {"scanner": "  "},
}


def shares(tree: PatchTree, *of: int) -> dict[tuple[str | None, ...], float]:
    """The probability of each branch, by the levels counted in ``of``."""
    found: Counter[tuple[str | None, ...]] = Counter()
    for branch, probability in zip(tree.branches, tree.probabilities, strict=True):
        found[tuple(branch[level] for level in of)] += probability
    return dict(found)


def test_each_level_is_uniform_given_the_one_before(tables: dict[str, PatchTable]) -> None:
    tree = PatchTree(tables, METADATA, PAPER)
    assert shares(tree, 0) == pytest.approx({("1",): 1 / 3, ("2",): 1 / 3, (None,): 1 / 3})
    assert shares(tree, 0, 1) == pytest.approx(
        {("1", "a"): 1 / 3, ("2", "b"): 1 / 6, ("2", "c"): 1 / 6, (None, "d"): 1 / 3}
    )
    assert shares(tree, 1, 2) == pytest.approx(
        {("a", "Non-tumor"): 1 / 6, ("a", "Tumor"): 1 / 6}
        | {("b", "Non-tumor"): 1 / 12, ("b", "Tumor"): 1 / 12}
        | {("c", "Non-tumor"): 1 / 12, ("c", "Tumor"): 1 / 12}
        | {("d", "Non-tumor"): 1 / 3}
    )


def test_patches_are_drawn_with_the_probabilities_of_the_tree(
    tables: dict[str, PatchTable],
) -> None:
    tree = PatchTree(tables, METADATA, PAPER)
    count = 200_000
    rows = tree.draw(count, np.random.default_rng(0))
    found = Counter(zip(tree.slide[rows].tolist(), tree.label[rows].tolist(), strict=True))
    for (slide, label), probability in shares(tree, 1, 2).items():
        key = (tree.slides.index(str(slide)), tree.classes.index(str(label)))
        error = 5 * np.sqrt(probability * (1 - probability) / count)
        assert found[key] / count == pytest.approx(probability, abs=error)


def test_within_a_leaf_every_patch_is_as_probable(tables: dict[str, PatchTable]) -> None:
    tree = PatchTree(tables, METADATA, PAPER)
    rows = tree.draw(200_000, np.random.default_rng(0))
    is_tumour_of_a = (tree.slide[rows] == 0) & (tree.label[rows] == 1)
    counts = np.bincount(rows[is_tumour_of_a], minlength=len(tree))[
        (tree.slide == 0) & (tree.label == 1)
    ]
    assert len(counts) == 200
    expected = 200_000 / 6 / 200
    assert counts == pytest.approx(np.full(200, expected), abs=5 * np.sqrt(expected))


def test_rows_lead_to_the_patches_of_the_tables(tables: dict[str, PatchTable]) -> None:
    tree = PatchTree(tables, METADATA, PAPER)
    assert len(tree) == sum(len(table) for table in tables.values())
    for name, table in tables.items():
        rows = [row for row in range(len(tree)) if tree.slides[tree.slide[row]] == name]
        found = sorted((tree.region(row).x, int(tree.label[row])) for row in rows)
        assert found == sorted(zip(table.x.tolist(), table.label.tolist(), strict=True))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (("class",), {"Non-tumor": 1 / 2, "Tumor": 1 / 2}),
        (("slide", "class"), {"Non-tumor": 5 / 8, "Tumor": 3 / 8}),
        (("class", "scanner"), {"Non-tumor": 1 / 2, "Tumor": 1 / 2}),
        (("no such key", "class"), {"Non-tumor": 1 / 2, "Tumor": 1 / 2}),
    ],
)
def test_any_levels_in_any_order(
    tables: dict[str, PatchTable], levels: tuple[str, ...], expected: dict[str, float]
) -> None:
    tree = PatchTree(tables, METADATA, levels)
    by_class = shares(tree, levels.index("class"))
    assert by_class == pytest.approx({(name,): share for name, share in expected.items()})


def test_a_blank_value_is_a_missing_one(tables: dict[str, PatchTable]) -> None:
    tree = PatchTree(tables, METADATA, ("scanner",))
    assert shares(tree, 0) == pytest.approx({("X",): 1 / 3, ("Y",): 1 / 3, (None,): 1 / 3})


def test_without_levels_every_patch_is_as_probable(tables: dict[str, PatchTable]) -> None:
    tree = PatchTree(tables, METADATA, ())
    assert tree.counts.tolist() == [len(tree)]


def test_nothing_to_draw_says_what_is_missing(make_table: MakeTable) -> None:
    with pytest.raises(QpannotError, match=r"Tumor: no patches(.|\n)*Annotate some"):
        PatchTree({"a": make_table(0, 0)}, {}, PAPER)
    with pytest.raises(QpannotError, match=r"no slides(.|\n)*Review"):
        PatchTree({}, {}, PAPER)


def test_tables_of_different_recipes_are_not_mixed(make_table: MakeTable) -> None:
    tables = {"a": make_table(1, 1), "b": make_table(1, 1, classes=("Non-tumor", "Stroma"))}
    with pytest.raises(ValueError, match="different recipes"):
        PatchTree(tables, {}, PAPER)


def drawn(tree: PatchTree, epoch: int = 0, **changes: int | bool) -> list[list[int]]:
    arguments = {"batch_size": 4, "batches": 6, "seed": 1} | changes
    sampler = EpochSampler(tree, **arguments)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return [batch.rows.tolist() for batch in batches]


@pytest.fixture
def tree(tables: dict[str, PatchTable]) -> PatchTree:
    return PatchTree(tables, METADATA, PAPER)


def test_an_epoch_is_settled_by_its_number_and_the_seed(tree: PatchTree) -> None:
    assert drawn(tree, 3) == drawn(tree, 3)
    assert drawn(tree, 3) != drawn(tree, 4)
    assert drawn(tree, 3) != drawn(tree, 3, seed=2)
    assert drawn(tree, 3, seed=-1) == drawn(tree, 3, seed=-1)


def test_an_epoch_can_be_drawn_without_those_before_it(tree: PatchTree) -> None:
    sampler = EpochSampler(tree, batch_size=4, batches=6, seed=1)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        last = [batch.rows.tolist() for batch in sampler]
    assert last == drawn(tree, 3)


def test_ranks_share_the_epoch_of_a_single_one(tree: PatchTree) -> None:
    alone = drawn(tree, 2)
    parts = [drawn(tree, 2, rank=rank, ranks=3) for rank in range(3)]
    assert [batch for group in zip(*parts, strict=True) for batch in group] == alone


def test_ranks_that_do_not_divide_the_epoch_have_equally_many_batches(tree: PatchTree) -> None:
    parts = [drawn(tree, 2, rank=rank, ranks=4) for rank in range(4)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert len({str(batch) for part in parts for batch in part}) == 8


def test_there_is_no_rank_beyond_the_last(tree: PatchTree) -> None:
    with pytest.raises(ValueError, match="rank"):
        EpochSampler(tree, batch_size=1, batches=1, seed=0, rank=2, ranks=2)


def test_a_fixed_epoch_is_always_the_same(tree: PatchTree) -> None:
    assert drawn(tree, 5, is_fixed=True) == drawn(tree, 0)


def test_positions_number_the_draws_of_an_epoch_over_all_ranks(tree: PatchTree) -> None:
    found = []
    for rank in range(2):
        sampler = EpochSampler(tree, batch_size=4, batches=6, seed=1, rank=rank, ranks=2)
        found += [position for batch in sampler for position in batch.positions.tolist()]
    assert sorted(found) == list(range(24))
