"""Qiskit Machine Learning's own classifiers and regressors on the exact engine: the values and fits of its networks."""

import pickle

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes, z_feature_map, zz_feature_map
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.algorithms import VQC, NeuralNetworkClassifier, NeuralNetworkRegressor
from qiskit_machine_learning.gradients import ParamShiftSamplerGradient, SPSASamplerGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from qiskit_machine_learning.optimizers import COBYLA, SLSQP
from qiskit_machine_learning.primitives import QMLSampler
from qiskit_machine_learning.utils import algorithm_globals

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError

MAP, ANSATZ = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
OBSERVABLES = [SparsePauliOp("ZZ"), SparsePauliOp(["XI", "IY"], [0.5, -1.0])]


def whole():
    circuit = QuantumCircuit(2)
    circuit.compose(MAP, inplace=True)
    circuit.compose(ANSATZ, inplace=True)
    return circuit


def parity(outcome):
    return bin(outcome).count("1") % 2


def sampled(**options):
    options = {"interpret": parity, "output_shape": 2} | options
    return SamplerQNN(circuit=whole(), input_params=MAP.parameters, weight_params=ANSATZ.parameters, **options)


def estimated(**options):
    options = {"observables": OBSERVABLES} | options
    return EstimatorQNN(circuit=whole(), input_params=MAP.parameters, weight_params=ANSATZ.parameters, **options)


NETWORKS = {
    "exact sampler": lambda: sampled(input_gradients=True),
    "all outcomes": lambda: sampled(interpret=None, output_shape=None),
    "tuples": lambda: sampled(interpret=lambda outcome: divmod(outcome, 2), output_shape=(2, 2), input_gradients=True),
    "shots": lambda: sampled(sampler=StatevectorSampler(seed=3, default_shots=200), input_gradients=True),
    "shots of theirs": lambda: sampled(sampler=QMLSampler(shots=50, seed=3)),
    "shots with an exact gradient": lambda: sampled(
        sampler=StatevectorSampler(seed=3, default_shots=50),
        gradient=ParamShiftSamplerGradient(QMLSampler()),
        input_gradients=True,
    ),
    "exact estimator": lambda: estimated(input_gradients=True),
    "precise estimator": lambda: estimated(estimator=StatevectorEstimator(), default_precision=0.0),
    "normal errors": lambda: estimated(estimator=StatevectorEstimator(seed=8)),
    "noisy engine": lambda: estimated(
        estimator=qa.get_backend("density_matrix?noise=depolarizing&p1=0.02&p2=0.05").estimator, default_precision=0.0
    ),
}

