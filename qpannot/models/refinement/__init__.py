"""Networks that refine a heatmap with the slide it came from (H2G-Net sec. 2.6)."""

from qpannot.models.refinement.bundle import (
    RefinementBundle,
    RefinementCard,
    load_refinement,
    read_refinement_card,
    save_refinement,
)
from qpannot.models.refinement.losses import refinement_loss, soft_dice_loss
from qpannot.models.refinement.network import (
    DESIGNS,
    RefinementArchitecture,
    RefinementNetwork,
    count_as_keras,
    refinement_network,
)

__all__ = [
    "DESIGNS",
    "RefinementArchitecture",
    "RefinementBundle",
    "RefinementCard",
    "RefinementNetwork",
    "count_as_keras",
    "load_refinement",
    "read_refinement_card",
    "refinement_loss",
    "refinement_network",
    "save_refinement",
    "soft_dice_loss",
]
