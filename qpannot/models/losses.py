"""The cluster-weighted loss; cross-entropy itself is torch's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cluster_weighted_cross_entropy(logits: Tensor, targets: Tensor, clusters: Tensor) -> Tensor:
    """Return the cross-entropy within each cluster, averaged over the clusters of the batch.

    Every cluster that is present weighs the same, however many patches it has.

    Parameters
    ----------
    logits
        Floats, (N, classes).
    targets
        Class indices, int64, (N,).
    clusters
        Cluster indices, int64, (N,), as a `ClusterModel` gives them.

    Returns
    -------
    Tensor
        A scalar; equal to plain cross-entropy where all patches are of one cluster.

    Notes
    -----
    H2G-Net sec. 2.2. Its text is followed; its equation (1) leaves out the mean within a cluster,
    and its public code averages per class as well.
    """
    losses = functional.cross_entropy(logits, targets, reduction="none")
    # Sizes from pairs rather than a histogram: no number of clusters to pass, no wait for a GPU.
    sizes = (clusters[:, None] == clusters[None, :]).sum(dim=1).to(losses.dtype)
    return (losses / sizes).sum() / torch.reciprocal(sizes).sum()
