from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.evaluation.comparison.devices import qpu_seconds, share_budget
from qiskit_qattn.evaluation.comparison.plan import Study

Plan = Callable[..., Study]


@pytest.mark.parametrize(("budget", "limit"), [("60s", 15.0), ("2usd", 0.5), ("unlimited", math.inf)])
def test_all_cells_together_stay_within_the_budget(budget: str, limit: float):
    backend = get_backend(f"ibm:fake_manila?shots=16&budget={budget}")
    share_budget(Place.of(backend), 4)
    assert isinstance(backend.estimator, ManagedEstimator)
    assert backend.estimator.budget is not None
    assert backend.estimator.budget.limit == limit
    assert qpu_seconds(Place.of(backend)) == 0


def test_only_models_with_circuits_share_it(plan: Plan):
    assert plan("qisa,rff", seeds=3).num_circuit_cells == 3
    assert plan("rff", seeds=3).num_circuit_cells == 1
    share_budget(Place.open("statevector"), 3)  # nothing to share
