"""Designs that are trained on one split and compared (H2G-Net's ablation study, sec. 3)."""

from qpannot.bootstrap.ablation.comparison import Comparison
from qpannot.bootstrap.ablation.planning import Plan, check_plans, plan_designs
from qpannot.bootstrap.ablation.project import run_ablation

__all__ = ["Comparison", "Plan", "check_plans", "plan_designs", "run_ablation"]
