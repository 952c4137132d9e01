"""One training task: given folders and a backbone, train a network for a choice of head and recipe.

train.py trains it once, hpo.py many times; what does not depend on that choice is computed once.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from classifier import features, progress
from classifier.command import Parser, Switch, natural_int, positive_float, positive_int
from classifier.data import Pictures, Splits, load_splits
from classifier.fit import Epoch, Fit, Recipe, fit
from classifier.mistake import Mistake
from classifier.network import Head, build, head_name, replace
from classifier.preprocessing import Preprocessing
from classifier.samples import Augmentation, PictureSamples, Samples
from classifier.weights import load_weights


@dataclass(frozen=True)
class Task:
    """What is to be learned, from what. freeze: train the head only, on features of the unchanged backbone."""

    splits: Splits
    backbone: str
    weights: str
    freeze: bool
    image_size: int
    seed: int
    augmentation: Augmentation

    @property
    def labels(self) -> list[str]:
        """The class names, by index of the logits."""
        return self.splits.train.labels

    @property
    def preprocessing(self) -> Preprocessing:
        """Pretrained weights expect ImageNet's margin around the centre (256 to 224); without them nothing is cut."""
        resize_size = self.image_size if self.weights == "none" else round(self.image_size * 256 / 224)
        return Preprocessing(self.image_size, resize_size)

    def samples(self, pictures: Pictures) -> PictureSamples:
        """Pictures as this task's network takes them."""
        return PictureSamples(pictures, self.preprocessing, self.augmentation, self.seed)

    def default_batch_size(self) -> int:
        """Small for small sets, so that even few epochs make enough steps."""
        pictures = len(self.splits.train)
        return 8 if pictures < 400 else 16 if pictures < 1000 else 32 if pictures < 4000 else 64

    def default_learning_rate(self) -> float:
        """AdamW's, at its peak: gentle where all of a pretrained network moves."""
        return 1e-4 if self.weights != "none" and not self.freeze else 1e-3

    def train(self, hidden: int, recipe: Recipe, on_epoch: Callable[[Epoch], None]) -> tuple[nn.Module, Fit]:
        """A network with a head of `hidden` units trained by `recipe`, in eval mode, and how that went."""
        if self.freeze:
            torch.manual_seed(recipe.seed)
            network, name = self._frozen_network, head_name(self._frozen_network)
            train, validation = self._features
            head = Head(train.features.shape[1], len(self.labels), hidden)
            replace(network, name, head)
            return network, self._fit(head, train, validation, recipe, on_epoch)
        network = self._network(hidden)
        train, validation = self.samples(self.splits.train), self.samples(self.splits.validation)
        return network, self._fit(network, train, validation, recipe, on_epoch)

    def _fit(self, module: nn.Module, train: Samples, validation: Samples, recipe: Recipe, on_epoch) -> Fit:
        on_step = partial(progress.show, "training")
        return fit(module, train, validation, len(self.labels), recipe, on_epoch, on_step)

    def _network(self, hidden: int) -> nn.Module:
        torch.manual_seed(self.seed)
        network = build(self.backbone, len(self.labels), self.image_size, hidden)
        load_weights(network, head_name(network), self.backbone, self.weights)
        return network

    @cached_property
    def _frozen_network(self) -> nn.Module:
        return self._network(hidden=0)

    @cached_property
    def _features(self) -> list[features.FeatureSamples]:
        show = partial(progress.show, "features")
        parts = (self.splits.train, self.splits.validation)
        return [features.extract(self._frozen_network, self.samples(part), self.seed, show) for part in parts]


def add_task_flags(parser: Parser, environment: dict[str, str]) -> None:
    """The flags that say what is learned from what; SageMaker's SM_CHANNEL_* are the defaults of the folders."""
    train = environment.get("SM_CHANNEL_TRAIN") or environment.get("SM_CHANNEL_TRAINING")
    group = parser.add_argument_group("data", "folders of class folders of pictures")
    folder = {"type": Path, "metavar": "DIR"}
    group.add_argument("--train", **folder, default=train, help="may hold train, valid and test (SM_CHANNEL_TRAIN)")
    for name in ("validation", "test"):
        variable = f"SM_CHANNEL_{name.upper()}"
        help_text = f"else split off from train, by class ({variable})"
        group.add_argument(f"--{name}", **folder, default=environment.get(variable), help=help_text)
    group.add_argument(
        "--strict", action=Switch, default=False, help="refuse damaged pictures instead of skipping them"
    )
    group = parser.add_argument_group("network")
    group.add_argument("--backbone", default="resnet50", help="any torchvision classifier (%(default)s)")
    group.add_argument(
        "--weights", default="imagenet", metavar="imagenet|none|PATH", help="to start from (%(default)s)"
    )
    group.add_argument("--freeze-backbone", action=Switch, help="train the head only (unless --weights none)")
    group.add_argument("--image-size", type=positive_int, default=224, metavar="PIXELS", help="(%(default)s)")
    group.add_argument("--horizontal-flip", action=Switch, default=True, help="mirror at random (true); not for text")
    group.add_argument("--seed", type=natural_int, default=0, help="of splits, weights and order (%(default)s)")


def add_recipe_flags(parser: Parser) -> None:
    """The flags of a recipe that a search does not vary."""
    group = parser.add_argument_group("recipe")
    group.add_argument("--epochs", type=positive_int, default=20, help="at most (%(default)s)")
    help_text = "stop after so many without a better validation loss (%(default)s)"
    group.add_argument("--patience", type=positive_int, default=8, metavar="EPOCHS", help=help_text)


def add_choice_flags(parser: Parser) -> None:
    """The flags that hpo.py searches over."""
    group = parser.add_argument_group("choices", "that hpo.py makes")
    group.add_argument("--learning-rate", type=positive_float, help="AdamW's, at its peak (0.001; 0.0001 to fine-tune)")
    group.add_argument("--batch-size", type=positive_int, help="(8 to 64, by the number of pictures)")
    group.add_argument("--hidden", type=natural_int, default=0, metavar="UNITS", help="of the head; 0 is linear (0)")


def recipe_from(options: Namespace, task: Task, learning_rate: float | None, batch_size: int | None) -> Recipe:
    """The recipe the flags and these choices (learning_rate, batch_size) ask for; None takes the task's default."""
    return Recipe(
        epochs=options.epochs,
        patience=options.patience,
        seed=options.seed,
        batch_size=batch_size or task.default_batch_size(),
        learning_rate=learning_rate or task.default_learning_rate(),
    )


def task_from(options: Namespace) -> Task:
    """Scan the folders the flags name; raises Mistake."""
    if options.train is None:
        raise Mistake("--train DIR is missing: a folder of class folders of pictures")
    freeze = options.freeze_backbone if options.freeze_backbone is not None else options.weights != "none"
    return Task(
        splits=load_splits(options.train, options.validation, options.test, seed=options.seed, strict=options.strict),
        backbone=options.backbone,
        weights=options.weights,
        freeze=freeze,
        image_size=options.image_size,
        seed=options.seed,
        augmentation=Augmentation(horizontal_flip=options.horizontal_flip),
    )
