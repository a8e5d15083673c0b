"""What is measured of a cell once it is trained."""

from __future__ import annotations

import math
from typing import Any

from qiskit_qattn.backends.place import Place
from qiskit_qattn.evaluation.circuit_measures import circuit_measures
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.evaluation.prediction_errors import prediction_errors
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus
from qiskit_qattn.training.run import read_metrics

#: What a cell takes over from its run's figures.
FROM_TRAINING = (
    *("val_loss", "val_loss_last_position", "train_loss", "step", "tokens_per_second", "train_seconds"),
    *("wall_seconds", "cpu_seconds", "peak_rss_mib", "peak_gpu_mib", "parameters", "head_backends", "history"),
)


def cell_metrics(config: TrainConfig, corpus: Corpus, backend: Place) -> dict[str, Any]:
    """Return the figures of a finished run, and what its saved model says when it is loaded as users load it.

    Causality and the measures of circuits belong to the model, not to where it runs: they are computed exactly.

    Args:
        config: The run's settings.
        corpus: The text it was trained on.
        backend: Where its circuits run; the model predicts there.

    Raises:
        CheckpointError: If the run's figures or its model are damaged.
    """
    figures = read_metrics(config.folder)
    assert figures is not None, "train_run leaves figures"
    model = GPT.from_pretrained(config.folder / "model")
    measured = {"causality": causality(model), "circuits": circuit_measures(model, corpus.val, seed=config.seed)}
    model.to_backend(backend)
    measured["prediction"] = prediction_errors(model, corpus.tokenizer, corpus.val).to_dict()
    return {**{name: figures[name] for name in FROM_TRAINING}, **measured}


def causality(model: Any, *, vocab_size: int | None = None, block_size: int | None = None) -> dict[str, Any]:
    """Return the causality certificate of a model as plain values; arguments as for ``qa.leakage``."""
    found = leakage(model, vocab_size, block_size)
    return {
        "passed": found.passed,
        "leakage": _finite(found),
        "gradient": None if found.gradient is None else _finite(found.gradient),
        "edited": found.edited,
        "changed": found.changed,
    }


def _finite(value: float) -> float | None:
    """Return a number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None
