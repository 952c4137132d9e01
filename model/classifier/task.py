"""One training task: given folders and a backbone, train a network for a choice of head and recipe.

train.py trains it once, hpo.py many times; what does not depend on that choice is computed once.
"""

import hashlib
import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from classifier import progress
from classifier.archive import versions
from classifier.checkpoint import Checkpoint
from classifier.command import Parser, Switch, natural_float, natural_int, positive_float, positive_int, share
from classifier.data import Pictures, Splits, load_splits
from classifier.engine import chosen_precision
from classifier.features import Extracted, Extraction, add_extraction_flags, extract, extraction_from
from classifier.fit import Epoch, Fit, Recipe, fit, predict
from classifier.mistake import Mistake
from classifier.network import Head, build, head_name, replace
from classifier.preprocessing import Preprocessing
from classifier.ranks import ALONE, Ranks
from classifier.samples import Augmentation, PictureSamples
from classifier.weights import load_weights


@dataclass(frozen=True)
class Task:
    """What is to be learned, from what. freeze: train the head only, on features of the unchanged backbone.

    scanned: the pictures of the folders. strict: damaged ones are refused instead of left out.
    """

    scanned: Splits
    backbone: str
    weights: str
    freeze: bool
    image_size: int
    seed: int
    augmentation: Augmentation
    extraction: Extraction
    strict: bool = False
    ranks: Ranks = ALONE

    @property
    def splits(self) -> Splits:
        """The pictures that are learned from. Of a frozen backbone, extraction finds the damaged ones."""
        return self.extracted.splits if self.freeze else self.scanned

    @property
    def labels(self) -> list[str]:
        """The class names, by index of the logits."""
        return self.scanned.train.labels

    @property
    def preprocessing(self) -> Preprocessing:
        """Pretrained weights expect ImageNet's margin around the centre (256 to 224); without them nothing is cut."""
        resize_size = self.image_size if self.weights == "none" else round(self.image_size * 256 / 224)
        return Preprocessing(self.image_size, resize_size)

    def samples(self, pictures: Pictures, ranks: Ranks = ALONE) -> PictureSamples:
        """Pictures as this task's network takes them; of several ranks, each gets its share."""
        return PictureSamples(pictures, self.preprocessing, self.augmentation, self.seed, ranks)

    def default_batch_size(self) -> int:
        """Small for small sets, so that even few epochs make enough steps."""
        pictures = len(self.splits.train)
        return 8 if pictures < 400 else 16 if pictures < 1000 else 32 if pictures < 4000 else 64

    def default_learning_rate(self) -> float:
        """AdamW's, at its peak."""
        return 1e-3

    def default_backbone_learning_rate_factor(self) -> float:
        """Gentle where pretrained layers move: they are nearly right, and the head is random."""
        return 1.0 if self.weights == "none" or self.freeze else 0.1

    def trains_in_bf16(self) -> bool:
        """Whether passes over pictures run in bfloat16: where the CPU gains from it, and the network."""
        asked = self.extraction.precision
        if self.freeze or chosen_precision(asked) == "fp32":
            return False
        with torch.device("meta"):
            network = build(self.backbone, len(self.labels), self.image_size)
        # Depthwise convolutions take twice as long backwards as in float32.
        return asked == "bf16" or not any(
            isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels for module in network.modules()
        )

    def train(
        self, hidden: int, recipe: Recipe, on_epoch: Callable[[Epoch], None], checkpoint: Checkpoint | None = None
    ) -> tuple[nn.Module, Fit]:
        """A network with a head of `hidden` units trained by `recipe`, in eval mode, and how that went."""
        on_step = partial(progress.show, "training")
        if self.freeze:
            network, extracted = self._frozen_network, self.extracted
            torch.manual_seed(recipe.seed)
            head = Head(extracted.train.features.shape[1], len(self.labels), hidden)
            replace(network, head_name(network), head)
            # Each rank has all features: training the same head on each costs less than to share the work.
            parts, ranks = (head, extracted.train, extracted.validation), ALONE
            checkpoint = checkpoint if self.ranks.leads else None
        else:
            network, ranks = self._network(hidden), self.ranks
            splits = (self.splits.train, self.splits.validation)
            parts = (network, *(self.samples(split, ranks) for split in splits))
            if ranks.world > min(recipe.batch_size, *map(len, splits), len(self.splits.test)):
                raise Mistake(f"{ranks.world} processes are more than a batch or a split has pictures; start fewer")
        return network, fit(*parts, len(self.labels), recipe, on_epoch, on_step, checkpoint, ranks)

    def test_logits(self, network: nn.Module) -> torch.Tensor:
        """The trained network's answers for the test pictures: float32 [N, classes]."""
        if self.freeze:
            return predict(network.get_submodule(head_name(network)), self.extracted.test)
        return predict(network, self.samples(self.splits.test, self.ranks), self.ranks)

    def fingerprint(self, hidden: int, recipe: Recipe) -> str:
        """Of all that the trained weights depend on, the machine apart."""
        content = hashlib.sha256()
        for part in self._content():
            content.update(part)
        code = sorted(Path(__file__).parent.glob("*.py"))
        description = {
            "content": content.hexdigest(),
            "code": hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest(),
            "versions": versions(),
            "network": self.describe(hidden),
            "preprocessing": self.preprocessing.to_json(),
            "augmentation": asdict(self.augmentation),
            "recipe": asdict(recipe),
        }
        return json.dumps(description, sort_keys=True)

    def describe(self, hidden: int) -> dict:
        """The network in words, for metrics.json."""
        return {
            "backbone": self.backbone,
            "weights": str(self.weights),
            "freeze_backbone": self.freeze,
            "image_size": self.image_size,
            "hidden": hidden,
            "classes": len(self.labels),
        }

    def _content(self) -> Iterator[bytes]:
        """Labels, targets and the bytes of what is learned from: features, or picture files and pretrained weights."""
        splits = (self.splits.train, self.splits.validation, self.splits.test)
        yield json.dumps([self.labels, *(split.targets for split in splits)]).encode()
        if self.freeze:
            for samples in (self.extracted.train, self.extracted.validation, self.extracted.test):
                yield samples.features.contiguous().numpy().tobytes()
            yield str(self.extraction.views).encode()
            return
        paths = [
            path for split in (self.splits.train, self.splits.validation, self.splits.test) for path in split.paths
        ]
        if self.weights not in ("none", "imagenet"):
            paths.append(Path(self.weights))
        with ThreadPoolExecutor() as pool:
            yield from pool.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)

    def _network(self, hidden: int) -> nn.Module:
        torch.manual_seed(self.seed)
        network = build(self.backbone, len(self.labels), self.image_size, hidden)
        load_weights(network, head_name(network), self.backbone, self.weights)
        return network

    @cached_property
    def _frozen_network(self) -> nn.Module:
        return self._network(hidden=0).eval()

    @cached_property
    def extracted(self) -> Extracted:
        """The frozen backbone's features of all pictures."""
        return extract(
            self._frozen_network,
            self.scanned,
            self.preprocessing,
            self.augmentation,
            self.extraction,
            strict=self.strict,
            seed=self.seed,
            ranks=self.ranks,
            on_progress=partial(progress.show, "features"),
        )


