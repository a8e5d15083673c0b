"""TorchEstimator is a Qiskit primitive."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError, ConfigError
from qiskit_qattn.simulation.estimator import TorchEstimator

CIRCUIT = real_amplitudes(2, reps=1)
ZX, XX = SparsePauliOp("ZX"), SparsePauliOp(["XX", "IZ"], [0.5, 2.0])


def pubs(rng):
    bound = CIRCUIT.assign_parameters(rng.normal(size=4))
    yield (bound, ZX)
    yield (bound, [ZX, XX])
    yield (CIRCUIT, ZX, rng.normal(size=4))
    yield (CIRCUIT, ZX, rng.normal(size=(5, 4)))
    yield (CIRCUIT, [ZX, XX], rng.normal(size=(2, 4)))
    yield (CIRCUIT, [[ZX], [XX]], rng.normal(size=(5, 4)))
    yield (CIRCUIT, [[ZX, XX]], rng.normal(size=(3, 1, 4)))
    yield (CIRCUIT, ZX, {("θ[0]", "θ[3]"): rng.normal(size=(6, 2)), ("θ[2]", "θ[1]"): rng.normal(size=(6, 2))})


@pytest.mark.parametrize("number", range(8))
def test_pubs_broadcast_as_qiskits_own_estimator_does(number, rng):
    pub = list(pubs(rng))[number]
    ours = TorchEstimator().run([pub]).result()[0].data
    theirs = StatevectorEstimator().run([pub]).result()[0].data
    assert np.shape(ours.evs) == np.shape(theirs.evs) == np.shape(ours.stds)
    np.testing.assert_allclose(ours.evs, theirs.evs, atol=1e-12)
    assert np.all(ours.stds == 0)


def test_several_pubs_of_different_circuits(rng):
    estimator = TorchEstimator()
    assert isinstance(estimator, BaseEstimatorV2)
    every = list(pubs(rng))
    ours, theirs = estimator.run(every).result(), StatevectorEstimator().run(every).result()
    assert len(ours) == len(every)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data.evs, b.data.evs, atol=1e-12)


def test_projectors_are_sums_of_paulis(rng):
    values = rng.normal(size=(3, 4))
    projectors = (CIRCUIT, {"0+": 1.0, "rI": -2.0}, values)
    paulis = (CIRCUIT, SparsePauliOp(["II", "IX", "ZI", "ZX", "II", "YI"], [0.25, 0.25, 0.25, 0.25, -1, -1]), values)
    ours, theirs = (job.result()[0].data.evs for job in map(TorchEstimator().run, ([projectors], [paulis])))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_sampling_has_the_asked_for_spread_and_says_it(rng):
    values = np.tile(rng.normal(size=4), (400, 1))
    exact = TorchEstimator().run([(CIRCUIT, [[ZX], [XX]], values)]).result()[0].data.evs
    result = TorchEstimator(seed=5).run([(CIRCUIT, [[ZX], [XX]], values)], precision=0.05).result()[0]
    errors = result.data.evs - exact
    assert result.metadata["shots"] == 400
    np.testing.assert_allclose(errors.mean(1), 0, atol=5 * result.data.stds.mean(1).max() / 20)
    np.testing.assert_allclose(errors.std(1), result.data.stds.mean(1), rtol=0.2)
    assert errors[0].std() <= 0.05 * 1.2


def test_noise_is_seeded_and_never_repeats_itself(rng):
    pub = (CIRCUIT, ZX, rng.normal(size=4))
    one, two = TorchEstimator(seed=3, default_precision=0.1), TorchEstimator(seed=3, default_precision=0.1)
    first = [one.run([pub]).result()[0].data.evs.item() for _ in range(3)]
    assert first == [two.run([pub]).result()[0].data.evs.item() for _ in range(3)]
    assert len(set(first)) > 1


def test_precision_of_a_pub_wins():
    pub = (CIRCUIT, ZX, np.zeros(4), 0.0)
    assert TorchEstimator(default_precision=0.5).run([pub], precision=0.3).result()[0].data.stds == 0


def test_errors():
    with pytest.raises(ConfigError, match="precision must be 0"):
        TorchEstimator().run([(CIRCUIT, ZX, np.zeros(4))], precision=-0.1)
    measured = QuantumCircuit(2, 1)
    measured.measure(0, 0)
    measured.x(0)
    with pytest.raises(CircuitError, match="measure"):
        TorchEstimator().run([(measured, ZX)]).result()
