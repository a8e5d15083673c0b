"""Any circuit of a user's: the values and gradients of Qiskit Machine Learning, or of what it would run."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter, ParameterVector
from qiskit.circuit.library import PauliEvolutionGate, PermutationGate, RYGate, UnitaryGate, real_amplitudes
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp, random_unitary
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_qattn import TorchConnector, TorchEstimator, compile_qnn
from qiskit_qattn.simulation.density_matrix import NoisyEngine

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's matrices
X, W = Parameter("x"), Parameter("w")
ESTIMATORS = [None, StatevectorEstimator(), TorchEstimator(NoisyEngine())]
WEIGHTS = np.array([0.75])  # a number of float32 too, in which the connector takes initial weights


def network_of(circuit, inputs=(X,), weights=(W,), **options):
    n = circuit.num_qubits
    return EstimatorQNN(
        circuit=circuit,
        observables=[SparsePauliOp("Z" * n), SparsePauliOp("X" + "I" * (n - 1))],
        input_params=list(inputs),
        weight_params=list(weights),
        input_gradients=True,
        **options,
    )


def plain():
    circuit = QuantumCircuit(2)
    circuit.ry(X, 0)
    circuit.rx(W, 1)
    circuit.cx(0, 1)
    return circuit


def circuits():
    """Circuits that once were wrong, or raised."""
    clash = plain()
    gate = Gate("cz", 2, [])
    gate.definition = QuantumCircuit(2)
    gate.definition.h(1)
    gate.definition.cy(1, 0)
    clash.append(gate, [0, 1])
    parametric = plain()
    body = QuantumCircuit(1)
    body.ry(2 * W + X, 0)
    inner = body.to_gate()
    inner.name = "rz"
    parametric.append(inner, [0])
    evolved = plain()
    evolved.append(PauliEvolutionGate(SparsePauliOp(["XX", "ZI", "IZ"], [1, 0.5, 0.5]), X * W + 1), [0, 1])
    functions = plain()
    functions.rx(2**X, 0)
    functions.ry(X**W / (X + 2) ** 2, 1)
    annotated = plain()
    annotated.compose(plain().decompose(), inplace=True)
    annotated.append(RYGate(W).control(1, annotated=True), [1, 0])
    matrices = QuantumCircuit(4)
    matrices.compose(plain(), [2, 0], inplace=True)
    matrices.append(UnitaryGate(random_unitary(8, seed=1)), [3, 1, 0])
    matrices.append(PermutationGate([1, 2, 0]), [3, 0, 2])
    initial = QuantumCircuit(2)
    initial.initialize([1, 2j, 0, 1], [1, 0], normalize=True)
    initial.compose(plain(), inplace=True)
    reset = QuantumCircuit(2)
    reset.reset([0, 1])
    reset.compose(plain(), inplace=True)
    return {
        "clash": clash,
        "parametric": parametric,
        "evolved": evolved,
        "functions": functions,
        "annotated": annotated,
        "matrices": matrices,
        "initial": initial,
        "reset": reset,
    }


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", circuits())
def test_values_and_gradients_are_those_of_qiskit(name, estimator):
    circuit = circuits()[name]
    network = network_of(circuit, estimator=estimator, default_precision=0.0)
    compiled = compile_qnn(network)
    assert compiled.engine == ("density_matrix" if isinstance(estimator, TorchEstimator) else "statevector")
    reference = network_of(circuit, estimator=StatevectorEstimator(), default_precision=0.0)
    model = TorchConnector(network, WEIGHTS).double()
    x = torch.tensor([[0.4], [1.1]], dtype=torch.float64, requires_grad=True)
    values = model(x)
    np.testing.assert_allclose(values.detach(), reference.forward(x.detach().numpy(), WEIGHTS), atol=1e-10, rtol=0)
    step = 1e-5
    values[:, 0].sum().backward()
    ahead, behind = (reference.forward(x.detach().numpy() + h, WEIGHTS) for h in (step, -step))
    np.testing.assert_allclose(x.grad[:, 0], (ahead - behind)[:, 0] / (2 * step), atol=1e-8, rtol=0)
    ahead, behind = (reference.forward(x.detach().numpy(), WEIGHTS + h) for h in (step, -step))
    np.testing.assert_allclose(model.weight.grad[0], (ahead - behind)[:, 0].sum() / (2 * step), atol=1e-8, rtol=0)


def test_final_measurements_are_left_out():
    measured = plain()
    measured.barrier()
    measured.measure_all()
    x = torch.rand(3, 1)
    for options in ({}, {"estimator": TorchEstimator(NoisyEngine()), "default_precision": 0.0}):
        values = TorchConnector(network_of(measured, **options), np.array([0.3]))(x)
        torch.testing.assert_close(values, TorchConnector(network_of(plain()), np.array([0.3]))(x))


def dynamic():
    """Circuits that only the network may know how to run."""
    measured = QuantumCircuit(2, 1)
    measured.ry(X, 0)
    measured.measure(0, 0)
    measured.ry(W, 0)
    branched = QuantumCircuit(2, 1)
    branched.ry(X, 0)
    branched.measure(0, 0)
    with branched.if_test((0, 1)):
        branched.rx(W, 1)
    while_ = QuantumCircuit(2, 1)
    while_.ry(X, 0)
    while_.measure(0, 0)
    with while_.while_loop((0, 1)):
        while_.rx(W, 0)
        while_.measure(0, 0)
    reset = QuantumCircuit(2)
    reset.ry(X, 0)
    reset.reset(0)  # of a qubit that is not entangled: on others Qiskit's simulator draws an outcome
    reset.ry(W, 0)
    return {"'measure'": measured, "'if_else'": branched, "'while_loop'": while_, "'reset'": reset}


@pytest.mark.parametrize("match", dynamic())
def test_what_is_no_unitary_goes_to_the_network(match):
    compiled = compile_qnn(network_of(dynamic()[match]))
    assert compiled.engine == "network" and match in compiled.reason


@pytest.mark.parametrize("estimator", [None, StatevectorEstimator()], ids=lambda e: type(e).__name__)
def test_a_reset_in_the_middle_runs_as_in_qiskit(estimator):
    network = network_of(dynamic()["'reset'"], estimator=estimator, default_precision=0.0)
    x = torch.tensor([[0.4], [1.1]])
    ours, theirs = (kind(network, WEIGHTS) for kind in (TorchConnector, QiskitTorchConnector))
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        model(x).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("kind", ["EstimatorV2", "BackendEstimatorV2"])
def test_a_measurement_in_the_middle_runs_on_aer(kind):
    aer = pytest.importorskip("qiskit_aer")
    if kind == "EstimatorV2":
        estimator = pytest.importorskip("qiskit_aer.primitives").EstimatorV2(
            options={"default_precision": 0.01, "run_options": {"seed_simulator": 7}}
        )
    else:
        estimator = BackendEstimatorV2(
            backend=aer.AerSimulator(), options={"default_precision": 0.01, "seed_simulator": 7}
        )
    measured, final = dynamic()["'measure'"], plain()
    final.measure_all()
    model = TorchConnector(network_of(measured, estimator=estimator, default_precision=0.01), WEIGHTS)
    x = torch.tensor([[0.4], [1.1]], requires_grad=True)
    values = model(x)  # measured in Z, turned, and the other qubit is |0⟩
    values[:, 0].sum().backward()
    cos, sin = np.cos, np.sin
    angles = x.detach().numpy()[:, 0]
    np.testing.assert_allclose(values[:, 0].detach(), cos(angles) * cos(0.75), atol=0.05)
    np.testing.assert_allclose(x.grad[:, 0], -sin(angles) * cos(0.75), atol=0.05)
    np.testing.assert_allclose(model.weight.grad[0], -(cos(angles) * sin(0.75)).sum(), atol=0.1)
    model = TorchConnector(network_of(final, estimator=estimator, default_precision=0.01), WEIGHTS)
    exact = TorchConnector(network_of(plain()), WEIGHTS)
    np.testing.assert_allclose(model(x).detach(), exact(x).detach(), atol=0.05)
    assert compile_qnn(model.neural_network).engine == "pub"


def vector_network(num_qubits, wrap=QuantumCircuit.copy, order=None, **options):
    encoding = raw_feature_vector(2**num_qubits)
    entries = [encoding.data[0].operation.params[i] for i in (order or range(2**num_qubits))]
    ansatz = real_amplitudes(num_qubits, reps=1)
    circuit = wrap(encoding)
    circuit = circuit.compose(ansatz, range(num_qubits))
    circuit.rx(0.3, 0)
    return network_of(circuit, entries, ansatz.parameters, **options)


def nested(encoding):
    circuit = QuantumCircuit(encoding.num_qubits)
    circuit.append(encoding.to_instruction(), range(encoding.num_qubits))
    return circuit


def beside(encoding):
    circuit = QuantumCircuit(encoding.num_qubits + 1)
    circuit.h(1)
    return circuit.compose(encoding, [0, *range(2, encoding.num_qubits + 1)][::-1])


def turned(encoding):
    circuit = QuantumCircuit(encoding.num_qubits)
    circuit.barrier()
    return circuit.compose(encoding, list(range(encoding.num_qubits))[::-1])


@pytest.mark.parametrize("wrap", [QuantumCircuit.copy, nested, turned, beside])
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 6, 9])
def test_raw_feature_vectors_are_amplitudes(num_qubits, wrap, rng):
    order = rng.permutation(2**num_qubits).tolist()
    network = vector_network(num_qubits, wrap, order)
    assert compile_qnn(network).engine == "statevector"
    weights = rng.normal(size=network.num_weights).astype(np.float32)
    x = torch.from_numpy(rng.normal(size=(3, 2**num_qubits))).requires_grad_()
    model = TorchConnector(network, weights).double()
    np.testing.assert_allclose(model(x).detach(), network.forward(x.detach().numpy(), weights), atol=1e-10, rtol=0)
    np.testing.assert_allclose(
        TorchConnector(network, weights)(x.float()).detach(), network.forward(x.detach().numpy(), weights), atol=1e-5
    )
    if num_qubits < 4:
        assert torch.autograd.gradcheck(model, x)


def test_derivatives_of_raw_feature_vectors():
    model = TorchConnector(vector_network(2, beside)).double()
    x = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(model, x)
    (plain,) = torch.autograd.grad(model(x).sum(), x)
    (again,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    torch.testing.assert_close(plain, again)
    rows = torch.func.vmap(lambda row: model(row))(x.detach())
    torch.testing.assert_close(rows, model(x))


def test_raw_feature_vectors_learn():
    model = TorchConnector(vector_network(2))
    x = torch.rand(4, 4, requires_grad=True)
    model(x).sum().backward()
    assert x.grad.abs().max() > 0 and model.weight.grad.abs().max() > 0
    assert model(torch.zeros(1, 4)).isfinite().all()


def test_vectors_that_are_more_than_the_data_go_to_the_network():
    encoding = raw_feature_vector(4)
    entries = list(encoding.data[0].operation.params)
    again = encoding.copy()
    again.ry(entries[0], 0)
    late = QuantumCircuit(2)
    late.h(0)
    late = late.compose(encoding)
    for circuit in (again, late):
        compiled = compile_qnn(network_of(circuit, entries, ()))
        assert compiled.engine == "network" and "ParameterizedInitialize" in compiled.reason
    as_weights = network_of(encoding, (), entries)
    assert compile_qnn(as_weights).engine == "network"
    x = np.array([[1, 2, 0.5, -1]])
    network = network_of(late, entries, ())
    torch.testing.assert_close(TorchConnector(network)(torch.tensor(x)), torch.tensor(network.forward(x, [])).float())


def test_no_exception_of_others_leaves_the_compiler():
    v = ParameterVector("v", 1)
    complex_angle = QuantumCircuit(1)
    complex_angle.rx(v[0] * 1j, 0)
    empty = QuantumCircuit(1)
    empty.append(Gate("mystery", 1, [v[0]]), [0])
    for circuit in (complex_angle, empty):
        compiled = compile_qnn(network_of(circuit, v, ()))
        assert compiled.engine == "network" and compiled.reason
