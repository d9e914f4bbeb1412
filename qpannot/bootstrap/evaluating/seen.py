"""Which slides of a project a model knows: those it was fitted to, and those that chose it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from qpannot.bootstrap.ledger import Ledger
from qpannot.models.bundle import read_card
from qpannot.models.folders import REFINEMENT, kind_of
from qpannot.models.refinement import read_refinement_card
from qpannot.qupath.files import write_atomically
from qpannot.sampling import Part, value_of

RECORD = "slides.json"
"""Beside a model that was trained outside the loop: what each slide was for."""


class _Slide(BaseModel):
    name: str
    part: Part


class _Slides(BaseModel):
    format: int = 1
    slides: dict[str, _Slide]


def keep_seen(
    folder: Path, parts: Mapping[str, Part], names: Mapping[str, str], before: Mapping[str, Part]
) -> None:
    """Write down beside a model what each slide was for, so that it is never judged by its own.

    Parameters
    ----------
    folder
        Of the training.
    parts, names
        By image ID.
    before
        What the model that was gone on from knows (`seen_by`).
    """
    fitted = {key for key, part in before.items() if part is Part.TRAIN}
    slides = {
        key: _Slide(name=names[key], part=Part.TRAIN if key in fitted else part)
        for key, part in {**before, **parts}.items()
        if key in names
    }
    text = json.dumps(_Slides(slides=slides).model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomically(folder / RECORD, (text + "\n").encode())


def seen_by(model: Path, ledger: Ledger, names: Mapping[str, str]) -> dict[str, Part]:
    """Return what a model knows slides of a project from, by image ID.

    Where nothing tells which of the slides on its card chose it, all of them count as fitted to;
    and where nothing tells of which project they were, as this one's.

    Parameters
    ----------
    model
        The folder of its bundle.
    names
        Of the project's images, by ID.

    Raises
    ------
    QpannotError
        There is no such model.
    """
    is_refinement = kind_of(model) == REFINEMENT
    card = read_refinement_card(model) if is_refinement else read_card(model)
    on_card = [key for key in card.slides if key in names]
    known_parts: Mapping[str, str] = {}
    if name := _name_in_loop(model, ledger):
        known_parts = _parts_of(name, ledger)
    elif (recorded := seen_beside(model, names)) is not None:
        return recorded
    own = {key: Part(known_parts.get(key, Part.TRAIN)) for key in on_card}
    return {**seen_before(model, ledger, names), **own}


def seen_before(model: Path, ledger: Ledger, names: Mapping[str, str]) -> dict[str, Part]:
    """Return what the models that one was gone on from know, as far as it is recorded.

    Of a model of the loop that is what earlier rounds taught it, also by slides whose review was
    taken back since; of another what `seen_beside` tells.

    Parameters
    ----------
    model, names
        As for `seen_by`.
    """
    if not (name := _name_in_loop(model, ledger)):
        return seen_beside(model, names) or {}
    known: dict[str, Part] = {}
    wanted: str | None = name
    for record in reversed(ledger.rounds()):
        training = record.training
        if training is None or training.model != wanted:
            continue
        if training.model != name:
            parts = {key: Part(part) for key, part in training.parts.items() if key in names}
            known |= {key: part for key, part in parts.items() if part is not Part.TEST}
        wanted = training.before
    return known


def _name_in_loop(model: Path, ledger: Ledger) -> str:
    """Return what the loop calls a model, empty where it is none of the loop's."""
    name = model.resolve().parent.name
    return name if model.resolve() == ledger.model_folder(name).resolve() else ""


def seen_beside(model: Path, names: Mapping[str, str]) -> dict[str, Part] | None:
    """Return what the record beside a model says that it knows slides from, earlier models' too.

    Parameters
    ----------
    model, names
        As for `seen_by`.

    Returns
    -------
    dict or None
        By image ID; ``None`` where there is no record.
    """
    record = _read(model.resolve().parent / RECORD)
    if record is None:
        return None
    known = {key: own for key, own in record.slides.items() if names.get(key) == own.name}
    if 2 * len(known) > len(record.slides):  # this project; others are numbered alike
        known = {key: own for key, own in record.slides.items() if key in names}  # renamed
    return {key: own.part for key, own in known.items() if own.part is not Part.TEST}


def _parts_of(name: str, ledger: Ledger) -> Mapping[str, str]:
    """Return what slides were for when a model of the loop was trained, by image ID."""
    for record in ledger.rounds():
        if record.training and record.training.model == name:
            return record.training.parts
        refinement = record.refinement.training if record.refinement else None
        if refinement and refinement.model == name:
            taught = dict.fromkeys(refinement.teach, Part.TRAIN)
            return taught | dict.fromkeys(refinement.choose, Part.VALIDATION)
    return {}


def with_patients(
    parts: Mapping[str, str], metadata: Mapping[str, Mapping[str, str]], unit: str | None
) -> dict[str, Part]:
    """Return what slides are for, those of one patient being for the same: the strictest.

    A slide that nobody was shown is no news where another one of the same patient was.

    Parameters
    ----------
    parts
        By image ID, of some slides.
    metadata
        Of every image, by ID.
    unit
        The key that tells the patient; ``None``: each slide stands for itself.
    """
    patients = {key: value_of(own, unit) if unit else "" for key, own in metadata.items()}
    of_patient: dict[str, Part] = {}
    for key, part in parts.items():
        if patient := patients.get(key, ""):
            of_patient[patient] = strictest(Part(part), of_patient.get(patient, Part.TEST))
    known = {key: of_patient[own] for key, own in patients.items() if own in of_patient}
    return {key: Part(part) for key, part in parts.items() if key in metadata} | known


def strictest(*parts: Part) -> Part:
    """Return the part that leaves the least to be believed: what taught a model, then chose it."""
    return max(parts, key=(Part.TEST, Part.VALIDATION, Part.TRAIN).index)


def _read(path: Path) -> _Slides | None:
    try:
        return _Slides.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
