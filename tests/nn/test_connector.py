"""TorchConnector keeps Qiskit Machine Learning's contract."""

import copy

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map, zz_feature_map
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from qiskit_machine_learning.gradients import (
    DerivativeType,
    LinCombEstimatorGradient,
    ParamShiftEstimatorGradient,
    SPSAEstimatorGradient,
)
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qiskit_qattn import TorchConnector, TorchEstimator, compile_qnn
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.simulation.statevector import StatevectorProgram

OBSERVABLES = {
    (1, "default"): None,
    (1, "one"): SparsePauliOp("Z"),
    (2, "default"): None,
    (2, "one"): SparsePauliOp("ZZ"),
    (2, "several"): [SparsePauliOp("ZI"), SparsePauliOp(["IZ", "XX"], [1.0, -0.5])],
}


def estimator_qnn(num_qubits=2, observables=None, feature_map=z_feature_map, **options):
    inputs, ansatz = feature_map(num_qubits, reps=1), real_amplitudes(num_qubits, reps=1)
    options.setdefault("input_gradients", True)
    return EstimatorQNN(
        circuit=inputs.compose(ansatz),
        observables=observables,
        input_params=inputs.parameters,
        weight_params=ansatz.parameters,
        **options,
    )


def sampler_qnn(num_qubits=2, sparse=False):
    inputs, ansatz = z_feature_map(num_qubits, reps=1), real_amplitudes(num_qubits, reps=1)
    return SamplerQNN(
        circuit=inputs.compose(ansatz),
        input_params=inputs.parameters,
        weight_params=ansatz.parameters,
        interpret=lambda x: f"{x:b}".count("1") % 2,
        output_shape=2,
        sparse=sparse,
        input_gradients=True,
    )


@pytest.mark.parametrize("case", OBSERVABLES, ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_values_and_weight_gradients_are_the_networks(case, batch):
    network = estimator_qnn(case[0], OBSERVABLES[case])
    model = TorchConnector(network)
    assert isinstance(model._program, StatevectorProgram)
    x = torch.rand(batch, network.num_inputs)
    np.testing.assert_allclose(model(x).detach(), network.forward(x.numpy(), model.weight.detach().numpy()), atol=1e-6)
    model(x).sum().backward()
    _, expected = network.backward(x.numpy(), model.weight.detach().numpy())
    np.testing.assert_allclose(model.weight.grad, expected.sum((0, 1)), atol=1e-5)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 3, 2)])
def test_shapes_from_one_to_three_axes(shape):
    network = estimator_qnn(2, [SparsePauliOp("ZI"), SparsePauliOp("IZ"), SparsePauliOp("XX")], zz_feature_map)
    weights = np.linspace(-1, 1, network.num_weights)
    ours, theirs = TorchConnector(network, weights), QiskitTorchConnector(network, weights)
    x, y = torch.rand(shape, requires_grad=True), None
    y = ours(x)
    assert y.shape == (*shape[:-1], 3) == theirs(x.detach()).shape
    assert y.dtype == theirs(x.detach()).dtype
    torch.testing.assert_close(y, theirs(x.detach()), atol=1e-6, rtol=0)
    y.square().sum().backward()  # three axes fail in the parent
    flat = x.detach().reshape(-1, 2).requires_grad_()
    theirs(flat).square().sum().backward()
    torch.testing.assert_close(x.grad.reshape(-1, 2), flat.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [estimator_qnn, sampler_qnn])
def test_a_wrong_size_is_the_parents_error(make):
    with pytest.raises(QiskitMachineLearningError, match="Invalid input dimension"):
        TorchConnector(make())(torch.rand(1, 3))


def test_gradcheck_in_double_precision():
    model = TorchConnector(estimator_qnn(2, OBSERVABLES[(2, "several")], zz_feature_map)).double()
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, x)
    assert torch.autograd.gradcheck(lambda w: torch.func.functional_call(model, {"weight": w}, x), model.weight)


