"""The one training loop, for whole networks on pictures and for heads on features; train.py and hpo.py call it."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from classifier.mistake import Mistake
from classifier.samples import Samples, steps_per_epoch

EVALUATION_BATCH_SIZE = 32
WARM_UP_SHARE = 0.2


class Diverged(Mistake):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Recipe:
    """How to train. patience: epochs without a better validation loss after which training stops."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    weight_decay: float = 0.05
    label_smoothing: float = 0.05


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
    """The epochs run and the one whose weights the module has now."""

    history: list[Epoch]
    best: Epoch


def fit(
    module: nn.Module,
    train: Samples,
    validation: Samples,
    classes: int,
    recipe: Recipe,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Fit:
    """Train every parameter of `module`, and leave it in eval mode with the weights of the best validation loss.

    on_epoch(epoch) is called after each epoch, on_step(done, total) after each step of one; on_epoch may raise to stop.
    Raises Diverged.
    """
    torch.manual_seed(recipe.seed)
    steps = steps_per_epoch(len(train.targets), recipe.batch_size)
    module.to(memory_format=torch.channels_last)
    parameters = _decayed_apart(module, recipe.weight_decay)
    # Fused: on small pictures the update costs as much as the pass.
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_then_cosine(recipe.epochs * steps))
    weights = class_weights(train.targets, classes)
    history, best, best_state = [], None, None
    for number in range(1, recipe.epochs + 1):
        module.train()
        total = 0.0
        for step, (inputs, targets) in enumerate(train.shuffled(recipe.batch_size, number), start=1):
            logits = module(_fast_layout(inputs))
            loss = functional.cross_entropy(logits, targets, weights, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
            on_step(step, steps)
        epoch = Epoch(number, total / steps, *loss_and_accuracy(predict(module, validation), validation.targets))
        if not math.isfinite(epoch.train_loss + epoch.validation_loss):
            raise Diverged(f"the loss is no longer a number in epoch {number}; lower --learning-rate")
        history.append(epoch)
        if best is None or epoch.validation_loss < best.validation_loss:
            best, best_state = epoch, copy.deepcopy(module.state_dict())
        on_epoch(epoch)
        if number - best.epoch >= recipe.patience:
            break
    module.load_state_dict(best_state)
    module.eval()
    return Fit(history, best)


def predict(module: nn.Module, samples: Samples) -> torch.Tensor:
    """Logits float32 [N, classes] of all samples in order, in eval mode, which the module is left in."""
    module.eval()
    with torch.inference_mode():
        batches = samples.in_order(EVALUATION_BATCH_SIZE)
        return torch.cat([module(_fast_layout(inputs)) for inputs, _ in batches]).clone()


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


def _fast_layout(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _decayed_apart(module: nn.Module, weight_decay: float) -> list[dict]:
    # Decay is for weight matrices; on biases and normalisation it only pulls towards a worse scale.
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


def _warm_up_then_cosine(steps: int) -> Callable[[int], float]:
    warm_up = max(1, round(WARM_UP_SHARE * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    return factor
