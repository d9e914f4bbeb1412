"""Training: from labelled patches to a model bundle."""

from qpannot.training.keeper import Diverged, TrainingInterrupted
from qpannot.training.processes import is_first_process
from qpannot.training.progress import Progress, ShowProgress
from qpannot.training.refining import RefinementResult, train_refinement_network
from qpannot.training.results import ModelExistsError, TrainingResult
from qpannot.training.roles import Roles, assign_roles
from qpannot.training.training import train_patch_network

__all__ = [
    "Diverged",
    "ModelExistsError",
    "Progress",
    "RefinementResult",
    "Roles",
    "ShowProgress",
    "TrainingInterrupted",
    "TrainingResult",
    "assign_roles",
    "is_first_process",
    "train_patch_network",
    "train_refinement_network",
]