def test_second_derivatives():
    model = TorchConnector(estimator_qnn()).double()
    assert torch.autograd.gradgradcheck(model, torch.rand(2, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("sparse", [False, True])
def test_sampler_networks_run_as_in_the_parent(sparse):
    network = sampler_qnn(sparse=sparse)
    weights = np.linspace(-1, 1, network.num_weights)
    ours, theirs = TorchConnector(network, weights), QiskitTorchConnector(network, weights)
    x = torch.rand(2, 2)
    left, right = ours(x), theirs(x)
    assert ours.sparse is theirs.sparse is sparse and left.is_sparse == sparse
    if sparse:
        left, right = left.to_dense(), right.to_dense()
    torch.testing.assert_close(left, right)
    left.sum().backward()
    assert ours.weight.grad is not None


def test_sparse_output_of_a_dense_network_is_the_parents_error():
    with pytest.raises(QiskitMachineLearningError, match="must be sparse as well"):
        TorchConnector(estimator_qnn(), sparse=True)


def test_state_dicts_are_interchangeable():
    network = estimator_qnn()
    ours, theirs = TorchConnector(network), QiskitTorchConnector(network)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert "weight" in ours.state_dict()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.weight, theirs.weight)
    theirs.load_state_dict(TorchConnector(network).state_dict())


def test_initial_weights_and_attributes():
    network = estimator_qnn()
    model = TorchConnector(network, initial_weights=np.array([0.1, 0.2, 0.3, 0.4]))
    assert model.weight.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert model.neural_network is network
    assert isinstance(model, QiskitTorchConnector)
    assert TorchConnector(network).weight.abs().max() <= 1


def test_no_inputs_and_no_weights():
    w = ParameterVector("w", 1)
    circuit = QuantumCircuit(1)
    circuit.ry(w[0], 0)
    only_weights = EstimatorQNN(circuit=circuit, weight_params=list(w), input_gradients=True)
    model = TorchConnector(only_weights, np.array([0.3]))
    assert model().item() == pytest.approx(np.cos(0.3), abs=1e-6)
    assert model().item() == pytest.approx(QiskitTorchConnector(only_weights, np.array([0.3]))().item(), abs=1e-6)
    only_inputs = EstimatorQNN(circuit=circuit, input_params=list(w), input_gradients=True)
    assert TorchConnector(only_inputs)(torch.tensor([[0.3], [0.0]]))[:, 0].tolist() == pytest.approx(
        [np.cos(0.3), 1.0], abs=1e-6
    )


def test_inputs_and_weights_keep_their_order_whatever_their_names():
    b, a = ParameterVector("b", 2), ParameterVector("a", 1)
    circuit = QuantumCircuit(2)
    circuit.ry(b[1], 0)
    circuit.rx(b[0], 1)
    circuit.cry(a[0], 0, 1)
    network = EstimatorQNN(
        circuit=circuit,
        input_params=[b[1], a[0]],
        weight_params=[b[0]],
        input_gradients=True,
        observables=[SparsePauliOp("ZI"), SparsePauliOp("IX")],
    )
    x, w = torch.rand(4, 2), np.array([0.7])
    torch.testing.assert_close(TorchConnector(network, w)(x), QiskitTorchConnector(network, w)(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("estimator", [None, StatevectorEstimator(), TorchEstimator()], ids=["qml", "qiskit", "ours"])
def test_exact_estimators_run_on_the_engine(estimator):
    assert isinstance(
        TorchConnector(estimator_qnn(estimator=estimator, default_precision=0.0))._program, StatevectorProgram
    )


def test_estimators_with_noise_get_broadcast_pubs():
    calls = []

    class Counting(TorchEstimator):
        def run(self, pubs, *, precision=None):
            calls.append((len(pubs := list(pubs)), precision))
            return super().run(pubs, precision=precision)

    noisy = Counting(seed=1)
    network = estimator_qnn(2, OBSERVABLES[(2, "several")], zz_feature_map, estimator=noisy, default_precision=0.05)
    weights = np.linspace(-1, 1, network.num_weights)
    model = TorchConnector(network, weights)
    assert isinstance(model._program, PubProgram)
    x = torch.rand(8, 2, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert calls == [(1, 0.05), (1, 0.05)]  # one PUB a pass, at the asked-for precision in both
    exact = TorchConnector(estimator_qnn(2, OBSERVABLES[(2, "several")], zz_feature_map), weights)
    z = x.detach().clone().requires_grad_()
    exact(z).sum().backward()
    assert (y - exact(z)).abs().max() < 5 * 0.05 * 1.5
    assert (model.weight.grad - exact.weight.grad).abs().max() < 5 * 0.05 * np.sqrt(8 * 2)
    assert not torch.equal(y, exact(z))


def test_broadcast_pubs_give_exact_gradients(rng):
    network = estimator_qnn(2, OBSERVABLES[(2, "several")], zz_feature_map)
    program = PubProgram(
        network.circuit,
        list(network.observables),
        input_params=network.input_params,
        weight_params=network.weight_params,
        estimator=StatevectorEstimator(),
        precision=0.0,
    )
    x = torch.from_numpy(rng.normal(size=(3, 2))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=4)).requires_grad_()
    assert torch.autograd.gradcheck(program, (x, w))


def test_backend_estimators_work(rng):
    aer = pytest.importorskip("qiskit_aer")
    backend = aer.AerSimulator(seed_simulator=7)
    network = estimator_qnn(
        2, SparsePauliOp("ZZ"), estimator=BackendEstimatorV2(backend=backend), default_precision=0.02
    )
    weights = np.linspace(-1, 1, network.num_weights)
    x = torch.rand(4, 2)
    exact = TorchConnector(estimator_qnn(2, SparsePauliOp("ZZ")), weights)(x)
    assert (TorchConnector(network, weights)(x) - exact).abs().max() < 5 * 0.02


def test_gradient_methods_that_are_no_derivative_stay_the_users():
    estimator = StatevectorEstimator()
    spsa = SPSAEstimatorGradient(estimator, epsilon=0.1, seed=3)
    assert TorchConnector(estimator_qnn(estimator=estimator, gradient=spsa, default_precision=0.0))._program is None
    comb = LinCombEstimatorGradient(estimator)
    model = TorchConnector(estimator_qnn(estimator=estimator, gradient=comb, default_precision=0.0))
    assert isinstance(model._program, StatevectorProgram)


@pytest.mark.parametrize("kind", ["IMAG", "COMPLEX"])
def test_other_derivatives_stay_the_networks(kind):
    estimator = StatevectorEstimator()
    gradient = LinCombEstimatorGradient(estimator, derivative_type=DerivativeType[kind])
    network = estimator_qnn(estimator=estimator, gradient=gradient, default_precision=0.0)
    compiled = compile_qnn(network)
    assert compiled.engine == "network" and f"derivative_type {kind}" in compiled.reason


def test_gradients_and_networks_of_somebodys_own_stay_theirs():
    class Doubled(EstimatorQNN):
        def _forward_postprocess(self, num_samples, result):
            return 2 * super()._forward_postprocess(num_samples, result)

    class OwnGradient(ParamShiftEstimatorGradient):
        pass

    class OwnEstimator(StatevectorEstimator):
        pass

    estimator = StatevectorEstimator()
    inputs, ansatz = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    params = {"input_params": inputs.parameters, "weight_params": ansatz.parameters}
    doubled = Doubled(circuit=inputs.compose(ansatz), **params)
    assert str(compile_qnn(doubled)) == "network: Doubled is a subclass of EstimatorQNN."
    weights, x = np.linspace(-1, 1, 4), torch.rand(3, 2)
    torch.testing.assert_close(TorchConnector(doubled, weights)(x), 2 * TorchConnector(estimator_qnn(), weights)(x))
    own = estimator_qnn(estimator=estimator, gradient=OwnGradient(estimator), default_precision=0.0)
    assert "OwnGradient is no exact derivative" in compile_qnn(own).reason
    noisy = StatevectorEstimator(default_precision=0.1)
    other = estimator_qnn(estimator=estimator, gradient=ParamShiftEstimatorGradient(noisy), default_precision=0.0)
    assert "has an estimator of its own, StatevectorEstimator" in compile_qnn(other).reason
    assert compile_qnn(estimator_qnn(estimator=OwnEstimator(), default_precision=0.0)).engine == "pub"


def test_a_replaced_estimator_is_noticed():
    network = estimator_qnn(default_precision=0.1)
    model = TorchConnector(network)
    exact = model(torch.rand(1, 2))
    assert isinstance(model._program, StatevectorProgram)
    network.estimator = TorchEstimator(seed=1)
    assert "ParamShiftEstimatorGradient has an estimator of its own" in compile_qnn(network).reason
    network.gradient = ParamShiftEstimatorGradient(network.estimator)
    model(torch.rand(1, 2))
    assert isinstance(model._program, PubProgram)
    assert exact.shape == (1, 1)


def test_it_trains_inside_a_model_and_copies():
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), TorchConnector(estimator_qnn()), torch.nn.Linear(1, 1))
    x = torch.rand(16, 4)
    target = torch.sin(3 * x.sum(-1, keepdim=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))


def test_single_and_batched_gradients_agree():
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), TorchConnector(estimator_qnn(), np.full(4, 0.1)))
    x = torch.rand(5, 4)
    sum(model(row).sum() for row in x).backward()
    one_by_one = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    for p, expected in zip(model.parameters(), one_by_one, strict=True):
        torch.testing.assert_close(p.grad, expected, atol=1e-5, rtol=0)