FURTHER = {"all outcomes", "shots of theirs", "precise estimator"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.more] if name in FURTHER else []) for name in NETWORKS]
)
def test_values_and_gradients_are_the_network_s_own(name, rng):
    theirs = NETWORKS[name]()
    ours = qa.fast(theirs)
    assert isinstance(ours, type(theirs)) and ours is not theirs and qa.fast(ours) is ours
    inputs, weights = rng.uniform(-2, 2, (2, 2, 2)), rng.uniform(-2, 2, theirs.num_weights)
    for data in (inputs, inputs[0, 0]):
        np.testing.assert_allclose(ours.forward(data, weights), theirs.forward(data, weights), atol=1e-9)
        for one, other in zip(ours.backward(data, weights), theirs.backward(data, weights), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert one.shape == other.shape
                np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_network_without_inputs_and_one_without_weights(rng):
    for parts in ({"weight_params": MAP.parameters}, {"input_params": MAP.parameters, "input_gradients": True}):
        for kind in (SamplerQNN, EstimatorQNN):
            theirs = kind(circuit=MAP, **parts)
            ours = qa.fast(theirs)
            data, weights = (rng.uniform(-1, 1, 2), None) if "input_params" in parts else (None, rng.uniform(-1, 1, 2))
            np.testing.assert_allclose(ours.forward(data, weights), theirs.forward(data, weights), atol=1e-9)
            for one, other in zip(ours.backward(data, weights), theirs.backward(data, weights), strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    np.testing.assert_allclose(one, other, atol=1e-9)


def test_sparse_output_stays_sparse(rng):
    sparse = pytest.importorskip("sparse")
    theirs = sampled(sparse=True)
    ours, data, weights = qa.fast(theirs), rng.uniform(-1, 1, (3, 2)), rng.uniform(-1, 1, 4)
    for one, other in [
        (ours.forward(data, weights), theirs.forward(data, weights)),
        (ours.backward(data, weights)[1], theirs.backward(data, weights)[1]),
    ]:
        assert isinstance(one, sparse.COO)
        np.testing.assert_allclose(one.todense(), other.todense(), atol=1e-9)


def test_shots_of_a_stream_are_as_scattered_as_they_should(rng):
    """A generator's draws are taken in another order, so that only their distribution is the same."""
    network = sampled(sampler=StatevectorSampler(seed=rng, default_shots=100))
    ours, data, weights = qa.fast(network), rng.uniform(-1, 1, (1, 2)), rng.uniform(-1, 1, 4)
    exact = qa.fast(network, exact=True)
    p = exact.forward(data, weights)[0, 0]
    drawn = np.array([ours.forward(data, weights)[0, 0] for _ in range(400)])
    assert abs(drawn.mean() - p) < 5 * np.sqrt(p * (1 - p) / 100 / 400)
    assert 0.7 < drawn.var() / (p * (1 - p) / 100) < 1.4
    slope = exact.backward(data, weights)[1][0]
    slopes = np.array([ours.backward(data, weights)[1][0] for _ in range(100)])  # (N, 2, 4)
    errors = slopes.std(0) / 10
    assert (np.abs(slopes.mean(0) - slope) < 5 * errors + 1e-12).all() and (errors > 1e-4).all()


def data_of(rng, count=8):
    x = rng.uniform(-1, 1, (count, 2))
    return x, (x.sum(1) > 0).astype(int)


def twice(build, x, y):
    """Return a model of the parent's network and one of ours, fitted from the same start."""
    models = []
    for quick in (False, True):
        algorithm_globals.random_seed = 11
        model = build()
        models.append(qa.fast(model) if quick else model)
        models[-1].fit(x, y)
    return models


@pytest.mark.parametrize(
    ("sampler", "optimizer"),
    [
        (None, COBYLA),
        (StatevectorSampler(seed=4, default_shots=300), SLSQP),
        pytest.param(None, SLSQP, marks=pytest.mark.more),
        pytest.param(StatevectorSampler(seed=4, default_shots=300), COBYLA, marks=pytest.mark.more),
    ],
)
def test_a_vqc_is_fitted_to_the_same_weights(sampler, optimizer, rng):
    x, y = data_of(rng)

    def build():
        outputs = {"interpret": parity, "output_shape": 2}  # that depend on every weight: no ties for COBYLA
        return VQC(feature_map=MAP, ansatz=ANSATZ, optimizer=optimizer(maxiter=6), sampler=sampler, **outputs)

    theirs, ours = twice(build, x, y)
    assert isinstance(ours, VQC)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.score(x, y) == theirs.score(x, y)


@pytest.mark.more
def test_a_vqc_of_three_classes_sets_the_outputs_of_its_network(rng):
    x = rng.uniform(-1, 1, (9, 2))
    y = np.arange(9) % 3
    theirs, ours = twice(lambda: VQC(feature_map=MAP, ansatz=ANSATZ, optimizer=SLSQP(maxiter=2), output_shape=3), x, y)
    assert ours.neural_network.output_shape == (3,)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        (NeuralNetworkClassifier, "sampler"),
        (NeuralNetworkRegressor, "estimator"),
        pytest.param(NeuralNetworkClassifier, "estimator", marks=pytest.mark.more),
        pytest.param(NeuralNetworkRegressor, "sampler", marks=pytest.mark.more),
    ],
)
def test_classifiers_and_regressors_are_fitted_to_the_same_weights(kind, network, rng):
    x, y = data_of(rng)
    options = {"one_hot": True} if (kind, network) == (NeuralNetworkClassifier, "sampler") else {}

    def build():
        made = sampled() if network == "sampler" else estimated(observables=OBSERVABLES[:1])
        return kind(made, optimizer=SLSQP(maxiter=4), **options)

    theirs, ours = twice(build, x, y if network == "sampler" else 2 * y - 1)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), atol=1e-5)


