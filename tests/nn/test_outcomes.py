"""SamplerQNN in a TorchConnector: sums of outcome probabilities, exactly and on backends."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import Statevector
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.algorithms import VQC
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from qiskit_machine_learning.gradients import ParamShiftSamplerGradient, SPSASamplerGradient
from qiskit_machine_learning.neural_networks import SamplerQNN
from qiskit_machine_learning.optimizers import COBYLA
from qiskit_machine_learning.primitives import QMLSampler

from qiskit_qattn import TorchConnector
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.nn.compiled import compile_qnn

INTERPRETATIONS = {
    "none": (None, None),
    "parity": (lambda outcome: outcome.bit_count() % 2, 2),
    "table": (lambda outcome: (outcome % 2, outcome // 4), (2, 2)),
    "last": (lambda outcome: -1 if outcome else 0, 3),
    "numpy": (lambda outcome: np.int64(outcome >> 1), (4,)),
}
WEIGHTS = np.array([0.4, -1.1, 0.7])


def circuit_of_three():
    """Return a circuit in which inputs and weights alternate, and meet in an angle."""
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(3)
    circuit.ry(w[0], 0)
    circuit.rx(x[1], 1)
    circuit.cx(0, 1)
    circuit.ry(x[0] * w[1], 2)
    circuit.cx(1, 2)
    circuit.rz(w[2], 1)
    circuit.rx(x[0], 1)
    return circuit, list(x), list(w)


CIRCUIT, X, W = circuit_of_three()


def network(interpretation="none", circuit=None, **options):
    interpret, shape = INTERPRETATIONS[interpretation]
    options = {"interpret": interpret, "output_shape": shape, "input_gradients": True} | options
    return SamplerQNN(circuit=circuit or CIRCUIT, input_params=X[::-1], weight_params=W, **options)


def expected(rows, interpretation="none", weights=WEIGHTS):
    """Return the sums of the probabilities of Qiskit's Statevector."""
    interpret, shape = INTERPRETATIONS[interpretation]
    values = np.zeros((len(rows), *np.atleast_1d(8 if shape is None else shape)))
    for row, value in zip(rows, values, strict=True):
        bound = CIRCUIT.assign_parameters(dict(zip([*X[::-1], *W], [*row, *weights], strict=True)))
        for outcome, probability in enumerate(Statevector(bound).probabilities()):
            value[outcome if interpret is None else interpret(outcome)] += probability
    return values


@pytest.mark.parametrize("interpretation", INTERPRETATIONS)
@pytest.mark.parametrize("backend", [None, "statevector"])
def test_values_are_sums_of_probabilities_and_gradients_the_parents(interpretation, backend):
    qnn = network(interpretation)
    model, parent = TorchConnector(qnn, WEIGHTS, backend=backend), QiskitTorchConnector(qnn, WEIGHTS)
    assert compile_qnn(qnn).engine == "statevector"
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(1))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    values, wanted = model(ours), parent(theirs)
    np.testing.assert_allclose(values.detach(), expected(x.double().numpy(), interpretation), atol=1e-6)
    torch.testing.assert_close(values, wanted, atol=1e-6, rtol=0)
    factor = torch.arange(1.0, 1 + values[0].numel()).reshape(values.shape[1:])
    (values * factor).sum().backward()
    if interpretation != "table":  # the parent flattens no output of two axes
        (wanted * factor).sum().backward()
        torch.testing.assert_close(model.weight.grad, parent.weight.grad, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=0)
    one = model(x[0])
    assert one.shape == values.shape[1:]
    torch.testing.assert_close(one, values[0].detach(), atol=1e-6, rtol=0, check_stride=False)


