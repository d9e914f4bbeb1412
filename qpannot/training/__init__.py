"""Training: from labelled patches to a model bundle."""

from qpannot.training.keeper import Diverged, TrainingInterrupted
from qpannot.training.progress import Progress, ShowProgress
from qpannot.training.training import TrainingResult, train_patch_network

__all__ = [
    "Diverged",
    "Progress",
    "ShowProgress",
    "TrainingInterrupted",
    "TrainingResult",
    "train_patch_network",
]
