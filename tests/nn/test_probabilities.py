"""Heads whose values are outcome probabilities, and the Born rule without a circuit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.quantum_info import SparsePauliOp, Statevector

import qiskit_qattn as qa
from qiskit_qattn.errors import CircuitError, ConfigError
from qiskit_qattn.library.observables import measurement_bases, outcome_projector
from qiskit_qattn.nn.value_kinds import BornValues


@pytest.mark.parametrize("outcome", ["01", "I1", "1I0", "000"])
def test_a_projector_is_the_matrix_of_its_outcome(outcome: str) -> None:
    letters = {"0": np.diag([1, 0]), "1": np.diag([0, 1]), "I": np.eye(2)}
    expected = np.eye(1)
    for letter in outcome:
        expected = np.kron(expected, letters[letter])
    np.testing.assert_array_equal(outcome_projector(outcome).to_matrix(), expected)


@pytest.mark.parametrize(("num_qubits", "count"), [(3, 8), (3, 6), (3, 3), (4, 1)])
def test_values_are_probabilities_of_the_state(num_qubits: int, count: int) -> None:
    """Of the fewest qubits that have so many outcomes, the others being traced out; in one measurement basis."""
    circuit = qa.attention_circuit("probabilities", num_qubits, num_observables=count)
    assert [basis for basis, _ in measurement_bases(circuit.labels)] == ["Z" * num_qubits]
    head = qa.QuantumHead(circuit).double()
    x = torch.randn(3, 2**num_qubits, dtype=torch.float64)
    found = (head(x) / head.gain).detach().numpy()
    angles = dict(zip(circuit.weight_params, head.weight.tolist(), strict=True))
    bits = max(1, (count - 1).bit_length())
    for row, values in zip(x.numpy(), found, strict=True):
        state = Statevector(row / np.linalg.norm(row)).evolve(circuit.ansatz.assign_parameters(angles))
        np.testing.assert_allclose(values, state.probabilities(range(bits))[:count], atol=1e-6)


def test_shots_scatter_around_the_exact_values_and_gradients_are_right() -> None:
    head = qa.QuantumHead(qa.attention_circuit("probabilities", 2, num_observables=4)).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: head(x), (x, head.weight, head.gain))
    with torch.no_grad():
        exact = head(x)
        errors = (head.to_backend("aer?shots=4096&seed=3")(x) - exact) / head.gain
    assert 0 < errors.abs().max() < 5 * 0.5 * 4096**-0.5
    torch.testing.assert_close(errors.sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_outcomes_can_be_named_and_are_saved(tmp_path) -> None:
    options = {"vocab_size": 7, "n_layer": 1, "n_head": 2, "n_embd": 6, "block_size": 4, "num_qubits": 3}
    model = qa.GPT(
        qa.GPTConfig(heads="probabilities:2", observables={"probabilities": ["111", "I0I", "00I"]}, **options)
    )
    model.save_pretrained(tmp_path)
    again = qa.GPT.from_pretrained(tmp_path)
    idx = torch.randint(7, (2, 4))
    torch.testing.assert_close(again(idx)[0], model(idx)[0])
    other = qa.GPT(qa.GPTConfig(heads="probabilities:2", **options))
    assert other.config.observables == {"probabilities": ("I00", "I01", "I10")}
    with pytest.raises(RuntimeError, match="this head measures I00, I01, I10"):
        other.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"num_observables": 9}, CircuitError, "on 3 qubits reads from 1 to 8 values, 9 were"),
        ({"observables": ["0X1"]}, CircuitError, "'0X1'"),
        ({"observables": ["III"]}, CircuitError, "not I alone"),
        ({"observables": ["01"]}, CircuitError, "strings of 3 letters"),
        ({"observables": "random"}, ConfigError, "at random"),
    ],
)
def test_what_cannot_be_read_is_refused(options: dict, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        qa.attention_circuit("probabilities", 3, **options)


def test_the_spread_of_random_states_is_the_gains_start(rng: np.random.Generator) -> None:
    circuit = qa.attention_circuit("probabilities", 4, num_observables=16)
    states = rng.normal(size=(4000, 16)) + 1j * rng.normal(size=(4000, 16))
    chances = np.abs(states / np.linalg.norm(states, axis=1, keepdims=True)) ** 2
    np.testing.assert_allclose(circuit.spread, chances.std(0), rtol=0.1)
    plain = qa.attention_circuit("zz", 4)
    assert plain.spread == [0.25] * 4
    mixed = qa.AttentionCircuit.from_circuit(
        plain.circuit, [SparsePauliOp(["IIII", "ZZII", "XIII"], [5, 3, 4])], plain.input_params, plain.weight_params
    )
    assert mixed.spread == [5 * 0.25]


def test_the_control_is_the_born_rule_and_contains_the_circuit() -> None:
    control = BornValues(2, 4, 3, spread=0.25).double()
    with torch.no_grad():
        control.gain.uniform_(-2, 2)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    a, b = x.numpy()[..., :4], x.numpy()[..., 4:]
    chances = np.abs(a + 1j * b) ** 2
    expected = chances / chances.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        control(x).detach(), expected[..., :3] * control.gain.detach().numpy()[:, None], atol=1e-12
    )
    assert torch.autograd.gradcheck(control, (x.requires_grad_(),))
    head = qa.QuantumHead(qa.attention_circuit("probabilities", 2, num_observables=3), (2,)).double()
    vectors = torch.randn(2, 5, 4, dtype=torch.float64)
    amplitudes = []
    for weights in head.weight.detach().tolist():
        bound = head.circuit.ansatz.assign_parameters(dict(zip(head.circuit.weight_params, weights, strict=True)))
        columns = [Statevector.from_int(i, 4).evolve(bound).data for i in range(4)]
        amplitudes.append(torch.as_tensor(np.concatenate([np.real(columns), np.imag(columns)], 1)))
    with torch.no_grad():
        control.gain.copy_(head.gain)
        torch.testing.assert_close(control(vectors @ torch.stack(amplitudes)), head(vectors), atol=1e-9, rtol=0)
