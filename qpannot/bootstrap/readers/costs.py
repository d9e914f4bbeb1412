"""What correcting proposals cost people: of each slide, and of each round's proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qpannot.bootstrap.corrections import Correction
from qpannot.bootstrap.readers.effort import Effort

QUPATH = "QuPath"
"""Where a slide was corrected of which no sitting was recorded."""

_UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class SlideCost:
    """What one person's correction of a slide cost.

    Parameters
    ----------
    image_id
        Of the slide.
    by, tool
        Who, as far as said, and where.
    minutes, strokes
        ``None`` where it was done in QuPath, which does not tell.
    area_mm2
        Area that changed; ``None`` where the slide's pixel size is unknown.
    """

    image_id: str
    by: str
    tool: str
    minutes: float | None
    strokes: int | None
    area_mm2: float | None


@dataclass(frozen=True)
class RoundCost:
    """What correcting the proposals of a round cost, as far as it was measured.

    Parameters
    ----------
    slides
        On how many slides time was measured.
    minutes, strokes, area_mm2
        Of first readers, all slides together.
    second_reader_minutes
        What second readers took for these slides.
    """

    round: int
    slides: int
    minutes: float
    strokes: int
    area_mm2: float
    second_reader_minutes: float

    @property
    def minutes_per_slide(self) -> float | None:
        """The mean of first readers; ``None`` where only second readers were timed."""
        return self.minutes / self.slides if self.slides else None


def slide_costs(
    efforts: Mapping[str, Sequence[Effort]], corrections: Mapping[str, Correction]
) -> list[SlideCost]:
    """Return what correcting slides cost, the longest first.

    Parameters
    ----------
    efforts
        By image ID: the sittings of first readers that count.
    corrections
        Of the same slides and others; what has no sitting was corrected in QuPath.
    """
    found = []
    for key, correction in corrections.items():
        by_person: dict[tuple[str, str], list[Effort]] = {}
        for effort in efforts.get(key, ()):
            by_person.setdefault((effort.by, effort.tool), []).append(effort)
        for (by, tool), own in by_person.items():
            found.append(
                SlideCost(
                    key,
                    by,
                    tool,
                    sum(each.active_seconds for each in own) / 60,
                    sum(each.strokes for each in own),
                    _area_mm2(own),
                )
            )
        if not by_person:
            change = correction.overall
            area = None
            if change.area_added_mm2 is not None and change.area_removed_mm2 is not None:
                area = change.area_added_mm2 + change.area_removed_mm2
            found.append(SlideCost(key, "", QUPATH, None, None, area))
    return sorted(found, key=lambda cost: (-(cost.minutes or 0), cost.image_id))


def round_costs(efforts: Mapping[str, Sequence[Effort]]) -> list[RoundCost]:
    """Return what correcting the proposals of each round cost, first to last.

    Parameters
    ----------
    efforts
        By image ID: all sittings. Those at slides without a proposal are of no round.
    """
    rounds = {each.round for own in efforts.values() for each in own if each.round is not None}
    found = []
    for number in sorted(rounds):
        of_round = {
            key: [each for each in own if each.round == number] for key, own in efforts.items()
        }
        first = {
            key: own
            for key, sittings in of_round.items()
            if (own := [each for each in sittings if not each.second_reader])
        }
        all_first = [each for own in first.values() for each in own]
        second = [each for own in of_round.values() for each in own if each.second_reader]
        found.append(
            RoundCost(
                number,
                len(first),
                sum(each.active_seconds for each in all_first) / 60,
                sum(each.strokes for each in all_first),
                _area_mm2(all_first) or 0.0,
                sum(each.active_seconds for each in second) / 60,
            )
        )
    return found


def _area_mm2(efforts: Sequence[Effort]) -> float | None:
    known = [each.area_changed_um2 for each in efforts if each.area_changed_um2 is not None]
    return sum(known) / _UM2_PER_MM2 if known else None
