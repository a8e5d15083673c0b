"""Scores against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qiskit_qattn.errors import UnknownNameError
from qiskit_qattn.training.scores import TITLES, scores


def test_scores_of_two_classes_are_those_of_the_confusion_matrix(rng):
    predicted, labels = rng.integers(2, size=60), rng.integers(2, size=60)
    tp, tn = np.sum(predicted & labels), np.sum((1 - predicted) & (1 - labels))
    fp, fn = np.sum(predicted & (1 - labels)), np.sum((1 - predicted) & labels)
    found = scores(("accuracy", "f1", "matthews"), predicted, labels)
    assert found["accuracy"] == pytest.approx((tp + tn) / 60)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert found["matthews"] == pytest.approx((tp * tn - fp * fn) / root)


def test_correlations_are_of_numbers_and_of_ranks(rng):
    labels = rng.normal(size=30)
    found = scores(("spearman", "pearson"), np.exp(labels), labels)
    assert found["spearman"] == pytest.approx(1.0) and 0.5 < found["pearson"] < 0.999
    assert found["pearson"] == pytest.approx(np.corrcoef(np.exp(labels), labels)[0, 1])


def test_constant_predictions_score_zero_without_a_warning():
    labels = np.array([0, 1, 1, 1])
    assert scores(("matthews",), np.ones(4, int), labels) == {"matthews": 0.0}
    assert scores(("f1",), np.zeros(4, int), labels) == {"f1": 0.0}
    assert scores(("spearman", "pearson"), np.ones(4), labels) == {"spearman": 0.0, "pearson": 0.0}


def test_several_classes_count_alike_in_f1():
    predicted, labels = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])
    assert scores(("f1",), predicted, labels)["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_an_unknown_metric_lists_the_known():
    with pytest.raises(UnknownNameError, match=", ".join(sorted(TITLES))):
        scores(("recall",), np.ones(2), np.ones(2))
