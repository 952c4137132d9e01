"""The training loop, on data small enough to know the answer."""

from __future__ import annotations

import math

import pytest
import torch
from classifier.data import load_splits
from classifier.features import extract
from classifier.fit import Diverged, Recipe, class_weights, fit, loss_and_accuracy, predict
from classifier.network import build, head_name
from classifier.preprocessing import Preprocessing
from classifier.samples import Augmentation, FeatureSamples, PictureSamples
from torch import nn


def blobs(count: int, seed: int, noise: float = 0.3) -> FeatureSamples:
    """Three clouds of points in the plane."""
    generator = torch.Generator().manual_seed(seed)
    targets = [number % 3 for number in range(count)]
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return FeatureSamples(centres[targets] + noise * torch.randn(count, 2, generator=generator), targets, seed)


def recipe(**changes) -> Recipe:
    return Recipe(**{"epochs": 10, "batch_size": 8, "learning_rate": 0.05, "patience": 10, "seed": 0, **changes})


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
def samples(textures):
    train = load_splits(textures, None, None, seed=0).train
    return PictureSamples(train, Preprocessing(32, 32), Augmentation(), seed=5)


def test_features_are_what_the_head_sees_and_leave_the_backbone_alone(samples):
    network = build("resnet18", 3, 32).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    features = extract(network, samples, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert features.features.shape == (len(samples.targets), 512)
    head = network.get_submodule(head_name(network))
    with torch.inference_mode():
        assert torch.allclose(head(features.features), predict(network, samples), atol=1e-5)


def test_shuffled_batches_repeat_by_epoch_and_differ_between_epochs(samples):
    def inputs(epoch):
        return torch.cat([pixels for pixels, _ in samples.shuffled(8, epoch)])

    assert torch.equal(inputs(1), inputs(1))
    assert not torch.equal(inputs(1), inputs(2))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_in_order_gives_every_sample_once(samples, batch_size):
    targets = torch.cat([targets for _, targets in samples.in_order(batch_size)])
    assert targets.tolist() == samples.targets
