"""QASA's value head and its capacity-matched control."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

import qiskit_qattn as qa
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.nn.value_kinds import BottleneckValues


def published(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ⟨Z⟩ of the data qubits of the authors' circuit, gate by gate, for weights ``(L, m + 1)``."""
    m, layers = len(x), len(weights)
    circuit = QuantumCircuit(m + 1)
    for i in range(m):
        circuit.rx(x[i], i)
        circuit.rz(x[i], i)
    for i in range(m):
        circuit.rx(weights[0, i], i)
        circuit.rz(weights[1, i], i)
    for layer in range(1, layers):
        for i in range(m):
            circuit.cx(i, (i + 1) % m)
            circuit.ry(weights[layer, i], i)
            circuit.rz(weights[layer, i], i)
        circuit.cx(m - 1, m)
        circuit.ry(weights[layer, -1], m)
    chances = Statevector(circuit).probabilities()
    bits = np.arange(len(chances))[:, None] >> np.arange(m) & 1
    return chances @ (1 - 2 * bits)


def test_it_is_the_published_circuit_with_its_shared_angles(rng: np.random.Generator) -> None:
    """The array of 4 × 9 weights of the authors' code has one, of the auxiliary qubit, that enters no gate."""
    circuit = qa.attention_circuit("qasa", 9, num_observables=8)
    assert len(circuit.weight_params) == 36 - 1 and len(circuit.input_params) == 8
    assert circuit.circuit.count_ops()["cx"] == 27
    head = qa.QuantumHead(circuit, outputs=6)
    weights, x = rng.uniform(-np.pi, np.pi, (4, 9)), rng.normal(size=(3, 8))
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(np.delete(weights.ravel(), 8)))
        head = head.double()
        found = head(torch.as_tensor(x)).numpy()
        expected = np.stack([published(row, weights) for row in x]) @ head.gain.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gradients_are_those_of_differences() -> None:
    head = qa.QuantumHead(qa.attention_circuit("qasa", 3, num_observables=2), (2,), outputs=3).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: head(x), (x, head.weight, head.gain))


def test_shots_scatter_around_the_exact_values() -> None:
    head = qa.QuantumHead(qa.attention_circuit("qasa", 4, num_observables=3), outputs=5)
    x = torch.randn(6, 3)
    with torch.no_grad():
        exact = head(x)
        sampled = head.to_backend("aer?shots=4096&seed=7")(x)
        errors = (sampled - exact) / head.gain.square().sum(0).sqrt()  # at most 1/√shots per expectation
    assert 0 < errors.abs().max() < 5 * 4096**-0.5


def test_one_layer_may_hold_it_alone() -> None:
    """As in the paper; the vectors of its values have the rank of its data qubits."""
    heads = ["classical:2", "qasa:2"]
    model = qa.GPT(qa.GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=16, heads=heads, num_qubits=4))
    assert model.config.observables == {"qasa": ("IIIZ", "IIZI", "IZII")}
    idx = torch.randint(7, (5, 6))
    values: list[torch.Tensor] = []
    model.blocks[1].attn.maps["qasa"].register_forward_hook(lambda *call: values.append(call[-1].detach()))
    logits, loss = model(idx, idx)
    assert values[0].shape == (2, 30, 8) and torch.linalg.matrix_rank(values[0]).tolist() == [3, 3]
    loss.backward()
    assert model.blocks[1].attn.maps["qasa"].weight.grad.abs().max() > 0
    assert float(qa.leakage(model)) == 0.0
    with torch.no_grad():
        torch.testing.assert_close(qa.inference(model)(idx)[0], logits, atol=1e-5, rtol=0)


def test_the_control_is_a_tanh_of_rank_two_on_the_same_wrapper() -> None:
    """40 numbers stand in the place of the circuit's 36, and the linear maps around both are of one size."""
    control = BottleneckValues(2, 8, 6, spread=0.25).double()
    assert sum(w[0].numel() for w in (control.narrow, control.wide, control.bias)) == 40
    with torch.no_grad():
        control.bias.normal_()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    u, v, b, w = (each.detach().numpy() for each in (control.narrow, control.wide, control.bias, control.readout))
    for i in range(2):
        expected = np.tanh(x[i].numpy() @ u[i] @ v[i] + b[i]) @ w[i]
        np.testing.assert_allclose(control(x)[i].detach(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(control, (x.requires_grad_(),))
    sizes = []
    for name in ("qasa", "bottleneck"):
        model = qa.GPT(qa.GPTConfig(vocab_size=7, n_layer=1, n_head=2, n_embd=32, heads=f"{name}:2", num_qubits=9))
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[1] - sizes[0] == 2 * (40 - 35)


@pytest.mark.parametrize("name", ["qasa", "bottleneck"])
def test_projections_enter_the_circuit_through_a_tanh(name: str) -> None:
    kind = head_kind(name)
    features = torch.randn(2, 3, 8)
    rows = kind.rows(features, torch.randn(2, 3, 16), 2, 4)
    torch.testing.assert_close(rows, features.tanh().flatten(0, 1).unflatten(-1, (2, 4)).transpose(0, 1))
    mha = qa.QuantumMultiheadAttention(16, 2, heads=name, num_qubits=4)
    x = torch.randn(2, 3, 16)
    vectors = torch.randn(2, 5, 8)
    torch.testing.assert_close(mha._encoded(name, vectors), torch.tanh(vectors @ mha.encodings[name].weight))
    assert mha(x, x, x)[0].shape == x.shape
