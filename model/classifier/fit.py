"""The one training loop, for whole networks on pictures and for heads on features; train.py and hpo.py call it."""

import copy
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2

from classifier.checkpoint import Checkpoint
from classifier.mistake import Mistake
from classifier.network import Head
from classifier.ranks import ALONE, Ranks
from classifier.samples import Samples, steps_per_epoch

EVALUATION_BATCH_SIZE = 32
WARM_UP_SHARE = 0.2
REMEDY = "lower --learning-rate, and look at --weights and --precision"


class Diverged(Mistake):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    batch_size: pictures a step, of all ranks together. patience: epochs without a better validation loss after which
    training stops. backbone_learning_rate_factor: of the layers before the head. ema: how much of the averaged weights
    each step keeps; 0 does not average. mixup, cutmix: alpha of the Beta distribution that pairs of pictures are mixed
    with; 0 does not mix. bf16: whether passes over pictures run in bfloat16; weights stay float32.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    backbone_learning_rate_factor: float = 1.0
    ema: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    bf16: bool = False


@dataclass(frozen=True)
class Epoch:
    """One line of the history; losses are means of the cross-entropy in nats per picture."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float

    def line(self) -> str:
        """The line that Automatic Model Tuning reads: fixed-point, because its patterns take 1e-05 for 1."""
        return (
            f"epoch={self.epoch} train_loss={self.train_loss:.6f} "
            f"validation_loss={self.validation_loss:.6f} validation_accuracy={self.validation_accuracy:.6f}"
        )


@dataclass(frozen=True)
class Fit:
    """The epochs run and the one whose weights the module has now. seconds: of all epochs, by the clock."""

    history: list[Epoch]
    seconds: float = field(default=0.0, compare=False)

    @property
    def best(self) -> Epoch:
        """The first with the least validation loss."""
        return min(self.history, key=lambda epoch: epoch.validation_loss)

    def ends(self, recipe: Recipe) -> bool:
        """Whether all epochs were run, or so many without a better one that no more are."""
        return len(self.history) >= recipe.epochs or (
            bool(self.history) and len(self.history) - self.best.epoch >= recipe.patience
        )


def fit(
    module: nn.Module,
    train: Samples,
    validation: Samples,
    classes: int,
    recipe: Recipe,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks = ALONE,
) -> Fit:
    """Train every parameter of `module`, and leave it in eval mode with the weights of the best validation loss.

    on_epoch(epoch) is called after each epoch, on_step(done, total) after each step of one; on_epoch may raise to stop.
    With a checkpoint that holds something, training goes on from there, to the same bits as without the interruption.
    Of several ranks, each gives its share of every batch and of the validation samples in `train` and `validation`; all
    end with the same weights, and the leader's checkpoint counts. Raises Diverged.
    """
    steps = steps_per_epoch(len(train.targets), recipe.batch_size)
    module.to(memory_format=torch.channels_last)
    # Fused: on small pictures the update costs as much as the pass.
    optimizer = torch.optim.AdamW(_parameter_groups(module, recipe), lr=recipe.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_then_cosine(recipe.epochs * steps))
    # What a step changes, and a checkpoint holds.
    parts = {"module": module, "optimizer": optimizer, "schedule": schedule}
    averaged = None
    if recipe.ema:
        parts["averaged"] = averaged = AveragedModel(module, avg_fn=_moving_average(recipe.ema), use_buffers=True)
    judged = averaged.module if averaged else module
    passes = DistributedDataParallel(module) if ranks.world > 1 else module
    loss_of = _loss(class_weights(train.targets, classes), recipe.label_smoothing, ranks)
    mix = _mixing(recipe, classes)

    fitted, best_state = Fit([]), None
    if checkpoint and (state := _of_leader(checkpoint.load() if ranks.leads else None, ranks)):
        fitted, best_state = Fit([Epoch(**epoch) for epoch in state["history"]], state["seconds"]), state["best"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        if ranks.leads:
            print(f"going on after epoch {len(fitted.history)}, from {checkpoint.path}", file=sys.stderr)

    while not fitted.ends(recipe):
        number, started = len(fitted.history) + 1, time.monotonic()
        # Drawn anew for each epoch, so that one that is resumed at draws the same.
        torch.manual_seed(int(np.random.SeedSequence((recipe.seed, number, ranks.rank)).generate_state(1)[0]))
        module.train()
        total = torch.zeros(())
        for step, (inputs, targets) in enumerate(train.shuffled(recipe.batch_size, number), start=1):
            inputs, targets = mix(inputs, targets)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                logits = passes(_fast_layout(inputs))
            loss = loss_of(logits.float(), targets)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            if not norm.isfinite():
                raise Diverged(f"the loss is no longer a number in epoch {number}, step {step}: {REMEDY}")
            optimizer.step()
            schedule.step()
            if averaged:
                averaged.update_parameters(module)
            total += loss.detach()
            on_step(step, steps)
        if ranks.world > 1:
            distributed.all_reduce(total)
            for buffer in judged.buffers():
                # BatchNorm's running statistics are each rank's own; the leader's count.
                distributed.broadcast(buffer, src=0)
        logits = predict(judged, validation, ranks)
        epoch = Epoch(number, total.item() / ranks.world / steps, *loss_and_accuracy(logits, validation.targets))
        if not math.isfinite(epoch.validation_loss):
            raise Diverged(f"the validation loss is no longer a number in epoch {number}: {REMEDY}")
        fitted = Fit([*fitted.history, epoch], fitted.seconds + time.monotonic() - started)
        if epoch is fitted.best:
            best_state = copy.deepcopy(judged.state_dict())
        on_epoch(epoch)
        if checkpoint and ranks.leads:
            states = {name: part.state_dict() for name, part in parts.items()}
            checkpoint.save({**states, **asdict(fitted), "best": best_state})
    module.load_state_dict(best_state)
    module.eval()
    return fitted


def predict(module: nn.Module, samples: Samples, ranks: Ranks = ALONE) -> torch.Tensor:
    """Logits float32 [N, classes] of all ranks' samples in order, in eval mode, which the module is left in."""
    module.eval()
    with torch.inference_mode():
        batches = samples.in_order(EVALUATION_BATCH_SIZE)
        return ranks.gather(torch.cat([module(_fast_layout(inputs)) for inputs, _ in batches]).clone())