def test_it_may_be_given_to_the_constructor_and_pickled(rng):
    x, y = data_of(rng)
    model = NeuralNetworkClassifier(qa.fast(estimated(observables=OBSERVABLES[:1])), optimizer=COBYLA(maxiter=6))
    model.fit(x, 2 * y - 1)
    again = pickle.loads(pickle.dumps(model.neural_network))
    np.testing.assert_array_equal(again.forward(x, model.weights), model.neural_network.forward(x, model.weights))


def test_what_is_replaced_in_a_network_counts(rng):
    ours, data, weights = qa.fast(sampled()), rng.uniform(-1, 1, (2, 2)), rng.uniform(-1, 1, 4)
    before = ours.forward(data, weights)
    ours.set_interpret(lambda outcome: 1 - parity(outcome), 2)
    np.testing.assert_allclose(ours.forward(data, weights), before[:, ::-1], atol=1e-12)
    ours.sampler = StatevectorSampler(seed=1, default_shots=10)
    ours.gradient = sampled(sampler=ours.sampler).gradient
    np.testing.assert_allclose(10 * ours.forward(data, weights) % 1, 0, atol=1e-9)


def test_networks_that_run_elsewhere_are_refused_unless_exact_values_will_do(rng):
    pytest.importorskip("qiskit_aer")
    aer = qa.get_backend("aer?shots=100")
    elsewhere = sampled(sampler=aer.sampler)
    with pytest.raises(ConfigError, match=r"AerSampler runs elsewhere\. With exact=True it can"):
        qa.fast(elsewhere)
    data, weights = rng.uniform(-1, 1, (2, 2)), rng.uniform(-1, 1, 4)
    exact = qa.fast(sampled()).forward(data, weights)
    np.testing.assert_array_equal(qa.fast(elsewhere, exact=True).forward(data, weights), exact)
    assert np.abs(elsewhere.forward(data, weights) - exact).max() < 0.3
    sampler = StatevectorSampler()
    with pytest.raises(ConfigError, match="SPSASamplerGradient is no exact derivative"):
        qa.fast(sampled(sampler=sampler, gradient=SPSASamplerGradient(sampler, 0.1)))
    with pytest.raises(ConfigError, match="The engine cannot stand in for this EstimatorQNN"):
        qa.fast(estimated(estimator=aer.estimator))
    with pytest.raises(ConfigError, match="a subclass may compute something else"):
        qa.fast(type("Own", (SamplerQNN,), {})(circuit=MAP, input_params=MAP.parameters))
    with pytest.raises(ConfigError, match="got a QuantumCircuit"):
        qa.fast(whole())


def test_shots_of_the_backend_s_own_sampler_stay_shots(rng):
    sampler = qa.get_backend("statevector?shots=64&seed=2").sampler
    network = sampled(sampler=sampler)
    values = qa.fast(network).forward(rng.uniform(-1, 1, (5, 2)), rng.uniform(-1, 1, 4))
    np.testing.assert_allclose(64 * values % 1, 0, atol=1e-9)
    assert np.abs(values - qa.fast(network, exact=True).forward(*_again())).max() < 0.35


def _again():
    rng = np.random.default_rng(20240117)
    return rng.uniform(-1, 1, (5, 2)), rng.uniform(-1, 1, 4)


def test_a_repeated_parameter_is_shifted_at_each_of_its_gates(rng):
    w, circuit = Parameter("w"), QuantumCircuit(2)
    circuit.ry(w, 0)
    circuit.cx(0, 1)
    circuit.rx(2 * w + 0.3, 1)
    circuit.crz(w, 0, 1)
    network = SamplerQNN(circuit=circuit, weight_params=[w], sampler=StatevectorSampler(seed=6, default_shots=20000))
    slope = qa.fast(network, exact=True).backward(None, [0.7])[1]
    assert np.abs(qa.fast(network).backward(None, [0.7])[1] - slope).max() < 0.05
    assert np.abs(slope).max() > 0.1


def test_feature_maps_of_plain_angles_too(rng):
    encoding = z_feature_map(2, reps=1)
    circuit = encoding.compose(ANSATZ)
    network = SamplerQNN(circuit=circuit, input_params=encoding.parameters, weight_params=ANSATZ.parameters)
    data, weights = rng.uniform(-1, 1, (2, 2)), rng.uniform(-1, 1, 4)
    np.testing.assert_allclose(qa.fast(network).forward(data, weights), network.forward(data, weights), atol=1e-9)
