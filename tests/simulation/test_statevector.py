"""The exact engine equals Qiskit's Statevector, in values and gradients."""

import copy
import pickle

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import QFTGate, UnitaryGate, get_standard_gate_name_mapping
from qiskit.circuit.random import random_circuit
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector, random_unitary
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_qattn.errors import CircuitError, EncodingError
from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.statevector import StatevectorProgram

FEWEST = {"compound": 2}  # qubits of a circuit that needs more than one
CASES = [(name, n) for name in list_circuits() for n in range(FEWEST.get(name, 1), 9)]


def built(name, num_qubits):
    """A circuit of the catalog with enough observables for more than one basis where they exist."""
    num_qubits = max(num_qubits, FEWEST.get(name, 1))
    try:
        return attention_circuit(name, num_qubits, num_observables=min(2**num_qubits + 2, 40))
    except CircuitError:
        return attention_circuit(name, num_qubits)


def draw(circuit, rng, batch=3, dtype=torch.float64):
    """Random inputs (angles), the vectors they encode for amplitude circuits, and weights."""
    weights = torch.from_numpy(rng.uniform(-np.pi, np.pi, len(circuit.weight_params))).to(dtype)
    if circuit.encoding.kind == "amplitude":
        vectors = torch.from_numpy(rng.normal(size=(batch, 2**circuit.num_qubits))).to(dtype)
        return amplitude_angles(vectors.double()).to(dtype), vectors, weights
    return torch.from_numpy(rng.uniform(-np.pi, np.pi, (batch, len(circuit.input_params)))).to(dtype), None, weights


def reference(circuit, inputs, weights):
    """Expectations by Qiskit's Statevector."""
    rows = []
    for row in inputs.double().numpy():
        values = dict(zip(circuit.input_params, row, strict=True))
        values |= dict(zip(circuit.weight_params, weights.double().numpy(), strict=True))
        state = Statevector(circuit.circuit.assign_parameters(values))
        rows.append([state.expectation_value(op).real for op in circuit.observables])
    return np.array(rows)


def program_of(circuit):
    return StatevectorProgram(
        circuit.circuit, circuit.observables, input_params=circuit.input_params, weight_params=circuit.weight_params
    )


def direct_program_of(circuit):
    return StatevectorProgram(
        circuit.ansatz, circuit.observables, weight_params=circuit.weight_params, input_kind="amplitude"
    )


