"""Samples of IBM's devices, by the real client of a service on the loopback, and of a snapshot in local mode."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, Parameter, QuantumRegister
from qiskit.quantum_info import Statevector
from scipy.stats import chisquare

from qiskit_qattn import get_backend
from qiskit_qattn.errors import BackendError, BudgetError, JobError

ANGLE = Parameter("angle")
SHOTS = 1024


def circuit():
    made = QuantumCircuit(QuantumRegister(3), ClassicalRegister(2, "alpha"), ClassicalRegister(1, "beta"))
    made.ry(ANGLE, 0)
    made.cx(0, 1)
    made.rx(0.8, 2)
    made.cx(1, 2)
    made.measure([0, 1, 2], [1, 0, 2])
    return made


def run(backend, rows=((0.4,), (2.1,), (0.4,))):
    return backend.sampler.run([(backend.pass_manager.run(circuit()), rows)])


def assert_right(result, tolerance):
    """Compare three rows with the state; a device's noise may move a probability by so much."""
    for row, angle in enumerate((0.4, 2.1, 0.4)):
        state = Statevector(circuit().remove_final_measurements(inplace=False).assign_parameters([angle]))
        exact = state.probabilities([1, 0, 2])
        counts = result[0].join_data(["alpha", "beta"]).get_int_counts(row)
        found = np.array([counts.get(outcome, 0) for outcome in range(8)])
        assert found.sum() == SHOTS
        if tolerance:
            assert np.abs(found / SHOTS - exact).max() < tolerance
        else:
            used = exact > 1e-9
            assert found[~used].sum() == 0 and chisquare(found[used], exact[used] * SHOTS).pvalue > 1e-4


@pytest.fixture
def text(ibm_server):
    return f"ibm:test_manila?shots={SHOTS}&optimization=1&budget=600s&retries=1"


def test_a_job_is_sent_once_and_its_samples_are_stored(ibm_server, text):
    backend = get_backend(text)
    first = run(backend).result()
    assert_right(first, 0.15)
    np.testing.assert_array_equal(
        first[0].data.alpha[0].array, first[0].data.alpha[2].array
    )  # equal rows: measured once
    [job] = ibm_server.state.jobs.values()
    assert (job.pubs, job.circuits, job.shots) == (1, 2, 2 * SHOTS)
    spent, estimate = backend.estimator.spent, backend.estimator.ledger.rows()[0].estimate
    assert (estimate.circuits, estimate.shots) == (2, 2 * SHOTS) and 0 < spent.seconds < estimate.seconds
    again = get_backend(text)
    second = run(again).result()
    np.testing.assert_array_equal(second[0].data.alpha.array, first[0].data.alpha.array)
    assert len(ibm_server.state.jobs) == 1 and second[0].metadata["cached"] and again.estimator.spent.seconds == 0
    assert second[0].metadata["device"] == "ibm:test_manila"


def test_an_answer_that_is_lost_is_found_by_its_tag(ibm_server, text):
    ibm_server.drop("POST /jobs", "after")
    backend = get_backend(text)
    assert_right(run(backend).result(), 0.15)
    assert len(ibm_server.state.jobs) == 1


def test_a_device_of_an_account_needs_a_budget(ibm_server):
    backend = get_backend("ibm:test_manila?shots=100")
    with pytest.raises(BudgetError, match="no budget is given"):
        run(backend)
    assert not ibm_server.state.jobs


def test_a_job_that_is_too_large_is_not_sent(ibm_server):
    backend = get_backend("ibm:test_manila?shots=6000000&budget=unlimited")
    with pytest.raises(BackendError, match="12,000,000 executions"):
        run(backend)
    assert not ibm_server.state.jobs


def test_twirling_and_decoupling_are_the_sampler_s_too():
    backend = get_backend(f"ibm:fake_manila?shots={SHOTS}&seed=1&twirling=on&dd=XX&optimization=1")
    assert_right(run(backend).result(), 0.2)
    assert run(backend).result()[0].data.alpha.num_shots == SHOTS


def test_a_snapshot_of_a_large_device_measures_the_qubits_in_use():
    backend = get_backend(f"ibm:fake_torino?shots={SHOTS}&seed=1&noise=off&optimization=1")
    assert_right(run(backend).result(), 0.0)


def test_a_gate_that_the_device_does_not_have_is_told(ibm_server, text):
    plain = QuantumCircuit(1)
    plain.h(0)
    plain.measure_all()
    with pytest.raises((BackendError, JobError), match="h"):
        get_backend(text).sampler.run([plain]).result()
