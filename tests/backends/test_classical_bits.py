"""Classical bits and control flow on estimators that get PUBs: dropped at the end, unrolled where known, or refused."""

import re

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, Parameter, QuantumRegister
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_qattn import TorchConnector, compile_qnn, get_backend
from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.errors import CircuitError

pytest.importorskip("qiskit_aer")

X, W = Parameter("x"), Parameter("w")
OBSERVABLES = [SparsePauliOp("ZZ"), SparsePauliOp("XI")]


def plain():
    circuit = QuantumCircuit(QuantumRegister(2, "q"))
    circuit.ry(X, 0)
    circuit.cx(0, 1)
    circuit.ry(W, 1)
    return circuit


def measured():
    circuit = plain()
    circuit.measure_all()
    return circuit


def measured_one_by_one():
    circuit = plain()
    circuit.add_register(ClassicalRegister(3))
    circuit.measure(0, 2)
    circuit.barrier()
    circuit.measure(1, 0)
    return circuit


def called_barrier():
    """A gate that is called barrier, before a measurement."""
    circuit = plain()
    gate = QuantumCircuit(1, 0, name="barrier")
    gate.h(0)
    circuit.append(gate.to_instruction(), [1])
    circuit.measure_all()
    return circuit


def looped():
    circuit, turn = QuantumCircuit(2), Parameter("turn")
    with circuit.for_loop(range(1, 3), turn):
        circuit.ry(turn * X, 0)
        circuit.cx(0, 1)
        circuit.rx(W, 1)
    return circuit


def measured_early():
    circuit = plain()
    circuit.add_register(ClassicalRegister(1))
    circuit.measure(0, 0)
    circuit.ry(W, 0)
    return circuit


def branched():
    circuit = plain()
    circuit.add_register(ClassicalRegister(1))
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.ry(W, 1)
    return circuit


def network(circuit, estimator, **options):
    params = {"input_params": [X], "weight_params": [W], "observables": OBSERVABLES, "input_gradients": True}
    return EstimatorQNN(circuit=circuit, estimator=estimator, **params, **options)


@pytest.mark.parametrize("make", [measured, measured_one_by_one, called_barrier, looped])
@pytest.mark.parametrize("text", ["aer", "aer:matrix_product_state", "density_matrix?noise=depolarizing&p1=0&p2=0"])
def test_what_is_known_before_the_run_has_its_values(make, text, rng):
    circuit = make()
    qnn = network(circuit, get_backend(text).estimator, default_precision=0.0)
    compiled = compile_qnn(qnn)
    assert compiled.engine == ("density_matrix" if text.startswith("density") else "pub"), compiled.reason
    connector = TorchConnector(qnn, initial_weights=[0.8]).double()
    inputs = torch.from_numpy(rng.normal(size=(3, 1)))
    gates = unroll(circuit)[0]
    assert not gates.num_clbits
    for row, found in zip(inputs.tolist(), connector(inputs).tolist(), strict=True):
        bound = circuit.assign_parameters({X: row[0], W: 0.8})
        if make is looped:
            bound = bound.copy_empty_like()
            for turn in (1, 2):
                bound.ry(turn * row[0], 0)
                bound.cx(0, 1)
                bound.rx(0.8, 1)
        else:
            bound.data = [item for item in bound.data if not item.clbits]
        state = Statevector(bound)
        expected = [state.expectation_value(operator).real for operator in OBSERVABLES]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("make", "named"), [(measured_early, "'measure'"), (branched, "'measure'|'if_else'")])
@pytest.mark.parametrize("estimator", ["statevector?shots=100", "aer", "aer?shots=100", "aer:matrix_product_state"])
def test_what_only_the_run_knows_is_left_to_the_network_with_a_reason(make, named, estimator):
    compiled = compile_qnn(network(make(), get_backend(estimator).estimator, default_precision=0.0))
    assert (compiled.engine, compiled.program) == ("network", None)
    assert re.match(f"Instruction ({named}) on qubits", compiled.reason)
    with pytest.raises(CircuitError, match=named):
        unroll(make())


def test_a_network_with_a_shot_estimator_and_measurements_is_sampled():
    qnn = network(measured(), StatevectorEstimator(seed=1), default_precision=0.02)
    assert compile_qnn(qnn).engine == "pub"
    connector = TorchConnector(qnn, initial_weights=[0.8])
    values = connector(torch.tensor([[0.3]]))
    exact = Statevector(plain().assign_parameters({X: 0.3, W: 0.8}))
    expected = [exact.expectation_value(operator).real for operator in OBSERVABLES]
    np.testing.assert_allclose(values[0].detach(), expected, atol=0.1)


def test_the_layout_of_a_transpiled_circuit_is_kept():
    fake = pytest.importorskip("qiskit_ibm_runtime.fake_provider").FakeManilaV2()
    isa = generate_preset_pass_manager(1, backend=fake, initial_layout=[3, 2]).run(measured())
    gates, _, _ = unroll(isa)
    assert gates.layout == isa.layout and not gates.num_clbits
    assert "measure" not in gates.count_ops()
