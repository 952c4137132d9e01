"""Backbones with our head, and pretrained weights in them."""

from __future__ import annotations

import pytest
import torch
from classifier.export import check_onnx, export_onnx
from classifier.mistake import Mistake
from classifier.network import ExportablePool, Head, build, from_description, head_name
from classifier.weights import load_weights
from safetensors.torch import save_file
from torch import nn

BACKBONES = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("hidden", [0, 5])
def test_every_backbone_ends_in_our_head(backbone, hidden):
    network = build(backbone, 4, 64, hidden).eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 4)
    assert isinstance(network.get_submodule(head_name(network)), Head)
    description = {"backbone": backbone, "labels": list("abcd"), "image_size": 64, "hidden": hidden}
    again = from_description(description, network.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(pixels), network(pixels))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_the_exportable_pool_is_torchs(size):
    maps = torch.randn(2, 3, size, size + 1)
    assert torch.allclose(ExportablePool((7, 7))(maps), nn.AdaptiveAvgPool2d((7, 7))(maps), atol=1e-6)


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "mobilenet_v3_small"])
def test_the_exported_network_answers_as_the_trained_one(backbone, tmp_path):
    network = build(backbone, 3, 40).eval()
    export_onnx(network, 40, tmp_path / "model.onnx")
    batches = [torch.randn(count, 3, 40, 40) for count in (1, 3)]
    assert check_onnx(tmp_path / "model.onnx", network, batches) < 1e-4


@pytest.mark.parametrize("backbone", ["resnet51", "inception_v3", "fcn_resnet50", ""])
def test_an_unusable_backbone_is_refused_by_name(backbone):
    with pytest.raises(Mistake, match=f"--backbone {backbone}"):
        build(backbone, 3, 64)


def test_an_image_size_the_backbone_cannot_take_is_refused():
    with pytest.raises(Mistake, match="vit_b_16 cannot take --image-size 100"):
        build("vit_b_16", 3, 100)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_loaded_into_all_but_the_head(tmp_path, suffix):
    source, target = build("resnet18", 9, 32), build("resnet18", 2, 32, hidden=4)
    path = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    head = target.fc[0].weight.clone()
    load_weights(target, "fc", "resnet18", str(path))
    assert torch.equal(target.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(target.fc[0].weight, head)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    network = build("resnet18", 2, 32)

    def refused(match, state):
        path = tmp_path / "weights.pth"
        torch.save(state, path)
        with pytest.raises(Mistake, match=match):
            load_weights(network, "fc", "resnet18", str(path))

    good = network.state_dict()
    refused("conv1.weight is missing", {name: value for name, value in good.items() if name != "conv1.weight"})
    refused("conv1.weight is .*not", {**good, "conv1.weight": torch.zeros(1)})
    refused("not a state dict", [1])
    refused("no readable weights", nn.Linear(1, 1))  # A pickled object could run code.
    with pytest.raises(Mistake, match="there is no such file"):
        load_weights(network, "fc", "resnet18", str(tmp_path / "none.pth"))


def test_imagenet_without_a_network_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with pytest.raises(Mistake, match="--weights none"):
        load_weights(build("resnet18", 2, 32), "fc", "resnet18", "imagenet")
