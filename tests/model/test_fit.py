"""The training loop, on data small enough to know the answer."""

from __future__ import annotations

import math

import pytest
import torch
from classifier.checkpoint import Checkpoint
from classifier.data import load_splits
from classifier.fit import Diverged, Recipe, class_weights, fit, loss_and_accuracy, predict
from classifier.network import Head
from classifier.preprocessing import Preprocessing
from classifier.ranks import Ranks
from classifier.samples import Augmentation, FeatureSamples, PictureSamples
from torch import nn


def blobs(count: int, seed: int, noise: float = 0.3) -> FeatureSamples:
    """Three clouds of points in the plane."""
    generator = torch.Generator().manual_seed(seed)
    targets = [number % 3 for number in range(count)]
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return FeatureSamples(centres[targets] + noise * torch.randn(count, 2, generator=generator), targets, seed)


class Noise:
    """Small pictures without a meaning, with the same interface."""

    def __init__(self, count: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.pictures = torch.randn(count, 3, 8, 8, generator=generator)
        self.targets = [number % 3 for number in range(count)]

    def shuffled(self, batch_size, epoch):
        order = torch.randperm(len(self.targets), generator=torch.Generator().manual_seed(epoch))
        for indices in order.split(batch_size):
            yield self.pictures[indices], torch.tensor(self.targets)[indices]

    def in_order(self, batch_size):
        return zip(self.pictures.split(batch_size), torch.tensor(self.targets).split(batch_size), strict=True)


def recipe(**changes) -> Recipe:
    return Recipe(**{"epochs": 10, "batch_size": 8, "learning_rate": 0.05, "patience": 10, "seed": 0, **changes})


def convolutional() -> nn.Module:
    """With all that has a state or draws at random: BatchNorm and Dropout."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), Head(6, 3, hidden=8))


def test_it_learns_and_a_seed_repeats_it():
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        head = nn.Linear(2, 3)
        done = fit(head, blobs(90, 1), blobs(30, 2), 3, recipe())
        assert done.best.validation_accuracy == 1
        states.append(head.weight.detach().clone())
    assert torch.equal(*states)


def test_it_stops_without_progress_and_keeps_the_best_epochs_weights():
    train, validation = blobs(30, 1), blobs(30, 2)
    validation._targets = validation._targets[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    validation.targets = validation._targets.tolist()
    torch.manual_seed(0)
    head = nn.Linear(2, 3)
    # Against random labels, every step towards the training labels is a loss.
    done = fit(head, train, validation, 3, recipe(epochs=50, patience=3))
    assert len(done.history) == done.best.epoch + 3 < 50
    assert done.best.validation_loss == min(epoch.validation_loss for epoch in done.history)
    assert done.history[-1].validation_loss > done.best.validation_loss
    loss, _ = loss_and_accuracy(predict(head, validation), validation.targets)
    assert loss == pytest.approx(done.best.validation_loss) and not head.training


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"mixup": 0.4, "cutmix": 1.0}, {"bf16": True}])
@pytest.mark.parametrize("ended_after", [1, 4, 6])
def test_what_was_interrupted_ends_with_the_same_bits(tmp_path, changes, ended_after):
    whole, interrupted = convolutional(), convolutional()
    train, validation = Noise(40, 1), Noise(12, 2)
    asked = recipe(epochs=6, patience=4, learning_rate=0.01, **changes)
    expected = fit(whole, train, validation, 3, asked)
    checkpoint = Checkpoint(tmp_path, "a")

    def stop(epoch):
        if epoch.epoch == min(ended_after + 1, len(expected.history)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, train, validation, 3, asked, stop, checkpoint=checkpoint)
    again, lines = convolutional(), []
    torch.manual_seed(99)  # Another process has other random numbers behind it.
    done = fit(again, train, validation, 3, asked, lines.append, checkpoint=checkpoint)
    assert done == expected and 0 < len(lines) < len(expected.history)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    # Killed after the last epoch, during the export say: nothing is trained again.
    lines.clear()
    assert fit(convolutional(), train, validation, 3, asked, lines.append, checkpoint=checkpoint) == expected
    assert lines == []


def test_averaging_smooths_the_weights_and_what_is_kept_is_the_average():
    train, validation = blobs(30, 1, noise=2), blobs(30, 2, noise=2)
    wandered = {}
    for decay in (0.0, 0.99):
        torch.manual_seed(0)
        head = nn.Linear(2, 3)
        done = fit(head, train, validation, 3, recipe(ema=decay, learning_rate=1.0, epochs=8))
        loss, _ = loss_and_accuracy(predict(head, validation), validation.targets)
        assert loss == pytest.approx(done.best.validation_loss)
        losses = torch.tensor([epoch.validation_loss for epoch in done.history])
        wandered[decay] = losses.diff().abs()[2:].sum()
    assert wandered[0.99] < wandered[0.0]


def test_a_factor_of_zero_leaves_the_layers_before_the_head_alone():
    network = convolutional()
    before = {name: value.clone() for name, value in network.named_parameters()}
    fit(network, Noise(24, 1), Noise(9, 2), 3, recipe(epochs=2, backbone_learning_rate_factor=0.0))
    changed = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("2.")}


def test_a_loss_that_is_no_number_ends_it_with_a_remedy():
    train = blobs(30, 1)
    train.features[3] = math.nan
    with pytest.raises(Diverged, match="--learning-rate"):
        fit(nn.Linear(2, 3), train, blobs(9, 2), 3, recipe())


def test_class_weights_balance_the_classes():
    weights = class_weights([0, 0, 0, 1], 3)
    assert weights.tolist() == pytest.approx([4 / 6, 4 / 2, 0])


def test_metric_lines_are_fixed_point():
    train = blobs(30, 1)
    lines = []
    fit(nn.Linear(2, 3), train, blobs(9, 2, noise=0), 3, recipe(epochs=2), on_epoch=lambda e: lines.append(e.line()))
    assert [line.split()[0] for line in lines] == ["epoch=1", "epoch=2"]
    assert all("e-" not in line and line.count(".") == 3 for line in lines)


@pytest.fixture(scope="module")
def pictures(textures):
    return load_splits(textures, None, None, seed=0).train


def samples_of(pictures, ranks: Ranks) -> PictureSamples:
    return PictureSamples(pictures, Preprocessing(32, 32), Augmentation(), 5, ranks)


@pytest.fixture(scope="module")
def samples(pictures):
    return samples_of(pictures, Ranks())


def test_shuffled_batches_repeat_by_epoch_and_differ_between_epochs(samples):
    def inputs(epoch):
        return torch.cat([pixels for pixels, _ in samples.shuffled(8, epoch)])

    assert torch.equal(inputs(1), inputs(1))
    assert not torch.equal(inputs(1), inputs(2))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_in_order_gives_every_sample_once(samples, batch_size):
    targets = torch.cat([targets for _, targets in samples.in_order(batch_size)])
    assert targets.tolist() == samples.targets


def test_ranks_share_each_batch_and_all_samples(pictures, samples):
    parts = [samples_of(pictures, Ranks(rank, 3)) for rank in range(3)]
    for whole, *shares in zip(samples.shuffled(8, 1), *(part.shuffled(8, 1) for part in parts), strict=True):
        assert torch.allclose(torch.cat([share for share, _ in shares]).sum(0), whole[0].sum(0), atol=1e-4)
        assert sorted(torch.cat([targets for _, targets in shares]).tolist()) == sorted(whole[1].tolist())
    in_order = [torch.cat([targets for _, targets in part.in_order(4)]) for part in parts]
    assert torch.cat(in_order).tolist() == samples.targets
