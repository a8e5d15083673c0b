"""What an estimator or device may return, and what is never taken for a value."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import (
    BackendEstimatorV2,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
    StatevectorEstimator,
)
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp, random_statevector
from qiskit_machine_learning.gradients import SPSAEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_qattn import TorchConnector
from qiskit_qattn.backends.jobs.device import Values, check_job
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.values import MitigationWarning, bounds, is_mitigated, outside
from qiskit_qattn.errors import BackendError
from qiskit_qattn.simulation.estimator import TorchEstimator

OPERATORS = [SparsePauliOp(["ZZ", "XI"], [0.5, -0.25]), SparsePauliOp("YX")]  # bounds 0.75 and 1
PRECISION = 0.1


def circuit_of():
    x = ParameterVector("x", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.crx(x[1], 0, 1)
    return circuit, list(x)


class Changed(TorchEstimator):
    """Changes the list of results of an estimator that is right."""

    def __init__(self, change, metadata=None):
        super().__init__(default_precision=PRECISION, seed=1)
        self.change, self.metadata = change, metadata or {}

    def run(self, pubs, *, precision=None):
        found = super().run(pubs, precision=precision).result()
        results = self.change(list(found))
        job = PrimitiveJob(PrimitiveResult, results, self.metadata)
        job._submit()
        return job


def replaced(**data):
    """Return the change of the first result's data, each entry by a function of the one before."""

    def change(results):
        old = results[0].data
        new = {name: data.get(name, lambda value: value)(getattr(old, name)) for name in ("evs", "stds")}
        first = PubResult(DataBin(**new), metadata=results[0].metadata)
        return [first, *results[1:]]

    return change


def with_entry(number):
    def change(values):
        values = np.array(values, dtype=np.result_type(values, type(number)))
        values.flat[1] = number
        return values

    return replaced(evs=change)


def with_metadata(**metadata):
    return lambda results: [PubResult(item.data, metadata=item.metadata | metadata) for item in results]


def program(estimator):
    circuit, params = circuit_of()
    return PubProgram(
        circuit, OPERATORS, input_params=params, weight_params=[], estimator=estimator, precision=PRECISION
    )


