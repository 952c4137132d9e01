"""The figures agree with scikit-learn's and with their own definitions, on any logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics
import torch
from classifier.metrics import summary, wilson_interval
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


@st.composite
def answers(draw):
    """Logits float32 [N, classes] and the true classes; few classes and few pictures, so that some are never met."""
    classes, count = draw(st.integers(2, 9)), draw(st.integers(1, 40))
    logits = draw(arrays(np.float32, (count, classes), elements=st.floats(-60, 60, width=32)))
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return torch.from_numpy(logits), targets, [f"class {index}" for index in range(classes)]


@given(answers())
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_learn(given_answers):
    logits, targets, labels = given_answers
    figures, predicted, classes = summary(logits, targets, labels), logits.argmax(dim=1), range(len(labels))
    matrix = sklearn.metrics.confusion_matrix(targets, predicted, labels=classes)
    assert figures["confusion_matrix"] == {"labels": labels, "rows_true_columns_predicted": matrix.tolist()}
    assert figures["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(targets, predicted))
    expected = sklearn.metrics.precision_recall_fscore_support(targets, predicted, labels=classes, zero_division=np.nan)
    for label, *row in zip(labels, *expected, strict=True):
        found = figures["per_class"][label]
        found = [np.nan if found[name] is None else found[name] for name in ("precision", "recall", "f1", "pictures")]
        np.testing.assert_allclose(found, row)


@given(answers())
@settings(max_examples=60, deadline=None)
def test_top_5_counts_the_true_classes_among_the_five_largest_logits(given_answers):
    logits, targets, labels = given_answers
    share = summary(logits, targets, labels)["top_5_accuracy"]
    if len(labels) <= 5:
        assert share is None
        return
    rows = list(zip(logits.tolist(), targets, strict=True))
    # Among equal logits any order is right: the share lies between the two extremes.
    least = np.mean([sum(value >= row[target] for value in row) <= 5 for row, target in rows])
    most = np.mean([sum(value > row[target] for value in row) < 5 for row, target in rows])
    assert least <= share <= most


@given(answers())
@settings(max_examples=60, deadline=None)
def test_calibration_sorts_every_picture_into_the_bin_of_its_confidence(given_answers):
    logits, targets, labels = given_answers
    found = summary(logits, targets, labels)["calibration"]
    confidence = logits.double().softmax(dim=1).max(dim=1).values.numpy()
    right = (logits.argmax(dim=1) == torch.tensor(targets)).numpy()
    assert sum(part["pictures"] for part in found["bins"]) == len(targets)
    error = 0.0
    for part in found["bins"]:
        last = part["to"] == 1
        inside = (confidence >= part["from"]) & ((confidence < part["to"]) | last)
        # On the border of two bins rounding decides.
        near = np.isclose(confidence, part["from"]) | np.isclose(confidence, part["to"])
        assert (inside & ~near).sum() <= part["pictures"] <= (inside | near).sum()
        if not near.any():
            assert part["confidence"] == (pytest.approx(confidence[inside].mean()) if inside.any() else None)
            assert part["accuracy"] == (pytest.approx(right[inside].mean()) if inside.any() else None)
        if part["pictures"]:
            error += part["pictures"] / len(targets) * abs(part["accuracy"] - part["confidence"])
    assert found["expected_calibration_error"] == pytest.approx(error)


def test_a_sure_and_right_classifier_is_calibrated_and_a_sure_and_wrong_one_is_not():
    logits = torch.eye(3).repeat(5, 1) * 100
    for targets, error in (([0, 1, 2] * 5, 0), ([1, 2, 0] * 5, 1)):
        assert summary(logits, targets, list("abc"))["calibration"]["expected_calibration_error"] == pytest.approx(
            error
        )


def test_is_json_without_nan_where_a_class_was_neither_met_nor_predicted():
    figures = summary(torch.tensor([[1.0, 0.0, -1.0]]), [0], ["met", "other", "absent"])
    text = json.dumps(figures, allow_nan=False)
    assert json.loads(text)["per_class"]["absent"] == {"pictures": 0, "precision": None, "recall": None, "f1": None}


@given(st.integers(1, 5000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(answers):
    right, of = answers
    low, high = wilson_interval(right, of)
    assert -1e-12 <= low <= right / of + 1e-12 and right / of - 1e-12 <= high <= 1 + 1e-12
    assert high > low


def test_the_interval_is_wilsons():
    # 0.0 and 0.2775 for 0 of 10: the textbook's example.
    assert wilson_interval(0, 10) == pytest.approx([0, 0.2775], abs=1e-4)
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
