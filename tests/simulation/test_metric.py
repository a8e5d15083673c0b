"""The metric of a circuit's weights equals Qiskit's from the definition, and has the properties of a metric."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import n_local
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.gradients import LinCombQGT
from qiskit_machine_learning.gradients.qfi import QFI

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation import metric
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.metric import fubini_study
from qiskit_qattn.simulation.statevector import StateProgram
from qiskit_qattn.simulation.unary import OrthogonalProgram, unary_angles

STEP = 1e-3


def program_of(circuit):
    unary = circuit.encoding.kind == "unary"
    return (OrthogonalProgram if unary else StateProgram)(circuit).double()


def drawn(circuit, rng, *shape):
    """Random inputs, as the engine and as Qiskit's circuit take them."""
    size = 2**circuit.num_qubits if circuit.encoding.kind == "amplitude" else circuit.encoding.num_features
    inputs = torch.from_numpy(rng.normal(size=(*shape, size)))
    if circuit.encoding.kind == "amplitude":
        return inputs, amplitude_angles(inputs)
    return inputs, unary_angles(inputs) if circuit.encoding.kind == "unary" else inputs


def angles(circuit, rng, *shape):
    return torch.from_numpy(rng.uniform(-np.pi, np.pi, (*shape, len(circuit.weight_params))))


def reference(circuit, row, weights):
    r"""The metric of one input from Qiskit's Statevector: derivatives by central differences of fourth order."""

    def state(values):
        bound = dict(zip(circuit.input_params, row.tolist(), strict=True))
        bound |= dict(zip(circuit.weight_params, values, strict=True))
        return Statevector(circuit.circuit.assign_parameters(bound)).data

    weights = weights.numpy()
    shifts = STEP * np.eye(len(weights))
    near = [state(weights + d) - state(weights - d) for d in shifts]
    far = [state(weights + 2 * d) - state(weights - 2 * d) for d in shifts]
    tangents, here = (8 * np.array(near) - np.array(far)) / (12 * STEP), state(weights)
    along = tangents @ here.conj()  # ⟨ψ|∂ψ⟩
    return (tangents.conj() @ tangents.T - np.outer(along.conj(), along)).real


@pytest.mark.parametrize("name", list_circuits())
def test_it_is_the_mean_of_qiskits_over_the_inputs(name, rng):
    circuit = attention_circuit(name, 3)
    inputs, rows = drawn(circuit, rng, 3)
    weights = angles(circuit, rng)
    expected = np.mean([reference(circuit, row, weights) for row in rows], 0)
    assert np.abs(fubini_study(program_of(circuit), inputs, weights).numpy() - expected).max() < 1e-10


def test_it_is_a_quarter_of_qiskit_machine_learnings_fisher_information(rng):
    ansatz = n_local(2, ["ry", "rz"], "cx", reps=1)
    circuit = AttentionCircuit.from_circuit(ansatz, ["ZZ"], [], list(ansatz.parameters))
    weights = angles(circuit, rng)
    fisher = QFI(LinCombQGT(StatevectorEstimator())).run([ansatz], [weights.tolist()]).result().qfis[0]
    metric = fubini_study(program_of(circuit), torch.zeros(1, 0, dtype=torch.float64), weights)
    assert np.abs(4 * metric.numpy() - fisher).max() < 1e-10


def of_circuit(circuit, weights, params):
    """The metric of a circuit without data."""
    program = StateProgram(AttentionCircuit.from_circuit(circuit, ["Z" * circuit.num_qubits], [], params)).double()
    weights = torch.as_tensor(weights, dtype=torch.float64)
    return fubini_study(program, weights.new_zeros(1, 0), weights).numpy()


def test_published_values_of_one_qubit():
    """Of H, RZ and RX, in the tests of Qiskit's QFI."""
    a, b = ParameterVector("a", 2)
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.rz(a, 0)
    circuit.rx(b, 0)
    for angle, expected in ((np.pi / 4, 0.5), (np.pi, 0), (np.pi / 2, 1)):
        assert 4 * of_circuit(circuit, [angle, 0.1], [a, b]) == pytest.approx(np.diag([1, expected]), abs=1e-12)


