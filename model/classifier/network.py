"""The network: a torchvision classifier whose last layer is replaced by a head for our classes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import nn

from classifier.mistake import Mistake
from classifier.weights import read_safetensors

# Their training-time auxiliary classifiers change forward()'s result and the loss.
WITH_AUXILIARY_CLASSIFIERS = {"googlenet", "inception_v3"}


class Head(nn.Sequential):
    """[N, features] to logits [N, classes], linear or through `hidden` units where not 0."""

    def __init__(self, features: int, classes: int, hidden: int = 0):
        if hidden:
            super().__init__(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, classes))
        else:
            super().__init__(nn.Linear(features, classes))


class ExportablePool(nn.Module):
    """nn.AdaptiveAvgPool2d, which ONNX lacks where the input's size is no multiple of the output's (VGG below 224)."""

    def __init__(self, output_size: tuple[int, int]):
        super().__init__()
        self.output_size = output_size

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        height, width = (_averaging(int(size), out) for size, out in zip(maps.shape[2:], self.output_size, strict=True))
        return height @ maps @ width.T


def _averaging(size: int, out: int) -> torch.Tensor:
    """The matrix [out, size] whose rows average the cells that overlap one output cell."""
    matrix = torch.zeros(out, size)
    for row in range(out):
        start, end = row * size // out, -(-(row + 1) * size // out)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


def backbone_names() -> list[str]:
    """The torchvision classifiers that can be used."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if name not in WITH_AUXILIARY_CLASSIFIERS]


def build(backbone: str, classes: int, image_size: int, hidden: int = 0) -> nn.Module:
    """A randomly initialised network: float32 [N, 3, image_size, image_size] to logits [N, classes].

    backbone: a name of backbone_names(). hidden: units of the head's hidden layer; 0 makes the head linear.
    Raises Mistake for an unusable backbone or image size.
    """
    if backbone in WITH_AUXILIARY_CLASSIFIERS:
        raise Mistake(f"--backbone {backbone} has auxiliary classifiers, which are not supported; choose resnet50, say")
    if backbone not in backbone_names():
        raise Mistake(f"--backbone {backbone} is no torchvision classifier; there are {', '.join(backbone_names())}")
    sized = {}
    if backbone.startswith("vit_"):
        sized = {"image_size": image_size}
    elif backbone == "maxvit_t":
        sized = {"input_size": (image_size, image_size)}
    try:
        network = torchvision.models.get_model(backbone, weights=None, **sized)
    except (ValueError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise Mistake(f"--backbone {backbone} cannot take --image-size {image_size}: {reason}") from error
    if isinstance(network, torchvision.models.SqueezeNet):
        # It ends in a convolution averaged afterwards; averaging first lets it end in a linear layer as all others do.
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
    pool = getattr(network, "avgpool", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size not in (1, (1, 1)):
        network.avgpool = ExportablePool(pool.output_size)
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    replace(network, last, Head(network.get_submodule(last).in_features, classes, hidden))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Some backbones average over hundreds of steps (0.01), more than a small data set has in an epoch.
            module.momentum = 0.1
    return network


def head_name(network: nn.Module) -> str:
    """The dotted name of a built network's head; its parameters' names begin with it and a dot."""
    return next(name for name, module in network.named_modules() if isinstance(module, Head))


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the dotted `name` of the network."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def from_description(description: Mapping, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Rebuild the trained network, in eval mode, from model.json's content and its state dict.

    Reads backbone, labels, image_size and hidden. Raises RuntimeError where the state does not fit.
    """
    classes, hidden = len(description["labels"]), description.get("hidden", 0)
    network = build(description["backbone"], classes, description["image_size"], hidden)
    network.load_state_dict(state)
    return network.eval()


def load_model_folder(folder: str | os.PathLike) -> tuple[nn.Module, dict]:
    """The network (eval mode) and model.json's content of an unpacked archive."""
    description = json.loads((Path(folder) / "model.json").read_text())
    return from_description(description, read_safetensors(Path(folder) / "model.safetensors")), description
