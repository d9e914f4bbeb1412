from __future__ import annotations

import functools
import hashlib
import http.server
import logging
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from torch import nn

from qpannot.errors import QpannotError
from qpannot.models import build_encoder, fit_clusters, patch_network, weights
from qpannot.models.encoders import Encoder
from qpannot.models.weights import TorchFile, fetch, fit_weights, read_weights
from qpannot.recipe.settings import ClusterSettings
from qpannot.torchvision_import import import_torchvision


def random_state(module: nn.Module, seed: int = 5) -> dict[str, torch.Tensor]:
    """Give a module other weights than it was made with, and return them."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.05)
        assert key
    return module.state_dict()


def features(module: nn.Module) -> torch.Tensor:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        answer: torch.Tensor = module.eval()(pixels)
    return answer


def body_of(encoder: Encoder) -> torch.Tensor:
    return features(encoder.body)


def point_hub_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does, which the hub's library reads only once."""
    constants = huggingface_hub.constants
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and a network where nothing is reached."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    return tmp_path


@pytest.mark.parametrize(
    ("encoder", "file"),
    [
        ("mobilenet_v2", "download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
        ("resnet18", "timm/resnet18.a1_in1k/resolve/main/model.safetensors"),
        ("mit_b0", "smp-hub/mit_b0.imagenet/resolve/"),
    ],
)
@pytest.mark.usefixtures("no_cache")
def test_offline_the_message_says_where_the_weights_are_and_what_else_works(
    encoder: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("a server that cannot be reached must not be asked again and again")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(QpannotError, match=f"ImageNet weights of {encoder}") as caught:
        build_encoder(encoder, weights="imagenet", size_px=64)
    assert "refused" in caught.value.message
    assert file in str(caught.value.hint)
    assert "network.weights=null" in str(caught.value.hint)


@pytest.mark.usefixtures("no_cache")
def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PATIENCE_S", 0.2)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = TorchFile(f"http://127.0.0.1:{silent.getsockname()[1]}/models/x-00000000.pth")
        with pytest.raises(QpannotError, match=r"127\.0\.0\.1 (does not answer|cannot be reached)"):
            fetch(file, "x", "network.weights")


@pytest.mark.usefixtures("no_cache")
def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PATIENCE_S", 0.2)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name)
    over = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        over.wait(20)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(QpannotError, match=r"example\.invalid does not answer"):
        fetch(TorchFile("http://example.invalid/x-00000000.pth"), "x", "network.weights")
    over.set()


@pytest.mark.usefixtures("no_cache")
def test_the_hubs_offline_switch_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(QpannotError, match="HF_HUB_OFFLINE"):
        build_encoder("resnet18", weights="imagenet", size_px=64)


class Hub(http.server.SimpleHTTPRequestHandler):
    """Serves files as torchvision's server and the Hugging Face hub do."""

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server on this machine, and the folder of what it serves."""
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = no_cache / "served"
    folder.mkdir()
    handler = functools.partial(Hub, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_weights_of_torchvision_are_fetched_checked_and_then_cached(
    server: tuple[str, Path],
) -> None:
    address, folder = server
    state = {"weight": torch.arange(4.0)}
    torch.save(state, folder / "net.pth")
    digest = hashlib.sha256((folder / "net.pth").read_bytes()).hexdigest()[:8]
    (folder / "net.pth").rename(folder / f"net-{digest}.pth")
    file = TorchFile(f"{address}/net-{digest}.pth")
    assert file.cached() is None
    assert torch.equal(
        read_weights(fetch(file, "net", "network.weights"))["weight"], state["weight"]
    )
    (folder / f"net-{digest}.pth").unlink()
    assert torch.equal(
        read_weights(fetch(file, "net", "network.weights"))["weight"], state["weight"]
    )


def test_weights_with_another_digest_than_their_name_are_refused(server: tuple[str, Path]) -> None:
    address, folder = server
    torch.save({"weight": torch.zeros(2)}, folder / "net-12345678.pth")
    file = TorchFile(f"{address}/net-12345678.pth")
    with pytest.raises(QpannotError, match="fetching them failed: invalid hash value"):
        fetch(file, "net", "network.weights")
    assert file.cached() is None


def test_weights_of_the_hub_are_fetched_and_then_cached(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    point_hub_at(address, monkeypatch)
    original = build_encoder("resnet18", weights=None, size_px=64)
    state = random_state(original.body) | {"fc.weight": torch.zeros(1000, 512)}
    place = folder / "timm" / "resnet18.a1_in1k" / "resolve" / "main" / "model.safetensors"
    place.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, place)
    fetched = build_encoder("resnet18", weights="imagenet", size_px=64)
    torch.testing.assert_close(body_of(fetched), body_of(original))
    place.unlink()
    point_hub_at("http://127.0.0.1:9", monkeypatch)
    cached = build_encoder("resnet18", weights="imagenet", size_px=64)
    torch.testing.assert_close(body_of(cached), body_of(original))


def test_weights_of_smps_hub_are_fetched(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    point_hub_at(address, monkeypatch)
    import_torchvision()
    from segmentation_models_pytorch.encoders import encoders

    original = build_encoder("mit_b0", weights=None, size_px=64)
    state = random_state(original.body.get_submodule("encoder"))
    settings = encoders["mit_b0"]["pretrained_settings"]["imagenet"]
    place = folder / settings["repo_id"] / "resolve" / settings["revision"] / "model.safetensors"
    place.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, place)
    fetched = build_encoder("mit_b0", weights="imagenet", size_px=64)
    torch.testing.assert_close(body_of(fetched), body_of(original))


def test_what_the_hub_does_not_have_is_an_error(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    point_hub_at(server[0], monkeypatch)
    with pytest.raises(QpannotError, match="fetching them failed"):
        build_encoder("resnet18", weights="imagenet", size_px=64)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrapped", ["", "module.", "model.backbone."])
def test_a_file_is_read_whatever_its_weights_were_wrapped_in(
    tmp_path: Path, suffix: str, wrapped: str
) -> None:
    original = build_encoder("mobilenet_v2", weights=None, size_px=64)
    state = {wrapped + key: value for key, value in random_state(original.body).items()}
    state["decoder.weight"] = torch.zeros(3)
    if not wrapped:
        del state["decoder.weight"]
        state["classifier.1.weight"] = torch.zeros(1000, 1280)
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        safetensors.torch.save_file(state, path)
    loaded = build_encoder("mobilenet_v2", weights=path, size_px=64)
    torch.testing.assert_close(body_of(loaded), body_of(original))


def test_weights_of_timm_fit_torchvisions_mobilenet_v2(tmp_path: Path) -> None:
    import_torchvision()
    import timm

    original = timm.create_model("mobilenetv2_100")
    state = random_state(original)
    safetensors.torch.save_file(state, tmp_path / "timm.safetensors")
    loaded = build_encoder("mobilenet_v2", weights=tmp_path / "timm.safetensors", size_px=64)
    original.reset_classifier(0)  # type: ignore[operator]
    torch.testing.assert_close(body_of(loaded), features(original))


def test_weights_of_smp_fit_torchvisions_mobilenet_v2(tmp_path: Path) -> None:
    import_torchvision()
    from segmentation_models_pytorch.encoders import get_encoder

    original = get_encoder("mobilenet_v2", weights=None)
    state = {f"encoder.{key}": value for key, value in random_state(original).items()}
    state["segmentation_head.0.weight"] = torch.zeros(1)
    safetensors.torch.save_file(state, tmp_path / "smp.safetensors")
    loaded = build_encoder("mobilenet_v2", weights=tmp_path / "smp.safetensors", size_px=64)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = original.eval()(pixels)[-1].mean(dim=(2, 3))
    torch.testing.assert_close(body_of(loaded), expected)


def test_inception_v3_of_torchvision_loses_its_auxiliary_classifier(tmp_path: Path) -> None:
    models = import_torchvision().models
    original = models.inception_v3(weights=None, init_weights=False)
    torch.save(original.state_dict(), tmp_path / "inception.pth")
    loaded = build_encoder("inception_v3", weights=tmp_path / "inception.pth", size_px=75)
    name = "Mixed_7c.branch_pool.conv.weight"
    assert torch.equal(loaded.body.state_dict()[name], original.state_dict()[name])
    assert loaded.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_a_transformers_positions_are_resampled_to_the_patches(tmp_path: Path) -> None:
    import_torchvision()
    import timm

    original = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    safetensors.torch.save_file(original.state_dict(), tmp_path / "vit.safetensors")
    path = tmp_path / "vit.safetensors"
    loaded = build_encoder("vit_tiny_patch16_224", weights=path, size_px=64)
    given, own = original.state_dict(), loaded.body.state_dict()
    assert given["pos_embed"].shape[1] == 14 * 14 + 1
    assert own["pos_embed"].shape[1] == 4 * 4 + 1
    assert torch.equal(own["blocks.3.attn.qkv.weight"], given["blocks.3.attn.qkv.weight"])


def test_the_weights_of_a_whole_patch_network_give_its_encoder(tmp_path: Path) -> None:
    trained = patch_network("test_resnet", ("a", "b"), weights=None, size_px=64)
    random_state(trained.encoder.body)
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    loaded = build_encoder("test_resnet", weights=tmp_path / "weights.safetensors", size_px=64)
    torch.testing.assert_close(body_of(loaded), body_of(trained.encoder))


def test_the_message_names_the_setting_the_weights_come_from(tmp_path: Path) -> None:
    settings = ClusterSettings(weights=str(tmp_path / "none.pth"))
    with pytest.raises(QpannotError, match="no file of weights") as caught:
        fit_clusters([], settings)
    assert "Set clusters.weights to" in str(caught.value.hint)


def test_weights_that_do_not_fit_are_reported_key_by_key() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = dict(before)
    del state["1.bias"]
    state["0.weight"] = torch.zeros(3, 9)
    state["3.weight"] = torch.zeros(1)
    with pytest.raises(QpannotError) as caught:
        fit_weights(module, state, "in some.file")
    assert "in some.file do not fit" in caught.value.message
    assert "1.bias missing" in caught.value.message
    assert "0.weight (3, 9) for (3, 2) of another shape" in caught.value.message
    assert "3.weight not of this encoder" in caught.value.message
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_deeper_network_of_the_family_is_refused(tmp_path: Path) -> None:
    deeper = build_encoder("resnet34", weights=None, size_px=64)
    safetensors.torch.save_file(deeper.body.state_dict(), tmp_path / "resnet34.safetensors")
    with pytest.raises(QpannotError, match=r"layer1\.2\.bn1\.bias.* and \d+ more"):
        build_encoder("resnet18", weights=tmp_path / "resnet34.safetensors", size_px=64)


def test_what_is_left_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Linear(2, 3))
    state = random_state(module) | {"fc.weight": torch.zeros(2)}
    with caplog.at_level(logging.INFO, logger="qpannot"):
        fit_weights(module, state, "in some.file")
    assert "fc.weight left out" in caplog.text


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm-was-done",)


def test_code_in_a_file_of_weights_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(2), "harm": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(QpannotError, match="could run code"):
        read_weights(tmp_path / "w.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(QpannotError):
        read_weights(tmp_path / "bare.pth")
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("data", [b"", b"no weights at all", b"PK\x03\x04" + b"x" * 90])
def test_a_damaged_file_is_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(QpannotError, match="cannot be read as weights") as caught:
        read_weights(tmp_path / name)
    assert name in caught.value.message


def test_a_file_without_tensors_is_an_error(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(QpannotError, match="holds no weights"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_an_error_that_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(QpannotError, match="no file of weights") as caught:
        build_encoder("mobilenet_v2", weights=tmp_path / "none.pth", size_px=64)
    assert "imagenet" in str(caught.value.hint)
