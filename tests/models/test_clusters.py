from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from qpannot.errors import QpannotError
from qpannot.models import (
    ClusterModel,
    build_encoder,
    cluster_weighted_cross_entropy,
    fit_clusters,
    load_clusters,
    save_clusters,
)
from qpannot.recipe.settings import ClusterSettings

SETTINGS = ClusterSettings(batches=6, batch_size=4, k=3, weights=None)


def looks(kind: int, generator: torch.Generator, count: int = 4) -> torch.Tensor:
    """Patches of one of three kinds: dark noise, vertical stripes, pale and smooth."""
    noise = torch.randint(0, 24, (count, 3, 32, 32), generator=generator)
    if kind == 0:
        pixels = 20 + noise * 4
    elif kind == 1:
        pixels = 60 + noise + 120 * (torch.arange(32) // 4 % 2)
    else:
        pixels = 225 + noise // 4
    return pixels.to(torch.uint8)


@pytest.fixture(scope="module")
def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [looks(index % 3, generator) for index in range(6)]


@pytest.fixture(scope="module")
def model(batches: list[torch.Tensor]) -> ClusterModel:
    return fit_clusters(batches, SETTINGS, seed=1)


def test_patches_that_look_alike_share_a_cluster(model: ClusterModel) -> None:
    generator = torch.Generator().manual_seed(77)
    found = [set(model(looks(kind, generator)).tolist()) for kind in range(3)]
    assert all(len(clusters) == 1 for clusters in found)
    assert set.union(*found) == {0, 1, 2}


def test_the_frozen_clusters_are_scikit_learns(
    model: ClusterModel, batches: list[torch.Tensor]
) -> None:
    with torch.no_grad():
        features = np.concatenate([model.encoder(batch).numpy() for batch in batches])
    scores = StandardScaler().fit_transform(features.astype(np.float64))
    pca = PCA(0.95, svd_solver="full")
    projected = pca.fit_transform(scores)
    expected = KMeans(3, n_init=10, random_state=1).fit_predict(projected)
    assert model.components.shape == pca.components_.shape
    assert model.components.shape[0] < 24
    assert torch.cat([model(batch) for batch in batches]).tolist() == expected.tolist()


def test_all_of_the_variance_can_be_kept(batches: list[torch.Tensor]) -> None:
    settings = SETTINGS.model_copy(update={"variance": 1.0, "batches": 2})
    model = fit_clusters(batches, settings)
    assert model.components.shape == (8, 512)


def test_no_more_batches_are_drawn_than_the_recipe_says(batches: list[torch.Tensor]) -> None:
    stream = iter(batches)
    fit_clusters(stream, SETTINGS.model_copy(update={"batches": 2}))
    assert len(list(stream)) == 4


def test_the_same_seed_gives_the_same_clusters_and_leaves_torchs_alone(
    model: ClusterModel, batches: list[torch.Tensor]
) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    again = fit_clusters(batches, SETTINGS, seed=1)
    assert torch.equal(torch.rand(3), expected)
    torch.testing.assert_close(again.centres, model.centres)


def test_clusters_are_frozen_inside_the_training_graph(
    model: ClusterModel, batches: list[torch.Tensor]
) -> None:
    assert not any(parameter.requires_grad for parameter in model.parameters())
    patches = batches[0].float().div(255).requires_grad_()
    clusters = model(patches)
    assert clusters.dtype == torch.int64
    assert not clusters.requires_grad
    logits = patches.mean(dim=(2, 3))
    loss = cluster_weighted_cross_entropy(logits, torch.zeros(4, dtype=torch.int64), clusters)
    (gradient,) = torch.autograd.grad(loss, patches)
    assert gradient.abs().sum() > 0


def test_mixed_precision_does_not_blur_the_distances() -> None:
    encoder = build_encoder("test_resnet", weights=None, size_px=32).eval()
    patches = torch.cat([looks(kind, torch.Generator().manual_seed(1), 1) for kind in range(3)])
    with torch.no_grad():
        features = encoder(patches)
    # Far from zero, where numbers of half precision lie 8 apart.
    far = torch.full((encoder.channels,), 1000.0)
    one = torch.ones(encoder.channels)
    model = ClusterModel(encoder, -far, one, torch.eye(encoder.channels), features + far)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(patches).tolist() == [0, 1, 2]


def test_clusters_survive_being_saved(
    model: ClusterModel, batches: list[torch.Tensor], tmp_path: Path
) -> None:
    save_clusters(tmp_path / "clusters.safetensors", model)
    loaded = load_clusters(tmp_path / "clusters.safetensors")
    assert loaded.k == 3
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(loaded(batches[1]), model(batches[1]))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_fewer_patches_than_clusters_are_an_error(batches: list[torch.Tensor]) -> None:
    with pytest.raises(QpannotError, match="2 patches cannot be divided into 3") as caught:
        fit_clusters([batches[0][:2]], SETTINGS)
    assert "clusters.k" in str(caught.value.hint)


def test_a_file_that_holds_no_clusters_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "clusters.safetensors"
    with pytest.raises(QpannotError, match="cannot be read"):
        load_clusters(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(QpannotError, match="cannot be read"):
        load_clusters(path)
    safetensors.torch.save_file({"offset": torch.zeros(3)}, path)
    with pytest.raises(QpannotError, match="scale, components, centres missing"):
        load_clusters(path)
    parts = {"offset": (3,), "scale": (3,), "components": (2, 3), "centres": (4, 5)}
    safetensors.torch.save_file({key: torch.zeros(size) for key, size in parts.items()}, path)
    with pytest.raises(QpannotError, match="do not fit together"):
        load_clusters(path)
