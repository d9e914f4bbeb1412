"""Proposals: annotations that a program made, each carrying where it came from.

The origin lies in the annotation's own metadata, so that it outlives the ledger and can be read
in QuPath. ``qpannot.fingerprint`` is a digest of the geometry and class as they were proposed: an
annotation that no longer matches it was corrected by a person.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import shapely
from shapely.geometry.base import BaseGeometry

from qpannot.qupath.annotation import Annotation, PathClass
from qpannot.qupath.qpdata.storable import as_stored

ROUND = "qpannot.round"
METHOD = "qpannot.method"
MODEL = "qpannot.model"
SCORE = "qpannot.score"
FINGERPRINT = "qpannot.fingerprint"

IMPORTED = "import"
"""The method of what another program made, and a person imported as proposals."""

_OURS = frozenset({ROUND, METHOD, MODEL, SCORE, FINGERPRINT})

_GRID_PX = 0.01
"""QuPath's precision grid. Finer differences are rounding, not a person's."""


@dataclass(frozen=True)
class Origin:
    """Where a proposal came from.

    Parameters
    ----------
    round
        The round it was made in, from 1.
    method
        ``AN1`` (a tissue threshold) or ``AN2`` (a network's heatmap), and with what.
    model
        The model bundle, where a network made it.
    score
        The model's confidence, 0 to 1.
    """

    round: int
    method: str
    model: str | None = None
    score: float | None = None


def make_proposal(
    geometry: BaseGeometry, path_class: PathClass, origin: Origin, *, locked: bool
) -> Annotation:
    """Return an annotation that carries its origin.

    Parameters
    ----------
    geometry
        In full-resolution pixels of QuPath's frame.
    """
    metadata = {ROUND: str(origin.round), METHOD: origin.method}
    if origin.model is not None:
        metadata[MODEL] = origin.model
    if origin.score is not None:
        metadata[SCORE] = f"{origin.score:.4f}"
    made = Annotation(geometry, path_class=path_class, locked=locked, metadata=metadata)
    return sealed(as_stored(made))


def imported_proposal(annotation: Annotation) -> Annotation:
    """Return another program's annotation as a proposal, which waits for a person."""
    own = without_origin(annotation)
    return sealed(own.with_changes(metadata={**own.metadata, METHOD: IMPORTED}))


def without_origin(annotation: Annotation) -> Annotation:
    """Return an annotation that is no proposal any more, nothing else of it changed."""
    kept = {key: value for key, value in annotation.metadata.items() if key not in _OURS}
    return annotation.with_changes(metadata=kept)


def sealed(annotation: Annotation) -> Annotation:
    """Return an annotation with the fingerprint of its outline, as it is stored, and its class."""
    stored = as_stored(annotation)
    fingerprint = fingerprint_of(stored.geometry, stored.class_name)
    return annotation.with_changes(metadata={**annotation.metadata, FINGERPRINT: fingerprint})


def is_sealed(annotation: Annotation) -> bool:
    """Tell whether an annotation carries the fingerprint that it will have once it is stored."""
    return annotation.metadata.get(FINGERPRINT) == sealed(annotation).metadata[FINGERPRINT]


def fingerprint_of(geometry: BaseGeometry, class_name: str | None) -> str:
    """Return a digest of what a correction would change: the outline and the class."""
    normal = shapely.normalize(geometry)
    rounded = shapely.transform(normal, lambda xy: (xy / _GRID_PX).round() + 0.0)
    digest = hashlib.sha256(shapely.to_wkb(rounded, byte_order=1))
    digest.update((class_name or "").encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def is_proposal(annotation: Annotation) -> bool:
    """Tell whether a program made this annotation, corrected since or not."""
    return FINGERPRINT in annotation.metadata


def is_pristine(annotation: Annotation) -> bool:
    """Tell whether nothing of a person is in this proposal: no name, note, colour, measurement.

    Only such a proposal may be replaced by another. Whether it is locked is for the caller to
    compare with how it was made.
    """
    nothing_added = not (annotation.name or annotation.color or annotation.measurements)
    return is_untouched(annotation) and nothing_added and _OURS.issuperset(annotation.metadata)


def is_untouched(annotation: Annotation) -> bool:
    """Tell whether this is a proposal whose outline and class nobody changed."""
    wanted = annotation.metadata.get(FINGERPRINT)
    return wanted is not None and wanted == fingerprint_of(
        annotation.geometry, annotation.class_name
    )
