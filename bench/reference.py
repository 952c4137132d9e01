"""The peer: a head trained on a frozen backbone as torchvision's reference scripts train a classifier.

Written for this comparison after the way of pytorch/vision references/classification (train.py, presets.py): image
folders behind data loaders with worker processes, Pillow, RandomResizedCrop and a flip, train() mode in every epoch,
every picture through the whole network every time, the validation pictures after each epoch. What those scripts cannot
do, freezing a backbone under a new head, is done as their users do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from bench.rounds import THREADS, Seconds, Stopwatch

SPLITS = ("train", "valid", "test")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Hyperparameters:
    """The same figures that the other side trains with; the image sizes are the presets'."""

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    clip_norm: float = 1.0
    warm_up_epochs: int = 1
    image_size: int = 224
    resize_size: int = 256


def train_transform(image_size: int) -> transforms.Compose:
    """The preset for training: a random part of the picture, perhaps mirrored."""
    return transforms.Compose(
        [transforms.RandomResizedCrop(image_size), transforms.RandomHorizontalFlip(), *_to_normalised()]
    )


def eval_transform(image_size: int, resize_size: int) -> transforms.Compose:
    """The preset for evaluation: the centre."""
    return transforms.Compose([transforms.Resize(resize_size), transforms.CenterCrop(image_size), *_to_normalised()])


def _to_normalised() -> list:
    return [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float), transforms.Normalize(MEAN, STD)]


def frozen_network(backbone: str, weights: Path, classes: int) -> nn.Module:
    """The backbone with its weights fixed and a new last layer (of a ResNet) that learns."""
    network = torchvision.models.get_model(backbone)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.requires_grad_(False)
    network.fc = nn.Linear(network.fc.in_features, classes)
    return network


def train(folder: Path, backbone: str, weights: Path, given: Hyperparameters = Hyperparameters()) -> dict[str, Seconds]:
    """Train on folder/train and evaluate on folder/valid after each epoch, on folder/test in the end.

    Returns what had passed after the last epoch ("epochs") and in the end ("all").
    """
    watch = Stopwatch()
    loader, validation, test = (_loader(folder, split, given) for split in SPLITS)
    network = frozen_network(backbone, weights, len(loader.dataset.classes))
    criterion = nn.CrossEntropyLoss(label_smoothing=given.label_smoothing)
    optimizer = torch.optim.AdamW(network.fc.parameters(), lr=given.learning_rate, weight_decay=given.weight_decay)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=given.warm_up_epochs),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, given.epochs - given.warm_up_epochs)),
        ],
        [given.warm_up_epochs],
    )
    for _ in range(given.epochs):
        train_one_epoch(network, criterion, optimizer, loader, given.clip_norm)
        schedule.step()
        evaluate(network, criterion, validation)
    after_epochs = watch.read()
    evaluate(network, criterion, test)
    return {"epochs": after_epochs, "all": watch.read()}


def train_one_epoch(network: nn.Module, criterion: nn.Module, optimizer, loader: DataLoader, clip_norm: float) -> None:
    """One step a batch."""
    network.train()
    for images, targets in loader:
        logits = network(images)
        optimizer.zero_grad()
        loss = criterion(logits, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(network.fc.parameters(), clip_norm)
        optimizer.step()
        loss.item()
        _right(logits, targets)


def evaluate(network: nn.Module, criterion: nn.Module, loader: DataLoader) -> float:
    """The share of right answers."""
    network.eval()
    right = 0
    with torch.inference_mode():
        for images, targets in loader:
            logits = network(images)
            criterion(logits, targets).item()
            right += _right(logits, targets)
    return right / len(loader.dataset)


def forward(folder: Path, backbone: str, weights: Path, given: Hyperparameters = Hyperparameters()) -> Seconds:
    """Every picture through the network once, as epochs and evaluations do it, without loss and step."""
    loaders = [_loader(folder, split, given) for split in SPLITS]
    network = frozen_network(backbone, weights, len(loaders[0].dataset.classes))
    watch = Stopwatch()
    for split, loader in zip(SPLITS, loaders, strict=True):
        network.train(split == "train")
        with torch.inference_mode(split != "train"):
            for images, _ in loader:
                network(images)
    return watch.read()


def _loader(folder: Path, split: str, given: Hyperparameters) -> DataLoader:
    shuffle = split == "train"
    transform = train_transform(given.image_size) if shuffle else eval_transform(given.image_size, given.resize_size)
    dataset = torchvision.datasets.ImageFolder(folder / split, transform)
    # As on Linux by default; below a process that was itself spawned, workers would be too, and import torch each time.
    keywords = {"num_workers": THREADS, "multiprocessing_context": "fork"}
    return DataLoader(dataset, given.batch_size, shuffle=shuffle, **keywords)


def _right(logits: torch.Tensor, targets: torch.Tensor) -> int:
    return (logits.argmax(dim=1) == targets).sum().item()