WRONG = [
    (with_entry(np.nan), "1 of 6 values that are not finite, such as nan"),
    (with_entry(-np.inf), "1 of 6 values that are not finite, such as -inf"),
    (with_entry(1e6), r"1 of 6 values that lie outside their observables' bounds, such as 1e\+06 where .* 0.75"),
    (with_entry(-1.4), r"such as -1.4 where \|⟨O⟩\| ≤ 0.75 and the standard error is 0.1"),
    (with_entry(0.5 + 0.5j), "no real numbers"),
    (replaced(evs=lambda values: values.astype(str)), "no real numbers"),
    (replaced(evs=lambda values: np.full(values.shape, None)), "no real numbers"),
    (replaced(evs=lambda values: [[0.1], [0.1, 0.2]]), "no array"),
    (replaced(evs=lambda values: values[:1]), r"shape \(1, 3\), expected \(2, 3\)"),
    (lambda results: [], "0 results for 1 PUBs"),
    (lambda results: 2 * results, "2 results for 1 PUBs"),
    (lambda results: [PubResult(DataBin())], "no real numbers: None"),
    (with_metadata(shots=80), "values from 80 shots, expected at least 90"),
    (with_metadata(shots=0), "values from 0 shots"),
    (with_metadata(shots="many"), "values from many shots"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_values_that_cannot_be_are_errors(change, message):
    inputs = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(BackendError, match=f"^Changed returned .*{message}"):
        program(Changed(change))(inputs, torch.zeros(0, dtype=torch.float64))
    later = program(Changed(lambda results: results))
    values = later(inputs, torch.zeros(0, dtype=torch.float64))
    later.estimator.change = change
    with pytest.raises(BackendError, match="Changed returned"):  # in the backward pass too
        values.sum().backward()


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_connector_on_a_users_own_estimator_checks_them_too(change, message):
    circuit, params = circuit_of()
    network = EstimatorQNN(
        circuit=circuit, observables=OPERATORS, input_params=params, estimator=Changed(change),
        default_precision=PRECISION,
    )  # fmt: skip
    with pytest.raises(BackendError, match="Changed returned"):
        TorchConnector(network)(torch.rand(3, 2))


def test_a_connector_that_leaves_all_to_the_network_checks_its_values():
    circuit, params = circuit_of()
    estimator = Changed(lambda results: [with_entry(5.0)([item])[0] for item in results])
    network = EstimatorQNN(
        circuit=circuit, observables=OPERATORS, input_params=params, estimator=estimator,
        gradient=SPSAEstimatorGradient(estimator, epsilon=0.1), default_precision=PRECISION,
    )  # fmt: skip
    layer = TorchConnector(network)
    assert layer._program is None
    with pytest.raises(BackendError, match=r"^Changed returned .* values that lie outside"):
        layer(torch.rand(3, 2))
    estimator.change = lambda results: results
    assert layer(torch.rand(3, 2)).shape == (3, 2)


@pytest.mark.parametrize(
    ("metadata", "of_results"),
    [
        ({"options": {"resilience": {"measure_mitigation": True}}}, {}),
        ({"resilience": {"zne_mitigation": True}}, {}),
        ({}, {"resilience": {"pec_mitigation": True}}),
        ({}, {"mitigated": True}),
    ],
)
def test_mitigated_values_are_kept_with_a_warning(metadata, of_results, caplog):
    def change(results):
        return with_metadata(**of_results)(with_entry(-1.8)(results))

    inputs = torch.rand(3, 2, dtype=torch.float64)
    made = program(Changed(change, metadata))
    with pytest.warns(MitigationWarning, match="outside their observables' bounds, and are kept"):
        values = made(inputs, torch.zeros(0))
    assert values[1, 0] == -1.8 and made.outside == 1
    assert re.search("Changed returned 1 of 6 values .* such as -1.8 .* mitigated, and kept", caplog.text)
    with pytest.raises(BackendError, match="not finite"):  # mitigation or not
        program(Changed(lambda found: with_entry(np.nan)(change(found)), metadata))(inputs, torch.zeros(0))


def test_the_warning_is_shown_once():
    made = program(Changed(lambda results: with_metadata(mitigated=True)(with_entry(-3.0)(results))))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(3):
            made(torch.rand(3, 2), torch.zeros(0))
    assert len(found) == 1 and made.outside == 3


@pytest.mark.parametrize("metadata", [None, [], {"options": None}, {"resilience": 1}, {"options": {"resilience": []}}])
def test_metadata_of_any_form_is_read(metadata):
    assert not is_mitigated(metadata)


def test_bounds_hold_for_every_state_and_are_reached(rng):
    operators = [
        *OPERATORS,
        SparsePauliOp(["II", "ZI"], [2.0, -1.0]),
        SparsePauliOp.from_list([(label, rng.normal()) for label in ("XX", "ZY", "IZ", "II")]),
    ]
    limits = bounds(ObservablesArray(operators))
    assert limits[:3].tolist() == [0.75, 1.0, 3.0]
    for seed in range(50):
        state = random_statevector(4, seed=seed)
        values = np.array([state.expectation_value(operator).real for operator in operators])
        assert not outside(values, limits, 0.0).any()
    assert bounds(ObservablesArray({"0+": 0.5, "ZI": -0.5})).tolist() == 1.0


@pytest.mark.parametrize("estimator", [TorchEstimator(seed=3), StatevectorEstimator(seed=3), None])
def test_what_estimators_return_at_their_precision_is_inside(estimator, rng):
    """At states whose values are at the bounds, where noise goes beyond them half of the time."""
    if estimator is None:
        estimator = BackendEstimatorV2(backend=pytest.importorskip("qiskit_aer").AerSimulator(seed_simulator=3))
    circuit, params = circuit_of()
    operators = [SparsePauliOp("ZZ", 4.0), SparsePauliOp("IZ", 0.1), SparsePauliOp(["II", "ZZ"])]
    made = PubProgram(circuit, operators, input_params=params, weight_params=[], estimator=estimator, precision=0.05)
    inputs = torch.zeros(200, 2, dtype=torch.float64)
    inputs[:, 0] = torch.from_numpy(rng.choice([0, np.pi], 200))
    assert made(inputs, torch.zeros(0)).shape == (200, 3)


def test_a_job_is_checked_as_a_whole(rng):
    circuit = circuit_of()[0]
    pub = EstimatorPub.coerce((circuit, [[op] for op in OPERATORS], rng.normal(size=(3, 2))), PRECISION)
    evs, stds = np.full((2, 3), 0.5), np.full((2, 3), 0.1)
    check_job([Values(evs, stds, shots=95)], [pub], "Job 7")
    check_job([Values(evs, stds * np.nan)], [pub], "Job 7")  # Runtime's, of a single randomization
    for values, message in [
        ([], "shapes"),
        ([Values(evs, stds[0])], "shapes"),
        ([Values(evs.T, stds.T)], "shapes"),
        ([Values(evs * np.nan, stds)], "6 of 6 values that are not finite"),
        ([Values(evs, -stds)], "standard errors below 0, such as -0.1"),
        ([Values(evs * 5, stds)], "outside"),
        ([Values(evs * 1j, stds)], "no real numbers"),
        ([Values(evs, stds, shots=50)], "from 50 shots"),
    ]:
        with pytest.raises(BackendError, match=rf"^Job 7 returned.*{message}"):
            check_job(values, [pub], "Job 7")
    with pytest.warns(MitigationWarning):
        check_job([Values(evs * 5, stds, mitigated=True)], [pub], "Job 7")
