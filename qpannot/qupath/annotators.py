"""Who drew an annotation, where several people annotate one slide and are kept apart.

The name lies in the annotation's own metadata, so that it outlives the ledger and can be read in
QuPath. What has none is everybody's: the proposals, and what was drawn without saying by whom.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import uuid5

from qpannot.qupath.annotation import Annotation
from qpannot.qupath.proposals import without_origin

ANNOTATOR = "qpannot.annotator"
"""Metadata: the name that the person typed."""


def annotator_of(annotation: Annotation) -> str:
    """Return who drew an annotation; empty where it does not say."""
    return annotation.metadata.get(ANNOTATOR, "")


def annotated_by(annotation: Annotation, name: str) -> Annotation:
    """Return an annotation as a person's own: by name, and no program's proposal any more."""
    own = without_origin(annotation)
    return own.with_changes(metadata={**own.metadata, ANNOTATOR: name})


def copied_for(annotation: Annotation, name: str) -> Annotation:
    """Return a person's own version of an annotation that stays as it is beside it.

    Its ID follows from that of the other and the name, so that the same version is made again of
    the same annotation. What is the person's already is returned as it is.
    """
    if annotator_of(annotation) == name:
        return annotation
    copied = annotated_by(annotation, name)
    return copied.with_changes(id=uuid5(annotation.id, name), parent_id=None)


def by_annotator(annotations: Iterable[Annotation]) -> dict[str, tuple[Annotation, ...]]:
    """Return annotations by who drew them, in their order; those without a name under ``""``."""
    found: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        found.setdefault(annotator_of(annotation), []).append(annotation)
    return {name: tuple(own) for name, own in found.items()}