def add_task_flags(parser: Parser, environment: dict[str, str]) -> None:
    """The flags that say what is learned from what; SageMaker's SM_CHANNEL_* are the defaults of the folders."""
    train = environment.get("SM_CHANNEL_TRAIN") or environment.get("SM_CHANNEL_TRAINING")
    group = parser.add_argument_group("folders of class folders of pictures")
    folder = {"type": Path, "metavar": "DIR"}
    group.add_argument("--train", **folder, default=train, help="may hold train, valid, test (SM_CHANNEL_TRAIN)")
    for name in ("validation", "test"):
        variable = f"SM_CHANNEL_{name.upper()}"
        help_text = f"else split off train ({variable})"
        group.add_argument(f"--{name}", **folder, default=environment.get(variable), help=help_text)
    group.add_argument("--strict", action=Switch, default=False, help="refuse damaged pictures, else skipped")
    group = parser.add_argument_group("network")
    group.add_argument("--backbone", default="resnet50", metavar="NAME", help="of torchvision (%(default)s)")
    group.add_argument(
        "--weights", default="imagenet", metavar="imagenet|none|PATH", help="to start from (%(default)s)"
    )
    group.add_argument("--freeze-backbone", action=Switch, help="train the head only (unless --weights none)")
    group.add_argument("--image-size", type=positive_int, default=224, metavar="PIXELS", help="(%(default)s)")
    group.add_argument("--horizontal-flip", action=Switch, default=True, help="mirror at random (true); not for text")
    group.add_argument(
        "--seed", type=natural_int, default=0, metavar="N", help="of splits, weights, order (%(default)s)"
    )
    add_extraction_flags(parser, environment)