@pytest.mark.parametrize(("name", "num_qubits"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_catalog_equals_statevector(name, num_qubits, dtype, tolerance, rng):
    circuit = built(name, num_qubits)
    inputs, vectors, weights = draw(circuit, rng, dtype=dtype)
    expected = reference(circuit, inputs, weights)
    values = program_of(circuit).to(dtype)(inputs, weights)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)
    if vectors is not None:
        values = direct_program_of(circuit).to(dtype)(vectors, weights)
        exact = reference(circuit, amplitude_angles(vectors.double()), weights)
        np.testing.assert_allclose(values, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize("num_qubits", [1, 2, 3])
def test_gradcheck(name, num_qubits, rng):
    circuit = built(name, num_qubits)
    inputs, vectors, weights = draw(circuit, rng, batch=2)
    assert torch.autograd.gradcheck(
        program_of(circuit).double(), (inputs.requires_grad_(), weights.requires_grad_()), atol=1e-6
    )
    if vectors is not None:
        direct = direct_program_of(circuit).double()
        assert torch.autograd.gradcheck(direct, (vectors.requires_grad_(), weights), atol=1e-6)


@pytest.mark.parametrize("name", list_circuits())
def test_values_and_gradients_equal_estimator_qnn(name, rng):
    circuit = built(name, 2)
    inputs, _, weights = draw(circuit, rng, batch=2)
    network = EstimatorQNN(
        circuit=circuit.circuit,
        observables=list(circuit.observables),
        input_params=circuit.input_params,
        weight_params=circuit.weight_params,
        estimator=StatevectorEstimator(),
        input_gradients=True,
        default_precision=0.0,
    )
    values = network.forward(inputs.numpy(), weights.numpy())
    input_grads, weight_grads = network.backward(inputs.numpy(), weights.numpy())
    ours = program_of(circuit).double()
    np.testing.assert_allclose(ours(inputs, weights), values, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(ours, (inputs, weights))
    np.testing.assert_allclose(jacobian[1], weight_grads, atol=1e-10)
    for b in range(2):
        np.testing.assert_allclose(jacobian[0][b, :, b], input_grads[b], atol=1e-10)


@pytest.mark.parametrize("name", ["qisa", "qisa-v2"])
def test_gradients_through_the_circuits_angles_are_the_direct_ones(name, rng):
    circuit = built(name, 3)
    _, vectors, weights = draw(circuit, rng, batch=4)
    left, right = vectors.clone().requires_grad_(), vectors.clone().requires_grad_()
    direct_program_of(circuit).double()(left, weights).square().sum().backward()
    program_of(circuit).double()(amplitude_angles(right), weights).square().sum().backward()
    np.testing.assert_allclose(left.grad, right.grad, atol=1e-10)


def _gates():
    for name, gate in get_standard_gate_name_mapping().items():
        if name not in ("measure", "reset", "delay", "global_phase"):
            yield pytest.param(gate, id=name)


@pytest.mark.parametrize("gate", list(_gates()))
@pytest.mark.parametrize("data", [False, True], ids=["weights", "data"])
def test_every_standard_gate(gate, data, rng):
    n = max(gate.num_qubits, 2)
    params = ParameterVector("p", len(gate.params))
    circuit = QuantumCircuit(n)
    for q in range(n):
        circuit.u(0.3 + q, 0.5, 0.7 * q, q)
    middle = gate.to_mutable()
    middle.params = [2 * p - 0.1 for p in params]
    circuit.append(middle, range(gate.num_qubits))
    for q in range(n):
        circuit.u(0.2, 0.1 + q, 0.9, q)
    observables = [SparsePauliOp(label) for label in ("Z" * n, "X" * n, "Y" + "X" * (n - 1), "I" * (n - 1) + "Y")]
    values = rng.normal(size=len(params))
    state = Statevector(circuit.assign_parameters(values))
    expected = [state.expectation_value(op).real for op in observables]
    names = {"input_params" if data else "weight_params": list(params)}
    program = StatevectorProgram(circuit, observables, **names).double()
    x, w = torch.from_numpy(values)[None], torch.from_numpy(values)
    result = program(x, w[:0]) if data else program(torch.zeros(1, 0, dtype=torch.float64), w)
    np.testing.assert_allclose(result[0], expected, atol=1e-12)


@pytest.mark.parametrize("num_qubits", [1, 3, 6, 9])
@pytest.mark.parametrize("seed", range(4))
def test_random_circuits(num_qubits, seed, rng):
    circuit = random_circuit(num_qubits, 6, max_operands=min(4, num_qubits), seed=seed)
    observables = [SparsePauliOp(["".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(3)], [0.5, -1.0, 2.0])]
    program = StatevectorProgram(circuit, observables).double()
    expected = Statevector(circuit).expectation_value(observables[0]).real
    value = program(torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    assert float(value) == pytest.approx(expected, abs=1e-12)


def test_repeated_and_expression_parameters(rng):
    x, w = ParameterVector("x", 2), ParameterVector("w", 2)
    circuit = QuantumCircuit(3)
    circuit.ry(x[0], 0)
    circuit.rx(x[0] * w[0] + x[1], 1)
    circuit.cry(w[1] ** 2, 0, 1)
    circuit.rzz(2 * x[1] - 1, 1, 2)
    circuit.ry(x[0].sin() + w[1].exp(), 2)
    circuit.ccx(0, 1, 2)
    circuit.rx(w[0] / 2, 0)
    observables = [SparsePauliOp(["ZIX", "IYZ"], [1.5, -0.5]), SparsePauliOp("III"), SparsePauliOp("XXX")]
    program = StatevectorProgram(circuit, observables, input_params=list(x), weight_params=list(w)).double()
    inputs, weights = torch.from_numpy(rng.normal(size=(3, 2))), torch.from_numpy(rng.normal(size=2))
    for row, values in zip(inputs.numpy(), program(inputs, weights).numpy(), strict=True):
        bound = circuit.assign_parameters(
            {x[0]: row[0], x[1]: row[1], w[0]: weights[0].item(), w[1]: weights[1].item()}
        )
        expected = [Statevector(bound).expectation_value(op).real for op in observables]
        np.testing.assert_allclose(values, expected, atol=1e-12)
    assert torch.autograd.gradcheck(program, (inputs.requires_grad_(), weights.requires_grad_()))


def test_composite_gates_go_through_their_definition(rng):
    circuit = QuantumCircuit(4)
    circuit.append(QFTGate(4), range(4))
    circuit.append(UnitaryGate(random_unitary(8, seed=rng)), [0, 2, 3])
    circuit.append(UnitaryGate(random_unitary(2, seed=rng)), [1])
    circuit.h(0)
    circuit.append(QuantumCircuit(2, name="inner").to_gate().control(1), [0, 1, 2])
    circuit.cx(0, 1, ctrl_state=0)
    circuit.barrier()
    observable = SparsePauliOp(["XYZZ", "ZIIY"], [1, 2])
    expected = Statevector(circuit).expectation_value(observable).real
    program = StatevectorProgram(circuit, [observable]).double()
    value = program(torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    assert float(value) == pytest.approx(expected, abs=1e-12)


def test_stacked_heads_equal_one_by_one(rng):
    circuit = built("qisa", 3)
    program = direct_program_of(circuit)
    vectors, weights = torch.randn(5, 7, 8), torch.randn(5, len(circuit.weight_params))
    together = program(vectors, weights)
    for h in range(5):
        torch.testing.assert_close(together[h], program(vectors[h], weights[h]))
    shared = program(vectors[:1], weights)  # one input, five heads
    torch.testing.assert_close(shared[2], program(vectors[0], weights[2]))


def test_probabilities_are_a_distribution_a_basis(rng):
    circuit = attention_circuit("zz", 3, observables=["ZZZ", "XXX", "IYY"])
    program = StatevectorProgram(
        circuit.circuit,
        circuit.observables,
        input_params=circuit.input_params,
        weight_params=circuit.weight_params,
        all_outcomes=True,
    ).double()
    inputs, _, weights = draw(circuit, rng)
    np.testing.assert_allclose(program(inputs, weights), reference(circuit, inputs, weights), atol=1e-12)
    probabilities = program.probabilities(inputs, weights).reshape(3, len(program.bases), 8)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-12)


def test_observables_are_bounded_by_unitarity(rng):
    for name in list_circuits():
        circuit = built(name, 4)
        inputs, _, weights = draw(circuit, rng, batch=50)
        assert program_of(circuit).double()(inputs, weights).abs().max() <= 1 + 1e-12


def test_the_unitary_is_kept_until_weights_change(rng):
    circuit = built("qisa", 2)
    program = direct_program_of(circuit)
    weights = torch.randn(len(circuit.weight_params))
    vectors = torch.randn(4, 4)
    with torch.no_grad():
        first = program.fused(weights)
        assert program.fused(weights.clone()) is first
        before = program(vectors, weights)
        weights.data[0] += 1.0
        assert program.fused(weights) is not first
        assert not torch.allclose(program(vectors, weights), before)
    program.double()
    with torch.no_grad():
        assert program.fused(weights)[0].dtype == torch.float64


def test_precision_survives_a_round_trip_of_dtypes(rng):
    circuit = built("zz", 3)
    inputs, _, weights = draw(circuit, rng)
    program = program_of(circuit).half().float().double()
    np.testing.assert_allclose(program(inputs, weights), reference(circuit, inputs, weights), atol=1e-12)


def test_programs_hold_no_state_and_can_be_copied(rng):
    circuit = built("qsann", 2)
    inputs, _, weights = draw(circuit, rng, dtype=torch.float32)
    program = program_of(circuit)
    assert program.state_dict() == {}
    for other in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        torch.testing.assert_close(other(inputs, weights), program(inputs, weights))


def test_real_circuits_skip_imaginary_parts(rng):
    w = ParameterVector("w", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(w[0], 0)
    circuit.cx(0, 1)
    circuit.ry(w[1], 1)
    real = StatevectorProgram(circuit, [SparsePauliOp("ZX")], weight_params=list(w), input_kind="amplitude")
    assert real.unitaries.real
    circuit.rx(w[0], 0)
    assert not StatevectorProgram(
        circuit, [SparsePauliOp("ZX")], weight_params=list(w), input_kind="amplitude"
    ).unitaries.real


def test_circuits_too_large_for_unitaries_form_none(rng):
    circuit = built("zz", 11)
    inputs, _, weights = draw(circuit, rng, dtype=torch.float32)
    program = program_of(circuit)
    assert program.fused(weights) == ()
    torch.testing.assert_close(program(inputs, weights, ()), program(inputs, weights))


def test_autocast_leaves_the_simulation_in_float32(rng):
    circuit = built("zz", 3)
    inputs, _, weights = draw(circuit, rng, dtype=torch.float32)
    program = program_of(circuit)
    expected = program(inputs, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = program(inputs, weights)
    torch.testing.assert_close(inside, expected)


def test_operators_that_are_no_pauli_sums_are_taken(rng):
    hermitian = random_unitary(4, seed=rng).data
    operator = Operator(hermitian + hermitian.conj().T)
    circuit = random_circuit(2, 3, seed=5)
    value = StatevectorProgram(circuit, [operator]).double()(
        torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    )
    assert float(value) == pytest.approx(Statevector(circuit).expectation_value(operator).real, abs=1e-12)


def test_what_cannot_be_simulated_is_an_error():
    measured = QuantumCircuit(1, 1)
    measured.measure(0, 0)
    measured.x(0)
    with pytest.raises(CircuitError, match="'measure'"):
        StatevectorProgram(measured, [SparsePauliOp("Z")])
    with pytest.raises(CircuitError, match="at most 20 qubits, got 21"):
        StatevectorProgram(QuantumCircuit(21), [SparsePauliOp("Z" * 21)])
    with pytest.raises(CircuitError, match=r"\['a'\] are neither"):
        free = QuantumCircuit(1)
        free.rx(Parameter("a"), 0)
        StatevectorProgram(free, [SparsePauliOp("Z")])
    with pytest.raises(CircuitError, match="must match"):
        StatevectorProgram(QuantumCircuit(2), [SparsePauliOp("Z")])
    with pytest.raises(CircuitError, match="Hermitian"):
        StatevectorProgram(QuantumCircuit(1), [SparsePauliOp("Z", 1j)])
    with pytest.raises(CircuitError, match="at least one"):
        StatevectorProgram(QuantumCircuit(1), [])


def test_nan_in_a_vector_is_an_error():
    program = direct_program_of(attention_circuit("qisa", 2))
    vectors = torch.randn(3, 4)
    vectors[1, 2] = torch.nan
    with pytest.raises(EncodingError, match="NaN or infinity"):
        program(vectors, torch.zeros(6))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu(rng):
    circuit = built("qsann", 4)
    inputs, _, weights = draw(circuit, rng, dtype=torch.float32)
    program = program_of(circuit)
    expected = program(inputs, weights)
    torch.testing.assert_close(program.cuda()(inputs.cuda(), weights.cuda()).cpu(), expected, atol=1e-5, rtol=0)
