"""How far what was predicted or proposed is what a person drew."""

from qpannot.evaluation.boundary import BoundaryDistances, boundary_distances, directed_distances
from qpannot.evaluation.overlap import Overlap, overlap

__all__ = [
    "BoundaryDistances",
    "Overlap",
    "boundary_distances",
    "directed_distances",
    "overlap",
]
