"""Clusters of patches that look alike, for the cluster-weighted loss (H2G-Net sec. 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from qpannot.errors import QpannotError
from qpannot.models.encoders import Encoder, build_encoder
from qpannot.qupath.files import write_atomically
from qpannot.recipe.settings import ClusterSettings

ENCODER = "vgg16"
OWN = ("offset", "scale", "components", "centres")
"""What a cluster model has beside its encoder."""

_PROBE_PX = 64
"""VGG-16 takes any size; this one is quick to try it with."""


class ClusterModel(nn.Module):
    """Tells the cluster of a patch; frozen, and made by `fit_clusters`.

    Parameters
    ----------
    encoder
        Gives the features.
    offset, scale
        The features' z-score, float32, (features,). The mean of the principal components is part
        of the offset.
    components
        The principal components of the z-scores, float32, (components, features).
    centres
        Of the clusters among the components, float32, (k, components).
    """

    offset: Tensor
    scale: Tensor
    components: Tensor
    centres: Tensor

    def __init__(
        self, encoder: Encoder, offset: Tensor, scale: Tensor, components: Tensor, centres: Tensor
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        self.register_buffer("components", components)
        self.register_buffer("centres", centres)
        self.requires_grad_(False)

    @property
    def k(self) -> int:
        """The number of clusters."""
        return len(self.centres)

    @torch.no_grad()
    def forward(self, patches: Tensor) -> Tensor:
        """Return the clusters of patches.

        Parameters
        ----------
        patches
            (N, 3, H, W), uint8 or floats, as for the patch network.

        Returns
        -------
        Tensor
            int64, (N,), from 0 to k - 1.
        """
        features = self.encoder(patches)
        # Half precision is enough for a convolution, not for a comparison of distances.
        with torch.autocast(features.device.type, enabled=False):
            projected = ((features.float() - self.offset) / self.scale) @ self.components.T
            return torch.cdist(
                projected, self.centres, compute_mode="donot_use_mm_for_euclid_dist"
            ).argmin(dim=1)


def fit_clusters(
    batches: Iterable[Tensor],
    settings: ClusterSettings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ClusterModel:
    """Return the clusters of a sample of patches.

    VGG-16's features, averaged over the patch; their z-scores; the principal components that keep
    ``settings.variance``; k-means.

    Parameters
    ----------
    batches
        Each (N, 3, H, W), as for the patch network; the first ``settings.batches`` are used.
    settings
        ``weights`` are VGG-16's: ``"imagenet"``, a file, or ``None`` for random numbers.
    seed
        Of k-means; and of VGG-16 when it has random numbers.
    device
        Where the features are calculated, and the model is.

    Raises
    ------
    QpannotError
        When there are fewer patches than clusters, or the weights cannot be had.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(
            ENCODER, weights=settings.weights, size_px=_PROBE_PX, setting="clusters.weights"
        )
    encoder.requires_grad_(False).eval().to(device)
    with torch.no_grad():
        sample = islice(batches, settings.batches)
        found = [encoder(batch.to(device)).float().cpu().numpy() for batch in sample]
    patches = sum(map(len, found))
    if patches < settings.k:
        raise QpannotError(
            f"{patches} patches cannot be divided into {settings.k} clusters.",
            hint="Review more slides, or set a smaller clusters.k or a larger clusters.batches.",
        )
    scaler = StandardScaler()
    scores = scaler.fit_transform(np.concatenate(found).astype(np.float64))
    # scikit-learn takes a part of the variance below 1 only; all of it is no number there.
    pca = PCA(settings.variance if settings.variance < 1 else None, svd_solver="full")
    projected = pca.fit_transform(scores)
    # Ten starts were scikit-learn's default when the paper was written.
    kmeans = KMeans(settings.k, n_init=10, random_state=seed).fit(projected)
    arrays = (
        scaler.mean_ + pca.mean_ * scaler.scale_,
        scaler.scale_,
        pca.components_,
        kmeans.cluster_centers_,
    )
    return ClusterModel(encoder, *(torch.tensor(a, dtype=torch.float32) for a in arrays)).to(device)


def save_clusters(path: Path, model: ClusterModel) -> None:
    """Write a cluster model, VGG-16 included, to one safetensors file, whole or not at all.

    Raises
    ------
    ProjectError
        When it cannot be written; what was there before is kept.
    """
    state = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomically(path, save(state))


def load_clusters(path: Path) -> ClusterModel:
    """Read what `save_clusters` wrote; needs no network.

    Raises
    ------
    QpannotError
        When the file is missing, damaged, or not of clusters.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _bad(path, f"cannot be read: {error}") from error
    if missing := [name for name in OWN if name not in state]:
        raise _bad(path, f"holds no clusters: {', '.join(missing)} missing")
    own = {name: state[name] for name in OWN}
    encoder = build_encoder(ENCODER, weights=None, size_px=_PROBE_PX)
    shapes = [tuple(each.shape) for each in own.values()]
    found = (*own["components"].shape, len(own["centres"]))
    components, features, k = found if len(found) == 3 else (0, 0, 0)
    if shapes != [(features,), (features,), (components, features), (k, components)]:
        raise _bad(path, f"holds clusters whose sizes do not fit together: {shapes}")
    model = ClusterModel(encoder, **own)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise _bad(path, f"does not fit {ENCODER}: {error}") from error
    return model


def _bad(path: Path, trouble: str) -> QpannotError:
    return QpannotError(
        f"{path} {trouble}.",
        hint="Delete the file, and the next training fits the clusters again.",
    )
