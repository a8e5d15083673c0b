"""States with two 1s: the matrix loader, compounds of rotations, and what reads them with signs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Operator, Statevector

import qiskit_qattn as qa
from qiskit_qattn.errors import CircuitError, EncodingError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.compound import (
    choose_pairs,
    matrix_encoding,
    matrix_qubits,
    matrix_sides,
    pair_amplitude,
    pair_of,
)
from qiskit_qattn.library.observables import measurement_bases
from qiskit_qattn.library.unary import butterfly_ansatz, pyramid, pyramid_ansatz
from qiskit_qattn.nn.controls import UnitLinear
from qiskit_qattn.simulation.compound import CompoundProgram, matrix_angles
from qiskit_qattn.simulation.unary import Rotations

SIZES = [2, 3, 4, 5, 6]


def pair_states(num_qubits: int) -> list[int]:
    return [2**i + 2**j for i, j in itertools.combinations(range(num_qubits), 2)]


@pytest.mark.parametrize("num_qubits", SIZES)
def test_the_loader_prepares_the_matrix_beside_its_reference(num_qubits: int, rng: np.random.Generator) -> None:
    encoding, (rows, columns) = matrix_encoding(num_qubits), matrix_sides(num_qubits)
    vectors = rng.normal(size=(5, rows * columns))
    vectors[1, :columns] = 0  # a row of zeros
    vectors[2, 1:] = 0  # one entry alone
    vectors[3, :-1] = 0
    vectors[4] *= 1e-25
    for vector, angles in zip(vectors, matrix_angles(torch.from_numpy(vectors)).tolist(), strict=True):
        state = Statevector(encoding.circuit.assign_parameters(dict(zip(encoding.params, angles, strict=True)))).data
        expected = np.zeros(2**num_qubits)
        norm = np.linalg.norm(vector)
        places = [2**i + 2 ** (rows + j) for i in range(rows) for j in range(columns)]
        expected[places] = vector / norm if norm else np.eye(len(vector))[0]
        expected[0] = 1
        np.testing.assert_allclose(state, expected / math.sqrt(2), atol=1e-14)


@pytest.mark.parametrize("num_qubits", SIZES)
def test_pairs_are_turned_by_the_minors_of_the_rotation(num_qubits: int, rng: np.random.Generator) -> None:
    ansatz = pyramid_ansatz(num_qubits)
    weights = rng.uniform(-np.pi, np.pi, ansatz.num_parameters)
    rotation = Rotations(num_qubits, pyramid(num_qubits)).double()(torch.from_numpy(weights)).mT.numpy()
    order = sorted(ansatz.parameters, key=lambda p: p.index)
    full = Operator(ansatz.assign_parameters(dict(zip(order, weights, strict=True)))).data
    pairs = list(itertools.combinations(range(num_qubits), 2))
    minors = [[np.linalg.det(rotation[np.ix_(to, of)]) for of in pairs] for to in pairs]
    states = pair_states(num_qubits)
    np.testing.assert_allclose(full[np.ix_(states, states)], minors, atol=1e-13)
    np.testing.assert_allclose(full[0], np.eye(2**num_qubits)[0], atol=1e-13)  # the reference stays


@pytest.mark.parametrize("num_qubits", SIZES)
def test_values_are_signed_amplitudes_in_two_bases(num_qubits: int) -> None:
    count = num_qubits * (num_qubits - 1) // 2
    circuit = qa.attention_circuit("compound", num_qubits, num_observables=count)
    assert [basis for basis, _ in measurement_bases(circuit.labels)] == ["X" * num_qubits, "Y" * num_qubits]
    head = qa.QuantumHead(circuit, (2,)).double()
    x = torch.randn(2, 3, head.num_features, dtype=torch.float64)
    found = (head(x) / head.gain.unsqueeze(-2)).detach().numpy()
    for weights, rows, values in zip(head.weight.tolist(), x, found, strict=True):
        for angles, row in zip(matrix_angles(rows).tolist(), values, strict=True):
            bound = dict(zip(circuit.input_params, angles, strict=True))
            bound |= dict(zip(circuit.weight_params, weights, strict=True))
            state = Statevector(circuit.circuit.assign_parameters(bound))
            amplitudes = math.sqrt(2) * state.data[[sum(2**q for q in pair_of(name)) for name in circuit.outputs]]
            np.testing.assert_allclose(row, amplitudes, atol=1e-6)
            np.testing.assert_allclose(row, [state.expectation_value(op).real for op in circuit.observables], atol=1e-6)
            np.testing.assert_allclose(np.linalg.norm(row), 1, atol=1e-12)


def test_xx_alone_would_also_read_pairs_that_share_a_qubit() -> None:
    state = np.zeros(8)
    state[[0, 0b011, 0b101]] = np.sqrt([0.5, 0.3, 0.2])
    alone = Statevector(state).expectation_value(Operator.from_label("X").tensor(Operator.from_label("XI"))).real
    read = Statevector(state).expectation_value(pair_amplitude("110")).real
    assert alone == pytest.approx(2 * math.sqrt(0.3 * 0.2)) and read == pytest.approx(0, abs=1e-15)


def test_heads_of_sizes_without_states_are_linear_in_the_unit_vector() -> None:
    """128 values on 23 qubits."""
    circuit = qa.attention_circuit("compound", matrix_qubits(128), num_observables=128)
    head = qa.QuantumHead(circuit).double()
    a, b = torch.randn(2, 4, head.num_features, dtype=torch.float64)
    sizes = (a + b).norm(dim=-1, keepdim=True), a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(head(a + b) * sizes[0], head(a) * sizes[1] + head(b) * sizes[2])
    torch.testing.assert_close(head(5 * a), head(a))


def test_states_are_those_of_the_circuit() -> None:
    program = CompoundProgram(circuit := qa.attention_circuit("compound", 4)).double()
    x, weights = torch.randn(1, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    bound = dict(zip(circuit.input_params, matrix_angles(x)[0].tolist(), strict=True))
    bound |= dict(zip(circuit.weight_params, weights.tolist(), strict=True))
    state = Statevector(circuit.circuit.assign_parameters(bound)).data
    np.testing.assert_allclose(program.states(x, weights)[0], state[[0, *pair_states(4)]], atol=1e-12)


def test_angles_and_values_have_their_derivatives() -> None:
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matrix_angles, x)
    head = qa.QuantumHead(qa.attention_circuit("compound", 5), (2,)).double()
    assert torch.autograd.gradcheck(lambda x, *_: head(x), (x, head.weight, head.gain))
    zeros = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(matrix_angles(zeros).sum(), zeros)[0].isfinite().all()
    with pytest.raises(EncodingError, match="NaN or infinity"):
        head(x * math.nan)


def test_samples_have_signs_within_shot_noise() -> None:
    head = qa.QuantumHead(qa.attention_circuit("compound", 4)).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    exact = head(x).detach()
    head.to_backend("aer?shots=10000&seed=3")
    errors = (head(x) - exact) / head.gain
    assert 0 < errors.abs().max() < 6 / 100  # six standard errors


def test_the_fewest_qubits_have_enough_pairs() -> None:
    for count in range(1, 200):
        n = matrix_qubits(count)
        assert math.prod(matrix_sides(n)) >= count > math.prod(matrix_sides(n - 1))
    assert choose_pairs(4, 6) == ["0101", "1001", "0110", "1010", "0011", "1100"]


@pytest.mark.parametrize(
    ("num_qubits", "options", "told"),
    [
        (1, {}, "at least 2 and at most 128, got 1"),
        (129, {}, "at least 2 and at most 128, got 129"),
        (4, {"num_observables": 7}, "on 4 qubits reads from 1 to 6 values, 7 were"),
        (4, {"observables": ["0111"]}, "two 1s, such as 0011; got '0111'"),
        (4, {"observables": ["XXII"]}, "got 'XXII'"),
    ],
)
def test_what_cannot_be_is_refused(num_qubits: int, options: dict, told: str) -> None:
    with pytest.raises(CircuitError, match=told):
        qa.attention_circuit("compound", num_qubits, **options)


def test_the_exact_engine_refuses_what_it_does_not_compute() -> None:
    """On qubits that are no neighbours RBS turn no fermions."""
    good = qa.attention_circuit("compound", 4)
    far = AttentionCircuit("far", good.encoding, butterfly_ansatz(4), good.labels, good.sums, names=good.names)
    with pytest.raises(CircuitError, match="with pyramid_ansatz only; the ansatz of 'far', 'butterfly'"):
        CompoundProgram(far)
    with pytest.raises(CircuitError, match="amplitudes of pairs"):
        CompoundProgram(AttentionCircuit("single", good.encoding, good.ansatz, ("XXII",)))


def test_the_control_is_a_free_linear_map_of_the_same_unit_vector_and_contains_the_circuit() -> None:
    model = qa.GPT(qa.GPTConfig(vocab_size=7, n_layer=1, n_head=2, n_embd=16, heads="compound:1,pair-linear:1"))
    maps = model.blocks[0].attn.maps
    control, head = maps["pair-linear"].double(), maps["compound"].double()
    assert isinstance(control, UnitLinear) and control.weight.shape == (1, 9, 8) == (1, head.num_features, 8)
    x = torch.randn(1, 5, 9, dtype=torch.float64)
    expected = x[0].numpy() / np.linalg.norm(x[0], axis=1, keepdims=True) @ control.weight[0].detach().numpy()
    np.testing.assert_allclose(control(x)[0].detach(), expected, atol=1e-12)
    with torch.no_grad():
        control.weight.copy_(head(torch.eye(9, dtype=torch.float64)))
        torch.testing.assert_close(control(x), head(x), atol=1e-12, rtol=0)