def loss_and_accuracy(logits: torch.Tensor, targets) -> tuple[float, float]:
    """Mean cross-entropy in nats and share of right answers; each picture counts the same."""
    targets = torch.as_tensor(targets)
    return (
        functional.cross_entropy(logits, targets).item(),
        (logits.argmax(dim=1) == targets).float().mean().item(),
    )


def class_weights(targets, classes: int) -> torch.Tensor:
    """Inverse to each class's frequency, mean 1 over the samples: float32 [classes]; 0 for a class without any."""
    counts = torch.bincount(torch.as_tensor(targets), minlength=classes).float()
    return torch.where(counts > 0, len(targets) / ((counts > 0).sum() * counts), 0.0)


def _loss(weights: torch.Tensor, label_smoothing: float, ranks: Ranks) -> Callable:
    """The weighted cross-entropy of logits [n, C] and targets, int64 [n] or mixed [n, C].

    Its mean over ranks is that of the whole batch, however the weights fell upon them.
    """

    def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = weights[targets].sum() if targets.dim() == 1 else (targets @ weights).sum()
        if ranks.world > 1:
            distributed.all_reduce(weight)
            weight /= ranks.world
        loss = functional.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=label_smoothing)
        return loss / weight

    return loss_of


def _mixing(recipe: Recipe, classes: int) -> Callable:
    """(pictures [n, 3, S, S], targets int64 [n]) to the same, or with --mixup and --cutmix to mixtures of pairs."""
    kinds = {v2.MixUp: recipe.mixup, v2.CutMix: recipe.cutmix}
    chosen = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds.items() if alpha]
    return v2.RandomChoice(chosen) if chosen else lambda inputs, targets: (inputs, targets)


def _moving_average(decay: float) -> Callable:
    def average(old: torch.Tensor, new: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        if not old.is_floating_point():
            return new
        # Less at first, else a short training would end near its random start.
        return old.lerp(new, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return average


def _of_leader(state: dict | None, ranks: Ranks) -> dict | None:
    """What the leader has, on every rank: the others' disks may hold nothing, or something older."""
    if ranks.world == 1:
        return state
    holder = [state]
    distributed.broadcast_object_list(holder, src=0)
    return holder[0]


def _fast_layout(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict]:
    """Decay is for weight matrices: on biases and normalisation it only pulls towards a worse scale."""
    heads = [part for part in module.modules() if isinstance(part, Head)] or [module]
    in_head = {parameter for head in heads for parameter in head.parameters()}
    groups = {}
    for parameter in module.parameters():
        groups.setdefault((parameter in in_head, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (1 if head else recipe.backbone_learning_rate_factor),
            "weight_decay": recipe.weight_decay if matrix else 0.0,
        }
        for (head, matrix), parameters in groups.items()
    ]


def _warm_up_then_cosine(steps: int) -> Callable[[int], float]:
    warm_up = max(1, round(WARM_UP_SHARE * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    return factor
