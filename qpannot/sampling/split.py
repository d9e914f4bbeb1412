"""Which slides teach, which choose the model, and which judge it (H2G-Net sec. 3.1)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from enum import StrEnum

from qpannot.recipe.settings import SplitSettings


class Part(StrEnum):
    """What a slide is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split_slides(
    slides: Mapping[str, Mapping[str, str]],
    settings: SplitSettings,
    existing: Mapping[str, str] | None = None,
) -> dict[str, Part]:
    """Return what each slide is for.

    Slides of one patient (``settings.by``) stay together. A slide that has a part keeps it, and
    new slides of its patient join it (the part most of them are in, should they be divided
    already). The other patients, those of most slides first and otherwise in an order that depends
    on nothing but their names, each join the part that lacks most slides of its share.

    However few slides there are, the first patient teaches and the last one left validates rather
    than leave a part empty that training needs; there is a test part from five patients of one
    slide on. The order the slides are given in has no influence.

    Parameters
    ----------
    slides
        Metadata by slide.
    settings
        The shares, which are taken relative to their sum.
    existing
        Parts given before. Slides of it that are not among ``slides`` have no influence.

    Returns
    -------
    dict
        A part for each of ``slides``, in their order.
    """
    kept = {slide: Part(part) for slide, part in (existing or {}).items() if slide in slides}
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for slide, metadata in slides.items():
        value = value_of(metadata, settings.by) if settings.by else ""
        groups[("group", value) if value else ("slide", slide)].append(slide)
    result = dict(kept)
    new = []
    for group, members in groups.items():
        parts = Counter(kept[slide] for slide in members if slide in kept)
        if parts:
            part = max(Part, key=lambda part: parts[part])
            result.update({slide: part for slide in members if slide not in kept})
        else:
            new.append(group)
    new.sort(key=lambda group: (-len(groups[group]), _stable_hash(group)))
    shares = {part: float(getattr(settings, part.value)) for part in Part}
    targets = {part: share * len(slides) / sum(shares.values()) for part, share in shares.items()}
    counts = Counter(result.values())
    for index, group in enumerate(new):
        needed = [
            part for part in (Part.TRAIN, Part.VALIDATION) if shares[part] and not counts[part]
        ]
        if Part.TRAIN in needed or len(needed) == len(new) - index:
            part = needed[0]
        else:
            part = max(
                (part for part in Part if shares[part]), key=lambda p: targets[p] - counts[p]
            )
        counts[part] += len(groups[group])
        result.update(dict.fromkeys(groups[group], part))
    return {slide: result[slide] for slide in slides}


def with_their_patients(
    slides: Collection[str], metadata: Mapping[str, Mapping[str, str]], unit: str | None
) -> frozenset[str]:
    """Return slides, and all others of the same patients.

    Parameters
    ----------
    metadata
        By slide.
    unit
        The key that tells the patient; ``None``: each slide stands for itself.
    """
    patients = {key: value_of(own, unit) if unit else "" for key, own in metadata.items()}
    known = {patients[key] for key in slides if key in patients} - {""}
    return frozenset(slides).union(key for key, own in patients.items() if own in known)


def value_of(metadata: Mapping[str, str], key: str) -> str:
    """Return a value of a slide's metadata, ``""`` where there is none.

    Case and spaces around the key do not matter, nor spaces around the value.
    """
    wanted = key.strip().casefold()
    return next(
        (v.strip() for name, v in metadata.items() if name.strip().casefold() == wanted), ""
    )


def _stable_hash(group: tuple[str, str]) -> str:
    return hashlib.sha256("\0".join(group).encode("utf-8", "surrogatepass")).hexdigest()
