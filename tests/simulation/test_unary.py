"""Unary circuits: pyramids of RBS as orthogonal matrices."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator, Statevector

from qiskit_qattn import QuantumHead, attention_circuit
from qiskit_qattn.errors import CircuitError, EncodingError
from qiskit_qattn.library.unary import butterfly, butterfly_ansatz, pyramid, pyramid_ansatz, rbs, unary_encoding
from qiskit_qattn.simulation.unary import Rotations, unary_angles


def test_an_rbs_turns_the_states_with_a_single_1_and_no_others():
    circuit, angle = QuantumCircuit(2), Parameter("t")
    rbs(circuit, angle, 0, 1)
    c, s = math.cos(0.3), math.sin(0.3)
    expected = [[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(Operator(circuit.assign_parameters([0.3])).data, expected, atol=1e-15)


@pytest.mark.parametrize("num_qubits", range(1, 9))
def test_a_pyramid_has_all_its_gates_in_layers_of_disjoint_pairs(num_qubits):
    layers = pyramid(num_qubits)
    assert len(layers) == max(0, 2 * num_qubits - 3)
    assert sum(map(len, layers)) == num_qubits * (num_qubits - 1) // 2
    assert all(b - a == 2 for layer in layers for (a, _), (b, _) in pairwise(layer))
    assert all(0 <= i < num_qubits - 1 and j == i + 1 for layer in layers for i, j in layer)


@pytest.mark.parametrize("num_qubits", range(1, 10))
def test_a_butterfly_relates_all_qubits_in_the_fewest_layers(num_qubits):
    layers = butterfly(num_qubits)
    assert len(layers) == math.ceil(math.log2(num_qubits))
    if num_qubits in (2, 4, 8):
        assert sum(map(len, layers)) == num_qubits // 2 * len(layers)
    reached = np.eye(num_qubits, dtype=bool)
    for layer in layers:
        qubits = [qubit for pair in layer for qubit in pair]
        assert len(set(qubits)) == len(qubits) and all(0 <= i < j < num_qubits for i, j in layer)
        for i, j in layer:
            reached[[i, j]] = reached[i] | reached[j]
    assert num_qubits not in (1, 2, 4, 8) or reached.all()


@pytest.mark.parametrize(("num_qubits", "reps"), [(1, 1), (2, 1), (3, 0), (3, 2), (5, 1)])
@pytest.mark.parametrize(("layout", "build"), [(pyramid, pyramid_ansatz), (butterfly, butterfly_ansatz)])
def test_the_matrix_is_the_circuit_on_unary_states(layout, build, num_qubits, reps, rng):
    ansatz = build(num_qubits, reps)
    weights = rng.uniform(-np.pi, np.pi, (2, 3, ansatz.num_parameters))
    matrices = Rotations(num_qubits, layout(num_qubits) * reps).double()(torch.from_numpy(weights)).mT.numpy()
    unary = 2 ** np.arange(num_qubits)
    for matrix, row in zip(matrices.reshape(-1, num_qubits, num_qubits), weights.reshape(6, -1), strict=True):
        order = sorted(ansatz.parameters, key=lambda p: p.index)
        full = Operator(ansatz.assign_parameters(dict(zip(order, row, strict=True)))).data
        np.testing.assert_allclose(matrix, full[np.ix_(unary, unary)], atol=1e-14)
        np.testing.assert_allclose(full[0], np.eye(2**num_qubits)[0], atol=1e-14)  # the reference stays
        assert np.linalg.det(matrix) == pytest.approx(1)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 6])
def test_the_loader_prepares_the_unit_vector_beside_its_reference(num_qubits, rng):
    encoding = unary_encoding(num_qubits)
    vectors = rng.normal(size=(4, num_qubits))
    vectors[1, : num_qubits - 1] = 0  # the last alone
    vectors[2, 1:] = 0  # the first alone
    vectors[3, num_qubits // 2] = 0
    vectors[3] *= 1e-25
    for vector, angles in zip(vectors, unary_angles(torch.from_numpy(vectors)).numpy(), strict=True):
        state = Statevector(encoding.circuit.assign_parameters(dict(zip(encoding.params, angles, strict=True)))).data
        expected = np.zeros(2**num_qubits)
        norm = np.linalg.norm(vector)
        expected[2 ** np.arange(num_qubits)] = vector / norm if norm else np.eye(num_qubits)[0]
        expected[0] = 1
        np.testing.assert_allclose(state, expected / math.sqrt(2), atol=1e-14)


def test_zero_is_loaded_as_the_first_state_without_a_gradient():
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    angles = unary_angles(x)
    (slope,) = torch.autograd.grad(angles.sum(), x)
    assert angles.tolist() == [[math.pi / 2, 0, 0, 0]] * 2 and not slope.any()
    with pytest.raises(EncodingError, match="NaN or infinity"):
        unary_angles(torch.tensor([[1.0, math.nan]]))


def test_angles_and_values_have_their_derivatives():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unary_angles, x)
    head = QuantumHead(attention_circuit("orthogonal", 4), (2,)).double()

    def call(x, weight):
        return torch.func.functional_call(head, {"weight": weight}, x)

    assert torch.autograd.gradcheck(call, (x, head.weight))


@pytest.mark.parametrize("num_observables", [3, 4, 30])
def test_any_observables_are_those_of_the_state(num_observables, rng):
    circuit = attention_circuit("orthogonal", 4, num_observables=num_observables)
    head = QuantumHead(circuit).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    found = (head(x) / head.gain).detach().numpy()
    for row, angles in zip(found, unary_angles(x).tolist(), strict=True):
        bound = dict(zip(circuit.input_params, angles, strict=True))
        bound |= dict(zip(circuit.weight_params, head.weight.tolist(), strict=True))
        state = Statevector(circuit.circuit.assign_parameters(bound))
        expected = [state.expectation_value(op).real for op in circuit.observables]
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_values_are_an_orthogonal_matrix_of_the_unit_vector_at_sizes_without_states():
    head = QuantumHead(attention_circuit("orthogonal", 40), gain=40**-0.5).double()
    assert (head.gain - 1).abs().max() < 1e-12 and len(head.circuit.labels) == 40
    x = torch.randn(7, 40, dtype=torch.float64)
    y = head(x)
    assert (y.norm(dim=-1) - 1).abs().max() < 1e-12
    torch.testing.assert_close(y @ y.T, (unit := x / x.norm(dim=-1, keepdim=True)) @ unit.T)
    torch.testing.assert_close(head(5 * x), y)


@pytest.mark.parametrize("num_qubits", [0, 129])
def test_sizes_are_limited(num_qubits):
    with pytest.raises(CircuitError, match=f"between 1 and 128, got {num_qubits}"):
        unary_encoding(num_qubits)


@pytest.mark.parametrize("name", ["orthogonal", "butterfly"])
def test_samples_have_signs_within_shot_noise(name):
    head = QuantumHead(attention_circuit(name, 4)).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    exact = head(x).detach()
    head.to_backend("aer?shots=10000&seed=3")
    assert ((head(x) - exact) / head.gain).abs().max() < 6 / 100  # six standard errors


def test_another_ansatz_on_unary_vectors_is_refused():
    from qiskit_qattn.library.ansatzes import angle_ansatz
    from qiskit_qattn.library.attention_circuit import AttentionCircuit

    other = pyramid_ansatz(3)
    other.x(0)
    for ansatz in (angle_ansatz(3), other):
        with pytest.raises(CircuitError, match="pyramid_ansatz or butterfly_ansatz only"):
            QuantumHead(AttentionCircuit("mine", unary_encoding(3), ansatz, ("IIX",)))


def test_matrix_product_states_give_the_same_values():
    head = QuantumHead(attention_circuit("orthogonal", 18))
    x = torch.randn(2, 18)
    exact = head(x).detach()
    head.to_backend("statevector?method=mps")
    assert ((head(x) - exact) / head.gain).abs().max() < 1e-6
