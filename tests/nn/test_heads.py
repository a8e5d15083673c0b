"""Quantum heads and their controls."""

import numpy as np
import pytest
import torch
from qiskit.primitives import DataBin, PrimitiveJob, PrimitiveResult, PubResult, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp, Statevector

from qiskit_qattn import GPT, GPTConfig, QuantumHead, attention_circuit, get_backend, list_circuits
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.values import MitigationWarning
from qiskit_qattn.errors import EncodingError, UnknownNameError
from qiskit_qattn.evaluation.report import _backends
from qiskit_qattn.nn.controls import FourierValues, QuadraticValues
from qiskit_qattn.nn.heads import fuse_heads
from qiskit_qattn.simulation.compound import angles_of_vectors
from qiskit_qattn.simulation.estimator import TorchEstimator


@pytest.mark.parametrize("name", list_circuits())
def test_a_head_is_its_circuit_times_its_gain(name):
    circuit = attention_circuit(name, 4, num_observables=5)
    head = QuantumHead(circuit, gain=0.5)
    start = head.gain.detach().numpy()
    assert start == pytest.approx(0.5 / np.array(circuit.spread))
    x = torch.randn(2, head.num_features)
    angles = x if (encoded := angles_of_vectors(circuit.encoding)) is None else encoded(x)
    for row, values in zip(angles.double(), head(x), strict=True):
        bound = dict(zip(circuit.input_params, row.tolist(), strict=True))
        bound |= dict(zip(circuit.weight_params, head.weight.tolist(), strict=True))
        state = Statevector(circuit.circuit.assign_parameters(bound))
        expected = start * [state.expectation_value(op).real for op in circuit.observables]
        np.testing.assert_allclose(values.detach(), expected, atol=2e-6)


@pytest.mark.parametrize("name", list_circuits())
def test_any_estimator_gives_the_engines_values_and_gradients(name):
    circuit = attention_circuit(name, 2)
    head = QuantumHead(circuit, (2,)).double()
    x = torch.randn(2, 3, head.num_features, dtype=torch.float64, requires_grad=True)
    expected = head(x)
    grads = torch.autograd.grad(expected.square().sum(), (x, head.weight, head.gain))
    head.to_backend(Backend("test", StatevectorEstimator()))
    assert not head.fusible
    values = head(x)
    torch.testing.assert_close(values, expected, atol=1e-10, rtol=0)
    again = torch.autograd.grad(values.square().sum(), (x, head.weight, head.gain))
    for a, b in zip(grads, again, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=0)


def test_moving_back_and_forth_keeps_the_weights():
    head = QuantumHead(attention_circuit("zz", 2))
    state = {k: v.clone() for k, v in head.state_dict().items()}
    x = torch.randn(4, 2)
    before = head(x)
    head.to_backend("statevector?shots=100&seed=1")
    assert head.backend.name == "statevector?seed=1&shots=100"
    assert 0 < (head(x) - before).abs().max() < 1.0
    head.to_backend("statevector")
    torch.testing.assert_close(head(x), before)
    assert set(head.state_dict()) == {"weight", "gain", "observables"}
    assert all(torch.equal(state[k], v) for k, v in head.state_dict().items())
    with pytest.raises(UnknownNameError, match="statevectr"):
        head.to_backend("statevectr")


def test_fused_together_is_fused_one_by_one():
    circuit = attention_circuit("qsann", 2)
    heads = [QuantumHead(circuit, (3, 2)) for _ in range(4)]
    x = torch.randn(1, 2, 5, heads[0].num_features)
    for head, fused in zip(heads, fuse_heads(heads), strict=True):
        torch.testing.assert_close(head(x, fused), head(x))


def test_frozen_weights_get_no_gradient():
    head = QuantumHead(attention_circuit("qisa", 2), trainable=False)
    head(torch.randn(3, 4)).sum().backward()
    assert head.weight.grad is None and head.gain.grad is not None


def test_a_wrong_length_is_an_error():
    with pytest.raises(EncodingError, match="length 8, got 5"):
        QuantumHead(attention_circuit("qisa", 3))(torch.randn(2, 5))


@pytest.mark.parametrize("kind", ["zz", "qisa"])
def test_one_set_of_weights_takes_data_of_several_axes(kind):
    head = QuantumHead(attention_circuit(kind, 3))
    x, grad = torch.randn(4, 50, head.num_features), torch.randn(4, 50, len(head.circuit.labels))
    values = head(x)
    values.backward(grad)
    found, head.weight.grad = head.weight.grad, None
    slices = torch.stack([head(part) for part in x])
    slices.backward(grad)
    torch.testing.assert_close(values, slices)
    torch.testing.assert_close(found, head.weight.grad, atol=1e-4, rtol=1e-4)


