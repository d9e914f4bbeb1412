"""Networks, losses and clusters: what is trained, and how it is kept."""

from qpannot.models.bundle import Bundle, ModelCard, load_bundle, save_bundle
from qpannot.models.clusters import ClusterModel, fit_clusters, load_clusters, save_clusters
from qpannot.models.encoders import Encoder, build_encoder
from qpannot.models.losses import cluster_weighted_cross_entropy
from qpannot.models.network import (
    PatchArchitecture,
    PatchNetwork,
    count_parameters,
    patch_network,
    predict_probabilities,
)

__all__ = [
    "Bundle",
    "ClusterModel",
    "Encoder",
    "ModelCard",
    "PatchArchitecture",
    "PatchNetwork",
    "build_encoder",
    "cluster_weighted_cross_entropy",
    "count_parameters",
    "fit_clusters",
    "load_bundle",
    "load_clusters",
    "patch_network",
    "predict_probabilities",
    "save_bundle",
    "save_clusters",
]
