"""The scores of predictions, as GLUE defines them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qiskit_qattn.errors import unknown_name

Values = NDArray[Any]


def _f1(predicted: Values, labels: Values) -> float:
    from sklearn.metrics import f1_score

    several = len(np.union1d(predicted, labels)) > 2 or max(predicted.max(), labels.max()) > 1
    return float(f1_score(labels, predicted, average="macro" if several else "binary", zero_division=0))


def _matthews(predicted: Values, labels: Values) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def _correlation(function: Callable[..., Any], predicted: Values, labels: Values) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        found = float(function(predicted, labels).statistic)
    return found if math.isfinite(found) else 0.0


_METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": lambda predicted, labels: float(np.mean(predicted == labels)),
    "f1": _f1,
    "matthews": _matthews,
    "pearson": lambda predicted, labels: _correlation(stats.pearsonr, predicted, labels),
    "spearman": lambda predicted, labels: _correlation(stats.spearmanr, predicted, labels),
}
#: How a metric is called in a report.
TITLES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def scores(metrics: Sequence[str], predicted: Values, labels: Values) -> dict[str, float]:
    """Return scores of predictions, at most 1 each, more being better.

    ``accuracy`` is the share of right classes; ``f1`` the harmonic mean of precision and recall of class 1, and with
    more than two classes its mean over them; ``matthews`` the Matthews correlation, 0 for a constant prediction;
    ``pearson`` and ``spearman`` the correlations of numbers and of their ranks, 0 for a constant prediction.

    Args:
        metrics: Names of the above.
        predicted: Classes or numbers, shape ``(N,)``.
        labels: The true classes or numbers, of the same shape.

    Raises:
        UnknownNameError: For another metric.
    """
    for name in metrics:
        if name not in _METRICS:
            raise unknown_name("metric", name, _METRICS)
    return {name: _METRICS[name](predicted, labels) for name in metrics}