def test_the_quadratic_control_is_a_quadratic_form_of_the_unit_vector():
    control = QuadraticValues(2, 4, 3, rank=2)
    x = torch.randn(2, 5, 4)
    unit = x / x.norm(dim=-1, keepdim=True)
    u, c = control.factor.unflatten(-1, (3, 2)), control.coefficient
    matrices = torch.einsum("hdmr,hmr,hemr->hmde", u, c, u)
    torch.testing.assert_close(matrices, matrices.transpose(-1, -2))
    expected = torch.einsum("hnd,hmde,hne->hnm", unit, matrices, unit)
    torch.testing.assert_close(control(x), expected)
    torch.testing.assert_close(control(3.7 * x), expected)


def test_a_quadratic_form_can_be_any_qisa_head():
    """What an amplitude-encoded head computes is within the control's reach at full rank."""
    circuit = attention_circuit("qisa", 2, num_observables=1)
    head = QuantumHead(circuit).double()
    bound = circuit.ansatz.assign_parameters(head.weight.tolist())
    from qiskit.quantum_info import Operator

    unitary = Operator(bound).data
    matrix = (unitary.conj().T @ SparsePauliOp(circuit.labels[0]).to_matrix() @ unitary).real
    eigenvalues, vectors = np.linalg.eigh(matrix)
    control = QuadraticValues(1, 4, 1, rank=4).double()
    control.factor.data[0] = torch.from_numpy(vectors)
    control.coefficient.data[0, 0] = torch.from_numpy(eigenvalues) * head.gain.item()
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(control(x), head(x), atol=1e-12, rtol=0)


def test_the_fourier_control_approximates_a_gaussian_kernel():
    control = FourierValues(1, 8, 2, num_features=20000)
    assert {"frequency", "phase"} <= set(control.state_dict())  # drawn once and saved
    x = torch.randn(6, 8)
    features = torch.cos(x @ control.frequency[0] + control.phase[0]) * (2 / 20000) ** 0.5
    kernel = torch.exp(-torch.cdist(x, x).square() / 16)
    assert (features @ features.T - kernel).abs().max() < 0.05
    torch.testing.assert_close(control(x)[0], features @ control.readout[0])


def test_get_backend_of_a_head_is_the_default():
    assert QuantumHead(attention_circuit("zz", 2)).backend.name == get_backend("statevector").name


@pytest.mark.parametrize("name", list_circuits())
def test_second_derivatives_of_every_circuit(name):
    head = QuantumHead(attention_circuit(name, 2)).double()
    x = torch.randn(3, head.num_features, dtype=torch.float64, requires_grad=True)

    def call(x, weight):
        return torch.func.functional_call(head, {"weight": weight}, x)

    assert torch.autograd.gradgradcheck(call, (x, head.weight))


def test_an_empty_batch_reaches_no_estimator():
    head = QuantumHead(attention_circuit("zz", 2)).to_backend(Backend("test", StatevectorEstimator()))
    assert head(torch.randn(0, 2)).shape == (0, 2)


def test_heads_too_large_for_unitaries_have_none_to_form():
    heads = [QuantumHead(attention_circuit("zz", 11)) for _ in range(2)]
    x = torch.randn(2, 11)
    for head, fused in zip(heads, fuse_heads(heads), strict=True):
        torch.testing.assert_close(head(x, fused), head(x))


def test_a_head_and_its_model_count_mitigated_values_outside_their_bounds():
    class Mitigated(TorchEstimator):
        def run(self, pubs, *, precision=None):
            found = super().run(pubs, precision=precision).result()
            results = [PubResult(DataBin(evs=item.data.evs + 9, stds=item.data.stds)) for item in found]
            job = PrimitiveJob(PrimitiveResult, results, {"mitigated": True})
            job._submit()
            return job

    heads = "qisa:1,classical:1"
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=8, num_qubits=2, heads=heads))
    model.to_backend(Backend("mitigated", Mitigated()))
    with pytest.warns(MitigationWarning):
        model(torch.zeros(1, 4, dtype=torch.int64))
    quantum, classical = model.head_backends()
    assert quantum["outside_bounds"] > 0 and quantum["backend"] == "mitigated"
    assert "outside_bounds" not in classical
    assert f"(mitigated: {quantum['outside_bounds']} values outside the bounds, kept)" in _backends(
        {"head_backends": [quantum, classical]}
    )
