"""What Qiskit Machine Learning tests of its own connector holds of ours: the cases of its 0.9, in our words."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler

from qiskit_qattn import TorchConnector

OBSERVABLES = [
    (1, None),
    (1, SparsePauliOp("Z")),
    (2, None),
    (2, SparsePauliOp("ZZ")),
    (2, [SparsePauliOp("ZI"), SparsePauliOp("IZ")]),
]
sparse_warnings = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


def parity(outcome):
    return outcome.bit_count() % 2


def network(kind, num_qubits, feature_map=z_feature_map, observables=None, interpret=None, sparse=False):
    inputs, ansatz = feature_map(num_qubits), real_amplitudes(num_qubits, reps=1)
    circuit = QuantumCircuit(num_qubits)
    circuit.append(inputs, range(num_qubits))
    circuit.append(ansatz, range(num_qubits))
    options = {
        "circuit": circuit,
        "input_params": inputs.parameters,
        "weight_params": ansatz.parameters,
        "input_gradients": True,
    }
    if kind == "estimator":
        return EstimatorQNN(estimator=QMLEstimator(default_precision=0, seed=123), observables=observables, **options)
    shape = None if interpret is None else 2
    return SamplerQNN(sampler=QMLSampler(), interpret=interpret, output_shape=shape, sparse=sparse, **options)


def dense(values):
    """Return an array of what a network or a connector gave."""
    if isinstance(values, torch.Tensor):
        return (values.to_dense() if values.is_sparse else values).detach().numpy()
    return values.todense() if hasattr(values, "todense") else values


def differences(qnn, inputs, weights, step=1e-4):
    """Central differences of the network's values, shape (B, M, num_weights)."""
    shifts = step * np.eye(len(weights))
    pairs = [(qnn.forward(inputs, weights + shift), qnn.forward(inputs, weights - shift)) for shift in shifts]
    return np.stack([(dense(right) - dense(left)) / (2 * step) for right, left in pairs], -1)


def check(qnn, sparse=None):
    model = TorchConnector(qnn, sparse=sparse)
    weights = model.weight.detach().numpy().astype(float)
    for batch in (1, 2):
        x = torch.rand(batch, qnn.num_inputs)
        values = model(x)
        assert values.is_sparse == bool(model.sparse)
        np.testing.assert_allclose(dense(values), dense(qnn.forward(x.numpy(), weights)), atol=2e-7)
        model.zero_grad()
        (values.to_dense() if values.is_sparse else values).sum().backward()
        assert model.weight.grad.is_sparse == bool(model.sparse)
        jacobian = dense(qnn.backward(x.numpy(), weights)[1])
        np.testing.assert_allclose(jacobian, differences(qnn, x.numpy(), weights), atol=1e-4)
        np.testing.assert_allclose(dense(model.weight.grad), jacobian.sum((0, 1)), atol=1e-6)


@pytest.mark.parametrize(("num_qubits", "observables"), OBSERVABLES)
def test_estimator_networks(num_qubits, observables):
    check(network("estimator", num_qubits, observables=observables))


@sparse_warnings
@pytest.mark.parametrize("interpret", [parity, None])
@pytest.mark.parametrize(("of_network", "of_connector"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("num_qubits", [1, 2])
def test_sampler_networks(num_qubits, of_network, of_connector, interpret):
    check(network("sampler", num_qubits, interpret=interpret, sparse=of_network), of_connector)


def test_a_convolution_gives_the_connector_three_axes():
    x, w = ParameterVector("x", 12), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    for i, angle in enumerate([*x, *w]):
        circuit.ry(2 * np.pi * angle, i % 2)
        circuit.cx(0, 1)
    qnn = SamplerQNN(
        sampler=QMLSampler(),
        circuit=circuit,
        input_params=list(x),
        weight_params=list(w),
        interpret=lambda outcome: 0,
        output_shape=1,
    )
    layer, image = TorchConnector(qnn), torch.rand(2, 3, 4, 4)
    patches = torch.nn.functional.unfold(image, kernel_size=2)  # (2, 12, 9)
    values = layer(patches.permute(2, 0, 1))  # (9, 2, 1)
    assert values.shape == (9, 2, 1)
    values.sum().backward()
    assert layer.weight.grad.shape == (3,)


@pytest.mark.parametrize(("kind", "outputs"), [("estimator", 1), ("sampler", 2)])
def test_in_a_hybrid_network_a_batch_has_the_gradients_of_its_rows(kind, outputs):
    qnn = network(kind, 2, zz_feature_map, interpret=parity)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 2),
        torch.nn.ReLU(),
        TorchConnector(qnn, np.full(qnn.num_weights, 0.1)),
        torch.nn.Linear(outputs, 1),
    )
    x, y = torch.rand(5, 4), torch.rand(5, 1)
    found = []
    for rows in ([slice(i, i + 1) for i in range(5)], [slice(None)], range(5)):
        model.zero_grad()
        loss = sum((model(x[row]) - y[row]).square().sum() for row in rows)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-4)
