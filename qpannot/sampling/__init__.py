"""Labelled patches of slides and how they are drawn; `qpannot.sampling.loading` reads them."""

from qpannot.sampling.areas import is_drawn
from qpannot.sampling.augmentation import augmented
from qpannot.sampling.handles import Opener, opener_of
from qpannot.sampling.index import PatchTable, describe_patches, index_slide
from qpannot.sampling.labels import LeftOut, class_names
from qpannot.sampling.split import Part, split_slides, value_of, with_their_patients
from qpannot.sampling.store import stored_index
from qpannot.sampling.tree import EpochSampler, PatchTree

__all__ = [
    "EpochSampler",
    "LeftOut",
    "Opener",
    "Part",
    "PatchTable",
    "PatchTree",
    "augmented",
    "class_names",
    "describe_patches",
    "index_slide",
    "is_drawn",
    "opener_of",
    "split_slides",
    "stored_index",
    "value_of",
    "with_their_patients",
]