def test_circuits_too_wide_for_the_engine_stay_with_the_parent():
    circuit = QuantumCircuit(31)
    circuit.h(circuit.qubits)
    w = ParameterVector("w", 1)
    circuit.ry(w[0], 0)
    network = EstimatorQNN(circuit=circuit, weight_params=list(w), observables=SparsePauliOp("I" * 30 + "Z"))
    assert TorchConnector(network)._program is None


def test_compile_qnn_tells_the_engine_and_why():
    exact = compile_qnn(estimator_qnn())
    assert (exact.engine, type(exact.program)) == ("statevector", StatevectorProgram)
    assert str(exact) == (
        "statevector: QMLEstimator returns exact values; 2 qubits, 1 data-dependent phase, 1 measurement basis, "
        "fused unitaries."
    )
    sampled = compile_qnn(estimator_qnn(estimator=StatevectorEstimator()))
    assert sampled.engine == "pub" and "StatevectorEstimator at precision 0.015625" in sampled.reason
    assert compile_qnn(sampler_qnn()).reason.startswith("QMLSampler returns exact probabilities; 2 qubits")
    spsa = SPSAEstimatorGradient(StatevectorEstimator(), epsilon=0.1)
    itself = "so the network computes values and gradients itself."
    reason = compile_qnn(estimator_qnn(gradient=spsa)).reason
    assert reason == f"SPSAEstimatorGradient is no exact derivative, {itself}"
    estimator = StatevectorEstimator(seed=1)
    comb = compile_qnn(estimator_qnn(estimator=estimator, gradient=LinCombEstimatorGradient(estimator)))
    assert comb.engine == "network"
    assert (
        comb.reason == f"StatevectorEstimator is not exact and LinCombEstimatorGradient is no parameter shift, {itself}"
    )
    wide = EstimatorQNN(circuit=QuantumCircuit(31), observables=SparsePauliOp("Z" * 31))
    assert "at most 30 qubits here, got 31" in compile_qnn(wide).reason
