"""Training: from labelled patches to a model bundle."""

from qpannot.training.keeper import Diverged, TrainingInterrupted
from qpannot.training.processes import is_first_process
from qpannot.training.progress import Progress, ShowProgress
from qpannot.training.refining import (
    RefinementResult,
    check_refinement_design,
    train_refinement_network,
)
from qpannot.training.results import ModelExistsError, TrainingResult
from qpannot.training.roles import Roles, TooFewSlidesError, assign_roles
from qpannot.training.training import train_patch_network

__all__ = [
    "Diverged",
    "ModelExistsError",
    "Progress",
    "RefinementResult",
    "Roles",
    "ShowProgress",
    "TooFewSlidesError",
    "TrainingInterrupted",
    "TrainingResult",
    "assign_roles",
    "check_refinement_design",
    "is_first_process",
    "train_patch_network",
    "train_refinement_network",
]
