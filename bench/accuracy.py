"""Whether features computed once teach a head as well as pictures that pass the frozen network in every epoch."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from classifier.fit import fit, loss_and_accuracy, predict
from classifier.network import build, head_name, replace
from classifier.task import recipe_from
from classifier.weights import load_weights
from torch import nn

from bench import ours
from bench.ours import Arguments
from local.digits import write_digits

FLAGS = ("--backbone", "resnet18", "--image-size", 32, "--horizontal-flip", "false", "--batch-size", 32)


class Frozen(nn.Module):
    """The plain path: a backbone in eval mode always, and a head that learns."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone.requires_grad_(False), head

    def train(self, mode: bool = True) -> Frozen:
        """Of the head alone: the backbone's statistics stay as they are."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, S, S] to logits [N, classes]."""
        return self.head(self.backbone(pictures))


def write_halves(folder: Path) -> tuple[Path, Path]:
    """Class folders of the digits 0 to 4, which a backbone learns, and of 5 to 9, which heads learn on it."""
    write_digits(folder)
    for digit in range(10):
        half = folder / ("known" if digit < 5 else "new")
        half.mkdir(exist_ok=True)
        shutil.move(folder / str(digit), half)
    return folder / "known", folder / "new"


def save_backbone(known: Path, path: Path) -> None:
    """Train a small network on the known digits for a few epochs and write its state dict."""
    with ours.cold() as flags:
        network, _ = ours.trained(["--train", known, *FLAGS, "--weights", "none", "--epochs", 4, *flags])
    torch.save(network.state_dict(), path)


def measure(new: Path, backbone: Path, epochs: int, seed: int) -> dict[str, float]:
    """The share of right answers to the test pictures of each path; splits, order and heads depend on the seed."""
    arguments = ["--train", new, *FLAGS, "--weights", backbone, "--epochs", epochs, "--seed", seed]
    return {
        "cached, 1 view": _cached([*arguments, "--views", 1]),
        "cached, 4 views": _cached([*arguments, "--views", 4]),
        "plain": _plain(arguments),
    }


def _cached(arguments: Arguments) -> float:
    with ours.cold() as flags:
        network, task = ours.trained([*arguments, *flags])
        return loss_and_accuracy(task.test_logits(network), task.splits.test.targets)[1]


def _plain(arguments: Arguments) -> float:
    options, task = ours.asked(arguments)
    recipe = recipe_from(options, task, options.learning_rate, options.batch_size)
    torch.manual_seed(recipe.seed)
    network = build(task.backbone, len(task.labels), task.image_size, options.hidden)
    name = head_name(network)
    load_weights(network, name, task.backbone, task.weights)
    head = network.get_submodule(name)
    replace(network, name, nn.Identity())
    module, splits = Frozen(network, head), task.scanned
    fit(module, task.samples(splits.train), task.samples(splits.validation), len(task.labels), recipe)
    return loss_and_accuracy(predict(module, task.samples(splits.test)), splits.test.targets)[1]