def add_recipe_flags(parser: Parser) -> None:
    """The flags of a recipe that a search does not vary."""
    group = parser.add_argument_group("recipe")
    group.add_argument("--epochs", type=positive_int, default=20, metavar="N", help="at most (%(default)s)")
    help_text = "to wait for a better validation loss (%(default)s)"
    group.add_argument("--patience", type=positive_int, default=8, metavar="EPOCHS", help=help_text)
    group.add_argument("--label-smoothing", type=share, default=0.05, metavar="SHARE", help="(%(default)s)")
    group.add_argument("--weight-decay", type=natural_float, default=0.05, metavar="RATE", help="(%(default)s)")
    factor = {"type": natural_float, "metavar": "FACTOR", "help": "of its layers (1; 0.1 to fine-tune)"}
    group.add_argument("--backbone-learning-rate-factor", **factor)
    group.add_argument("--ema", type=share, default=0.0, metavar="DECAY", help="average the weights, 0.999 say (off)")
    mixed = {"type": natural_float, "default": 0.0, "metavar": "ALPHA"}
    group.add_argument("--mixup", **mixed, help="blend pictures, 0.2 say (off)")
    group.add_argument("--cutmix", **mixed, help="paste into each other, 1 say (off)")


def add_choice_flags(parser: Parser) -> None:
    """The flags that hpo.py searches over."""
    group = parser.add_argument_group("choices that hpo.py makes")
    group.add_argument("--learning-rate", type=positive_float, metavar="RATE", help="AdamW's, at its peak (0.001)")
    group.add_argument("--batch-size", type=positive_int, metavar="PICTURES", help="(8 to 64, by their number)")
    group.add_argument("--hidden", type=natural_int, default=0, metavar="UNITS", help="of the head; 0 is linear (0)")


def recipe_from(
    options: Namespace, task: Task, learning_rate: float | None = None, batch_size: int | None = None
) -> Recipe:
    """The recipe the flags and these choices (learning_rate, batch_size) ask for; None takes the task's default."""
    if task.freeze and (options.mixup or options.cutmix):
        raise Mistake("--mixup and --cutmix mix pictures, and a frozen backbone's are seen once: --no-freeze-backbone")
    factor = options.backbone_learning_rate_factor
    return Recipe(
        epochs=options.epochs,
        patience=options.patience,
        seed=options.seed,
        batch_size=batch_size or task.default_batch_size(),
        learning_rate=learning_rate or task.default_learning_rate(),
        weight_decay=options.weight_decay,
        label_smoothing=options.label_smoothing,
        backbone_learning_rate_factor=task.default_backbone_learning_rate_factor() if factor is None else factor,
        ema=options.ema,
        mixup=options.mixup,
        cutmix=options.cutmix,
        bf16=task.trains_in_bf16(),
    )


def task_from(options: Namespace, ranks: Ranks = ALONE) -> Task:
    """Scan the folders the flags name; raises Mistake."""
    if options.train is None:
        raise Mistake("--train DIR is missing: a folder of class folders of pictures")
    freeze = options.freeze_backbone if options.freeze_backbone is not None else options.weights != "none"
    folders = (options.train, options.validation, options.test)
    return Task(
        # Extraction decodes every picture next, and finds the damaged ones itself.
        scanned=load_splits(*folders, seed=options.seed, strict=options.strict, verify=not freeze),
        backbone=options.backbone,
        weights=options.weights,
        freeze=freeze,
        image_size=options.image_size,
        seed=options.seed,
        augmentation=Augmentation(horizontal_flip=options.horizontal_flip),
        extraction=extraction_from(options),
        strict=options.strict,
        ranks=ranks,
    )
