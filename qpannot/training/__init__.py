"""Training: from labelled patches to a model bundle."""

from qpannot.training.keeper import Diverged, TrainingInterrupted
from qpannot.training.processes import is_first_process
from qpannot.training.progress import Progress, ShowProgress
from qpannot.training.training import ModelExistsError, TrainingResult, train_patch_network

__all__ = [
    "Diverged",
    "ModelExistsError",
    "Progress",
    "ShowProgress",
    "TrainingInterrupted",
    "TrainingResult",
    "is_first_process",
    "train_patch_network",
]
