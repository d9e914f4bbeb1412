"""How well models and thresholds do on reviewed slides, in the paper's tables (H2G-Net)."""

from qpannot.bootstrap.evaluating.asked import ModelAsked, designs_of
from qpannot.bootstrap.evaluating.designs import Design, ModelDesign, TissueDesign, baseline
from qpannot.bootstrap.evaluating.evaluation import Evaluation
from qpannot.bootstrap.evaluating.project import evaluate_project
from qpannot.bootstrap.evaluating.running import Measured, measure_designs, time_designs
from qpannot.bootstrap.evaluating.selecting import Selection, select
from qpannot.bootstrap.evaluating.store import Store

__all__ = [
    "Design",
    "Evaluation",
    "Measured",
    "ModelAsked",
    "ModelDesign",
    "Selection",
    "Store",
    "TissueDesign",
    "baseline",
    "designs_of",
    "evaluate_project",
    "measure_designs",
    "select",
    "time_designs",
]
