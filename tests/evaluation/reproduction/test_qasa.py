"""QASA's models are those of its paper, and what its figures are compared with is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.reproduction import qasa
from qiskit_qattn.evaluation.reproduction.claims import reproduce
from qiskit_qattn.evaluation.reproduction.runs import Options
from qiskit_qattn.training.progress import Progress


@pytest.mark.parametrize("kind", list(qasa.PUBLISHED))
def test_models_have_the_published_number_of_parameters(kind: qasa.Kind):
    """One of the 36 published weights of the circuit enters no gate."""
    expected = qasa.PUBLISHED[kind][1].parameters - (kind == "qasa")
    assert sum(weight.numel() for weight in qasa.Forecaster(kind).parameters()) == expected


def test_a_constant_is_closer_to_the_map_than_every_published_model():
    series = qasa.logistic_map().double().numpy()
    assert np.abs(series[1:] - 3.9 * series[:-1] * (1 - series[:-1])).max() < 1e-6
    errors = series[401:] - series[:400].mean()
    assert np.abs(errors).mean() < 0.3 < min(each.mae for _, each in qasa.PUBLISHED.values())
    assert np.square(errors).mean() < 0.11 < min(each.mse for _, each in qasa.PUBLISHED.values())


def test_forecasts_are_fed_back():
    class NextOfLast(torch.nn.Module):
        """Adds 1 to every value."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape == (1, 3, 1)
            return x + 1

    found = qasa.forecast(NextOfLast(), torch.tensor([5.0, 6.0, 7.0]), 4)
    assert found.tolist() == [8, 9, 10, 11]


def test_training_keeps_the_best_epoch(monkeypatch: pytest.MonkeyPatch):
    """On a constant series every window is the same, and the model learns it."""
    monkeypatch.setattr(qasa, "TRAINED_ON", 24)  # five windows
    torch.manual_seed(0)
    model, series = qasa.Forecaster("bottleneck"), torch.full((26,), 0.5)
    assert qasa.train(model, series, 60, Progress()) > 0
    assert (qasa.forecast(model, series[:20], 3) - 0.5).abs().max() < 0.1


def test_the_table_has_all_models_and_what_knows_nothing(tmp_path: Path):
    found = reproduce("qasa", Options(tmp_path, steps=3))
    assert [row[0] for row in found.rows][:3] == ["classical", "classical bottleneck", "QASA"]
    assert all(len(row) == len(found.head) for row in found.rows)
    assert found.rows[3][2] == "0.2925"  # the mean of the training data
    assert 0.33 < found.figures["random"]["mae"] < 0.37
    assert found.figures["qasa"]["leak"] > 0
    assert found.shortened.startswith("Shortened: 3 of 76,200 training steps.")
    again = reproduce("qasa", Options(tmp_path, steps=3))
    assert again.figures == found.figures  # what is trained is not trained again
    with pytest.raises(ConfigError, match="other settings"):
        reproduce("qasa", Options(tmp_path, steps=4))


def test_the_circuit_is_measured(tmp_path: Path):
    found = reproduce("qasa-circuit", Options(tmp_path, steps=400))
    figures = found.figures
    assert [figures[name] for name in ("qubits", "weights", "cx", "gates")] == [9, 35, 27, 110]
    assert figures["meyer_wallach"] == pytest.approx(0.98, abs=0.01)
    assert figures["entropy"] == pytest.approx(2.24, abs=0.05)
    assert figures["expressibility_8"] > 2 * figures["expressibility_9"]
    assert found.shortened.startswith("Shortened: 400 of 5,000 pairs of states.")