@pytest.mark.parametrize("interpretation", ["none", "table"])
def test_gradients_in_float64(interpretation):
    model = TorchConnector(network(interpretation), WEIGHTS).double()
    x = torch.tensor([[0.3, -0.8], [1.2, 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows, _: model(rows), (x, model.weight))
    np.testing.assert_allclose(model(x).detach(), expected(x.detach().numpy(), interpretation), atol=1e-7)


def test_a_transpiled_circuit_and_one_that_measures_all():
    line = generate_preset_pass_manager(
        1, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], basis_gates=["rz", "sx", "cx"], initial_layout=[3, 1, 2]
    )
    rows = np.array([[0.2, 0.9], [-0.4, 1.3]])
    moved, measured = line.run(CIRCUIT), CIRCUIT.copy()
    measured.measure_all()
    for each in (moved, measured):
        qnn = network("parity", circuit=each)
        assert compile_qnn(qnn).engine == "statevector"
        np.testing.assert_allclose(
            TorchConnector(qnn, WEIGHTS)(torch.tensor(rows)).detach(), expected(rows, "parity"), atol=1e-6
        )
        np.testing.assert_allclose(qnn.forward(rows, WEIGHTS), expected(rows, "parity"), atol=1e-6)


def test_vectors_as_amplitudes():
    feature_map, w = raw_feature_vector(4), ParameterVector("w", 1)
    circuit = feature_map.copy()
    circuit.ry(w[0], 1)
    qnn = SamplerQNN(circuit=circuit, input_params=list(feature_map.parameters)[::-1], weight_params=list(w))
    model, rows = TorchConnector(qnn, [0.3]), torch.tensor([[0.1, 0.7, -0.5, 0.5]])
    rows = rows / rows.norm()
    assert compile_qnn(qnn).engine == "statevector"
    turned = QuantumCircuit(2)
    turned.ry(0.3, 1)
    state = Statevector(rows[0].numpy()[::-1] / np.linalg.norm(rows[0].numpy())).evolve(turned)
    np.testing.assert_allclose(model(rows)[0].detach(), state.probabilities(), atol=1e-6)


@pytest.mark.parametrize("backend", [None, "statevector"])
def test_a_new_interpretation_counts_from_then_on(backend):
    qnn, rows = network("parity"), np.array([[0.2, 0.9]])
    model = TorchConnector(qnn, WEIGHTS, backend=backend)
    for name in ("parity", "table", "none"):
        qnn.set_interpret(*INTERPRETATIONS[name])
        np.testing.assert_allclose(model(torch.tensor(rows)).detach(), expected(rows, name), atol=1e-6)


def test_samplers_that_draw_shots_and_other_gradients_stay_with_the_network():
    for sampler in (StatevectorSampler(seed=1), QMLSampler(shots=100, seed=1)):
        found = compile_qnn(network(sampler=sampler))
        assert found.engine == "network" and f"{type(sampler).__name__} draws shots" in found.reason
    qnn = network("parity", sampler=QMLSampler(shots=4, seed=3))
    values = TorchConnector(qnn, WEIGHTS)(torch.rand(5, 2))
    assert torch.equal(values * 4, (values * 4).round())
    spsa = network(gradient=SPSASamplerGradient(QMLSampler(), epsilon=0.1))
    assert "SPSASamplerGradient is no exact derivative" in compile_qnn(spsa).reason
    own = network(gradient=ParamShiftSamplerGradient(StatevectorSampler()))
    assert "has a sampler of its own, StatevectorSampler" in compile_qnn(own).reason


def test_measurements_of_a_users_own_stay_with_the_network():
    few = CIRCUIT.copy()
    few.add_register(*QuantumCircuit(1, 1).cregs)
    few.measure(1, 0)
    found = compile_qnn(network(circuit=few))
    assert found.engine == "network" and "no measurements, or those of measure_all(); got 1 into c" in found.reason


@pytest.mark.parametrize(
    ("interpret", "shape", "reason"),
    [
        (lambda outcome: outcome, 4, "no place in the output for outcome 4"),
        (lambda outcome: 0, (2, 2), r"gives \(0,\) for outcome 0, but an output of shape \(2, 2\) has 2 axes"),
        (lambda outcome: 1 / outcome, 4, "for outcome 0: division by zero"),
    ],
)
def test_interpretations_outside_the_output(interpret, shape, reason):
    qnn = network(interpret=interpret, output_shape=shape)
    assert compile_qnn(qnn).engine == "network"
    with pytest.raises(CircuitError, match=reason):
        TorchConnector(qnn, backend="statevector")


def test_too_many_strings_for_a_backend():
    circuit, w = QuantumCircuit(8), ParameterVector("w", 1)
    circuit.ry(w[0], 0)
    qnn = SamplerQNN(circuit=circuit, weight_params=list(w))
    assert TorchConnector(qnn, [0.3])().shape == (256,)
    with pytest.raises(CircuitError, match="256 outputs on 8 qubits takes 65536 strings of Z"):
        TorchConnector(qnn, backend="statevector")


def test_wrong_sizes_are_the_parents_errors():
    qnn = network("parity")
    for model in (TorchConnector(qnn), QiskitTorchConnector(qnn), TorchConnector(qnn, backend="statevector")):
        with pytest.raises(QiskitMachineLearningError, match="Invalid input dimension"):
            model(torch.rand(2, 3))


def test_without_input_gradients_nothing_flows_to_inputs():
    model, x = TorchConnector(network("parity", input_gradients=False), WEIGHTS), torch.rand(2, 2, requires_grad=True)
    model(x)[:, 0].sum().backward()
    assert x.grad is None and model.weight.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_sparse_values_and_gradients_are_the_parents():
    qnn, x = network("last", sparse=True), torch.rand(2, 2)
    model, parent = TorchConnector(qnn, WEIGHTS), QiskitTorchConnector(qnn, WEIGHTS)
    values, wanted = model(x), parent(x)
    assert values.is_sparse and values.dtype == wanted.dtype and values.shape == (2, 3)
    torch.testing.assert_close(values.to_dense(), wanted.to_dense(), atol=1e-6, rtol=0)
    values.to_dense()[:, 0].sum().backward()
    dense = TorchConnector(qnn, WEIGHTS, sparse=False)
    dense(x)[:, 0].sum().backward()
    assert model.weight.grad.is_sparse
    torch.testing.assert_close(model.weight.grad.to_dense(), dense.weight.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["statevector?shots=4000&seed=1", "aer?shots=4000&seed=1"])
def test_on_shots_values_are_frequencies(backend):
    if backend.startswith("aer"):
        pytest.importorskip("qiskit_aer")
    rows = np.array([[0.2, 0.9], [-0.4, 1.3]])
    model, exact = TorchConnector(network(), WEIGHTS, backend=backend), TorchConnector(network(), WEIGHTS)
    assert model.circuit_name == "SamplerQNN"
    x = torch.tensor(rows, dtype=torch.float32)
    values = model(x)
    np.testing.assert_allclose(values.detach().sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(values.detach() * 4000, (values.detach() * 4000).round(), atol=5e-3)
    np.testing.assert_allclose(values.detach(), expected(rows), atol=5 * 0.5 / 4000**0.5)
    factor = torch.linspace(-1, 1, 8)
    (values * factor).sum().backward()
    (exact(x) * factor).sum().backward()
    torch.testing.assert_close(model.weight.grad, exact.weight.grad, atol=0.1, rtol=0)


def test_the_network_of_a_classifier_of_qiskits():
    generator = np.random.default_rng(1)
    rows, classes = generator.uniform(-1, 1, (6, 2)), np.arange(6) % 2
    classifier = VQC(
        feature_map=z_feature_map(2), ansatz=real_amplitudes(2, reps=1), output_shape=2, optimizer=COBYLA(maxiter=9)
    )
    classifier.fit(rows, classes)
    qnn = classifier.neural_network
    assert compile_qnn(qnn).engine == "statevector"
    model = TorchConnector(qnn, classifier.weights)
    values = model(torch.tensor(rows))
    np.testing.assert_allclose(values.detach(), qnn.forward(rows, classifier.weights), atol=1e-6)
    assert np.array_equal(values.argmax(-1).numpy(), classifier.predict(rows))


def test_it_compiles_to_one_graph():
    model, x = TorchConnector(network("parity"), WEIGHTS), torch.tensor([[0.2, 0.9], [-0.4, 1.3]])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    values = compiled(x)
    torch.testing.assert_close(values, model(x))
    values[:, 0].sum().backward()
    assert model.weight.grad.abs().sum() > 0
