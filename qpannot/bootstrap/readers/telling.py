"""What is told of readers, in a round's report and by ``qpannot status``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qpannot.bootstrap.corrections import Change
from qpannot.bootstrap.image_record import ImageRecord
from qpannot.bootstrap.ledger import Ledger, RoundRecord
from qpannot.bootstrap.readers.agreement import Agreement, agreement_of
from qpannot.bootstrap.readers.apart import readers_of
from qpannot.bootstrap.readers.costs import RoundCost, SlideCost, round_costs, slide_costs
from qpannot.bootstrap.states import ImageStatus, State, is_vouched
from qpannot.errors import QpannotError
from qpannot.recipe import Recipe

SHARED_NAME = "who corrected the proposals"
"""What the reader is called whose annotations carry no name."""


@dataclass(frozen=True)
class SecondRow:
    """What a second reader changed of one class of one slide."""

    slide: str
    first: str
    second: str
    class_name: str
    change: Change


@dataclass(frozen=True)
class AgreementRow:
    """How far two readers of a slide agree on one class."""

    slide: str
    one: str
    other: str
    class_name: str
    dice: float


@dataclass(frozen=True)
class CostRow:
    """What a slide's correction cost, with the slide's name."""

    slide: str
    cost: SlideCost


@dataclass(frozen=True)
class ReadersReport:
    """What a round's report says of those who read slides. What is empty was not measured.

    Parameters
    ----------
    second
        Of slides that are approved, in any order.
    agreement
        Of slides that several people read independently, in any order.
    rule
        By which their readings become one truth.
    costs
        Of the slides whose correction the round found, the longest first.
    rounds
        Costs by the round that had proposed, first to last.
    """

    second: tuple[SecondRow, ...] = ()
    agreement: tuple[AgreementRow, ...] = ()
    rule: str = ""
    costs: tuple[CostRow, ...] = ()
    rounds: tuple[RoundCost, ...] = ()

    @property
    def minutes_per_slide(self) -> list[tuple[int, float]]:
        """The mean of each round that was timed."""
        return [(each.round, mean) for each in self.rounds if (mean := each.minutes_per_slide)]


def report_of_readers(
    statuses: Sequence[ImageStatus],
    ledger: Ledger,
    record: RoundRecord,
    recipe: Recipe,
    called: Mapping[str, str],
) -> ReadersReport:
    """Return what a round's report says of readers.

    Parameters
    ----------
    statuses
        Every image of the project.
    recipe
        Whose classes are compared.
    called
        What images are called, by ID.
    """
    known = {
        status.image.id: ledger.image(status.image.id, status.image.name)
        for status in statuses
        if not status.error
    }
    proposed_in = {key: own.standing[-1].round for key, own in known.items() if own.standing}
    first = {
        key: [
            each
            for each in own.effort
            if not each.second_reader and each.round == proposed_in.get(key)
        ]
        for key, own in known.items()
    }
    costs = slide_costs(first, record.corrections)
    return ReadersReport(
        second=tuple(_second_rows(known, called)),
        agreement=tuple(_agreement_rows(statuses, known, recipe, called)),
        rule=recipe.annotators.rule,
        costs=tuple(CostRow(called.get(cost.image_id, cost.image_id), cost) for cost in costs),
        rounds=tuple(round_costs({key: own.effort for key, own in known.items()})),
    )


def _second_rows(
    known: Mapping[str, ImageRecord], called: Mapping[str, str]
) -> Iterable[SecondRow]:
    for key, record in known.items():
        if second := record.second_reading:
            for name, change in second.change.by_class.items():
                yield SecondRow(called[key], second.first, second.second, name, change)


def _agreement_rows(
    statuses: Sequence[ImageStatus],
    known: Mapping[str, ImageRecord],
    recipe: Recipe,
    called: Mapping[str, str],
) -> Iterable[AgreementRow]:
    for status in statuses:
        key = status.image.id
        if key in known:
            for each in agreement_on(status, known[key], recipe):
                for name, dice in each.dice.items():
                    one, other = (own or SHARED_NAME for own in (each.one, each.other))
                    yield AgreementRow(called[key], one, other, name, dice)


def agreement_on(status: ImageStatus, record: ImageRecord, recipe: Recipe) -> list[Agreement]:
    """Return how far those agree who read a slide independently; nothing where nobody did.

    The annotations are read only where somebody did.
    """
    if not record.independent_readers and not (status.seen and status.seen.annotators):
        return []
    image = status.image
    try:
        annotations = image.annotations()
    except QpannotError:
        return []  # whoever needs them says so
    readers = readers_of(annotations, record, is_vouched=is_vouched(image, record))
    return agreement_of(readers, recipe.labels) if readers else []


def readers_json(status: ImageStatus, ledger: Ledger, recipe: Recipe) -> dict[str, Any]:
    """Return what is known of those who read a slide, for scripts."""
    record = _record(status, ledger)
    second = record.second_reading
    return {
        "second_reader": second.model_dump(mode="json") if second else None,
        "independent_readers": list(record.independent_readers),
        "agreement": [
            {"readers": [each.one, each.other], "dice": each.dice}
            for each in agreement_on(status, record, recipe)
        ],
        "effort": [each.model_dump(mode="json") for each in record.effort],
    }


def costs_json(statuses: Iterable[ImageStatus], ledger: Ledger) -> list[dict[str, Any]]:
    """Return what correcting the proposals of each round cost, for scripts."""
    known = [_record(status, ledger) for status in statuses]
    return [
        {
            "round": each.round,
            "slides": each.slides,
            "active_minutes": each.minutes,
            "active_minutes_per_slide": each.minutes_per_slide,
            "strokes": each.strokes,
            "area_changed_mm2": each.area_mm2,
            "second_reader_minutes": each.second_reader_minutes,
        }
        for each in round_costs({record.id: record.effort for record in known})
    ]


def _record(status: ImageStatus, ledger: Ledger) -> ImageRecord:
    """Return what is recorded of an image: nothing where that cannot be read, as its error says."""
    image = status.image
    try:
        return ledger.image(image.id, image.name)
    except QpannotError:
        return ImageRecord(id=image.id, name=image.name)


def second_readings_of(
    statuses: Iterable[ImageStatus], ledger: Ledger, called: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """Return a table of what second readers changed, a row for each slide, the worst first."""
    rows = []
    for status in statuses:
        if status.error or status.state is not State.APPROVED:
            continue
        second = ledger.image(status.image.id, status.image.name).second_reading
        if second:
            rows.append((second.change.overall.dice, called[status.image.id], second))
    return [
        (
            name,
            second.first,
            second.second,
            f"{dice:.3f}",
            f"{second.change.overall.iou:.3f}",
            _area(second.change.overall.area_added_mm2, second.change.overall.area_added_px2),
            _area(second.change.overall.area_removed_mm2, second.change.overall.area_removed_px2),
            _moved(second.change.overall),
        )
        for dice, name, second in sorted(rows, key=lambda row: row[:2])
    ]


def unmeasured(
    statuses: Iterable[ImageStatus], ledger: Ledger, called: Mapping[str, str]
) -> list[str]:
    """Return the names of approved slides of which nobody knows what the first reader had left."""
    approved = [each for each in statuses if each.state is State.APPROVED and not each.error]
    return [
        called[status.image.id]
        for status in approved
        if not ledger.image(status.image.id, status.image.name).second_reading
    ]


SECOND_COLUMNS = (
    *("second reading of", "first", "second", "Dice", "IoU"),
    *("added", "removed", "outline moved"),
)
"""Of `second_readings_of`."""


def _area(mm2: float | None, px2: float) -> str:
    return f"{px2:,.0f} px²" if mm2 is None else f"{mm2:.2f} mm²"


def _moved(change: Change) -> str:
    moved = change.boundary_moved_mean_um
    return "" if moved is None else f"{moved:.0f} µm"
