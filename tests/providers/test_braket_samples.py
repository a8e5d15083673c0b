"""Samples of Amazon Braket's devices, by AWS's real client against a service on the loopback."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, ParameterVector, QuantumRegister
from qiskit.quantum_info import Statevector
from scipy.stats import chisquare

from qiskit_qattn.errors import CircuitError

from .aws_devices import PLAIN
from .braket_adapter import SHOTS, backend_of, created

ROWS = np.array([[0.4, 1.0], [2.1, -0.5], [0.4, 1.0], [0.0, 0.7]])


def circuit():
    """Three qubits, of which one is measured into no bit that anybody asks for, out of order."""
    x = ParameterVector("x", 2)
    made = QuantumCircuit(QuantumRegister(3), ClassicalRegister(9, "alpha"), ClassicalRegister(1, "beta"))
    made.ry(x[0], 0)
    made.crx(x[1], 0, 2)
    made.x(1)
    made.measure([2, 0], [8, 9])
    return made


def run(target="test-garnet"):
    text = f"braket:{target}?shots={SHOTS}&s3=results/here&budget=unlimited&retries=1"
    backend = backend_of(text)
    return backend, lambda: backend.sampler.run([(circuit(), ROWS)]).result()


@pytest.mark.parametrize(("target", "tasks"), [("test-garnet", 1), (PLAIN, 3)])
def test_samples_are_those_of_the_state_and_are_paid_once(aws, target, tasks):
    backend, act = run(target)
    result = act()
    data = result[0].data
    assert (data.alpha.num_bits, data.beta.num_bits, data.shape) == (9, 1, (4,))
    for row, values in enumerate(ROWS):
        state = Statevector(circuit().remove_final_measurements(inplace=False).assign_parameters(values))
        exact = state.probabilities([2, 0])
        counts = result[0].join_data(["alpha", "beta"]).get_int_counts(row)
        found = np.array([counts.get((outcome & 1) << 8 | (outcome >> 1) << 9, 0) for outcome in range(4)])
        used = exact > 1e-9
        assert found.sum() == SHOTS and found[~used].sum() == 0
        assert used.sum() == 1 or chisquare(found[used], exact[used] * SHOTS).pvalue > 1e-4
    np.testing.assert_array_equal(data.beta[0].array, data.beta[2].array)  # equal rows: measured once
    estimate = backend.estimator.ledger.rows()[0].estimate
    assert created(aws) == (tasks, tasks) and (estimate.circuits, estimate.shots) == (3, 3 * SHOTS)
    assert backend.estimator.spent.usd == pytest.approx(estimate.usd)
    again, act = run(target)
    np.testing.assert_array_equal(act()[0].data.alpha.array, data.alpha.array)
    assert created(aws) == (tasks, tasks) and again.estimator.spent.usd in (None, 0.0)


def test_an_answer_that_is_lost_is_found_by_its_tag(aws):
    aws.faults.append(("CreateQuantumTask", "drop_answer"))
    _, act = run()
    assert act()[0].data.beta.num_shots == SHOTS
    assert len(aws.tasks) == 1


def test_a_measurement_before_the_end_is_refused_before_anything_is_sent(aws):
    backend, _ = run()
    early = QuantumCircuit(1, 1)
    early.measure(0, 0)
    early.x(0)
    with pytest.raises(CircuitError, match="uses classical bits before the end"):
        backend.sampler.run([early])
    assert not aws.tasks