def test_published_values_of_two_layers():
    """Of the example of Stokes et al., as PennyLane's tutorial on the natural gradient prints its two blocks."""
    w, circuit = ParameterVector("w", 4), QuantumCircuit(3)
    for qubit, angle in enumerate((np.pi / 4, np.pi / 3, np.pi / 7)):
        circuit.ry(angle, qubit)
    circuit.rz(w[0], 0)
    circuit.rz(w[1], 1)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.ry(w[2], 1)
    circuit.rx(w[3], 2)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    found = of_circuit(circuit, [0.432, -0.123, 0.543, 0.233], list(w))
    assert found[:2, :2] == pytest.approx(np.diag([0.125, 0.1875]), abs=1e-12)
    second = np.array([[0.24973433, -0.01524701], [-0.01524701, 0.20293623]])
    assert found[2:, 2:] == pytest.approx(second, abs=1e-8)


def test_rotations_about_y_of_separate_qubits_are_a_quarter_of_the_identity(rng):
    w, circuit = ParameterVector("w", 3), QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(w[qubit], qubit)
    assert of_circuit(circuit, rng.normal(size=3), list(w)) == pytest.approx(np.eye(3) / 4, abs=1e-12)


def test_angles_that_only_turn_the_phase_have_no_length():
    w, circuit = ParameterVector("w", 2), QuantumCircuit(2)
    circuit.rz(w[0], 0)
    circuit.rzz(w[1], 0, 1)
    assert of_circuit(circuit, [0.3, 0.7], list(w)) == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_it_transforms_as_a_metric_under_other_parameters(rng):
    """With w = A u, the metric of u is Aᵀ g A; here each angle is a combination of parameters, and gates share them."""
    w, u = ParameterVector("w", 4), ParameterVector("u", 3)
    plain = QuantumCircuit(2)
    for qubit in range(2):
        plain.ry(w[qubit], qubit)
    plain.cx(0, 1)
    for qubit in range(2):
        plain.rx(w[2 + qubit], qubit)
    change, values = rng.normal(size=(4, 3)), rng.normal(size=3)
    angles = [sum(float(c) * param for c, param in zip(row, u, strict=True)) for row in change]
    other = plain.assign_parameters(dict(zip(w, angles, strict=True)))
    expected = change.T @ of_circuit(plain, change @ values, list(w)) @ change
    assert of_circuit(other, values, list(u)) == pytest.approx(expected, abs=1e-12)


def test_it_is_the_second_order_of_the_infidelity(rng):
    circuit = attention_circuit("zz", 3)
    program, weights = program_of(circuit), angles(circuit, rng)
    inputs, _ = drawn(circuit, rng, 5)
    step = 1e-4 * torch.from_numpy(rng.normal(size=len(weights)))
    one, other = program.states(inputs, weights), program.states(inputs, weights + step)
    infidelity = 1 - (one.conj() * other).sum(-1).abs().square().mean()
    assert float(infidelity) == pytest.approx(float(step @ fubini_study(program, inputs, weights) @ step), rel=1e-3)


@pytest.mark.parametrize("name", ["qisa-v3", "orthogonal"])
def test_each_head_has_a_metric_of_its_own(name, rng):
    circuit = attention_circuit(name, 3)
    program, weights = program_of(circuit), angles(circuit, rng, 2, 3)
    inputs, _ = drawn(circuit, rng, 2, 3, 4)
    together = fubini_study(program, inputs, weights)
    assert together.shape == (2, 3, weights.shape[-1], weights.shape[-1])
    for head in np.ndindex(2, 3):
        assert torch.allclose(together[head], fubini_study(program, inputs[head], weights[head]), atol=1e-12)


def test_in_single_precision_no_eigenvalue_is_below_zero_but_by_rounding(rng):
    circuit = attention_circuit("qisa-v3", 4)
    inputs, _ = drawn(circuit, rng, 3)  # fewer states than angles: the metric is singular
    found = fubini_study(StateProgram(circuit), inputs.float(), angles(circuit, rng).float())
    values = torch.linalg.eigvalsh(found.double())
    assert values[0] > -1e-7
    assert values[-1] <= len(values) / 4


def test_derivatives_in_parts_are_the_same(rng, monkeypatch):
    circuit = attention_circuit("angle", 4)
    inputs, _ = drawn(circuit, rng, 6)
    weights = angles(circuit, rng)
    whole = fubini_study(program_of(circuit), inputs, weights)
    monkeypatch.setattr(metric, "_LARGEST", 6 * 16 * 2)  # the derivatives of two angles
    assert torch.allclose(fubini_study(program_of(circuit), inputs, weights), whole, atol=1e-14)
