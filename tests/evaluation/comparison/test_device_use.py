from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.evaluation.comparison.device_use import qpu_clock, qpu_seconds, share_budget
from qiskit_qattn.training.progress import TrainingInterrupted


def test_the_seconds_on_processors_add_up_over_processes(tmp_path: Path):
    path = tmp_path / "qpu"
    path.write_text("2.5")
    with pytest.raises(TrainingInterrupted), qpu_clock(Place.open("statevector"), path) as read:
        assert read() == 2.5
        raise TrainingInterrupted(tmp_path, 3, 15)
    assert json.loads(path.read_text()) == 2.5


@pytest.mark.parametrize(("budget", "limit"), [("60s", 15.0), ("2usd", 0.5), ("unlimited", math.inf)])
def test_all_cells_together_stay_within_the_budget(budget: str, limit: float):
    backend = get_backend(f"ibm:fake_manila?shots=16&budget={budget}")
    share_budget(Place.of(backend), 4)
    assert isinstance(backend.estimator, ManagedEstimator)
    assert backend.estimator.budget is not None
    assert backend.estimator.budget.limit == limit
    assert not backend.estimator.budget.shared  # other cells may run at the same time, on shares of their own
    assert qpu_seconds(Place.of(backend)) == 0


def test_a_simulator_has_no_budget_to_share():
    share_budget(Place.open("statevector"), 3)
