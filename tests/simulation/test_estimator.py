"""TorchEstimator is a Qiskit primitive."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.circuit.library import UnitaryGate, real_amplitudes
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError, ConfigError
from qiskit_qattn.simulation.cache import ResultPool
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.statevector import StatevectorProgram

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


# programs that are kept between runs


class Counting:
    """The exact engine, which counts what it makes."""

    def __init__(self):
        self.made = 0

    def __call__(self, *arguments, **options):
        self.made += 1
        return StatevectorProgram(*arguments, **options)

    def settings(self):
        return ()


def same_as_qiskit(estimator, pub):
    ours, theirs = (each.run([pub]).result()[0].data.evs for each in (estimator, StatevectorEstimator()))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_a_program_is_made_once_for_a_circuit_and_its_observables(rng):
    engine = Counting()
    estimator = TorchEstimator(engine, seed=1)
    for _ in range(3):
        same_as_qiskit(estimator, (CIRCUIT, [[ZX], [XX]], rng.normal(size=(5, 4))))
        same_as_qiskit(estimator, (CIRCUIT.copy(CIRCUIT.name), [[ZX], [XX]], rng.normal(size=(2, 4))))
    assert engine.made == 1
    same_as_qiskit(estimator, (CIRCUIT, [[ZX], [2 * XX]], rng.normal(size=(5, 4))))
    estimator.run([(CIRCUIT, [[ZX], [XX]], rng.normal(size=(5, 4)))], precision=0.1).result()
    assert engine.made == 3
    for number in range(1, 41):
        same_as_qiskit(estimator, (CIRCUIT, number * ZX, rng.normal(size=4)))
    assert len(estimator._programs) == 32
    for other in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        same_as_qiskit(other, (CIRCUIT, ZX, rng.normal(size=4)))


def test_programs_larger_than_the_cache_are_not_cached(rng):
    engine = Counting()
    estimator = TorchEstimator(engine)
    estimator._programs = ResultPool(most_bytes=1000)
    for _ in range(2):
        same_as_qiskit(estimator, (CIRCUIT, ZX, rng.normal(size=4)))
    assert engine.made == 2


def test_a_circuit_that_was_changed_in_place_gives_new_values(rng):
    estimator, circuit = TorchEstimator(), CIRCUIT.copy()
    circuit.append(UnitaryGate(np.eye(2)), [0])
    part = QuantumCircuit(2)
    part.ry(0.3, 1)
    circuit.append(part.to_gate(), [0, 1])
    observables, values = [[ZX], [XX]], rng.normal(size=(3, 4))
    same_as_qiskit(estimator, (circuit, observables, values))
    circuit.ry(0.4, 0)
    same_as_qiskit(estimator, (circuit, observables, values))
    circuit.data.insert(0, circuit.data[-1])
    same_as_qiskit(estimator, (circuit, observables, values))
    at = next(number for number, item in enumerate(circuit.data) if item.name == "unitary")
    circuit.data[at] = circuit.data[at].replace(operation=UnitaryGate([[0, 1], [1, 0]]))
    same_as_qiskit(estimator, (circuit, observables, values))
    circuit.assign_parameters({circuit.parameters[0]: 0.7}, inplace=True)
    same_as_qiskit(estimator, (circuit, observables, values[:, 1:]))


def test_a_gate_of_a_local_class_that_changes_gives_new_values():
    class Turn(Gate):
        angle = 0.3

        def _define(self):
            self.definition = QuantumCircuit(1)
            self.definition.ry(self.angle, 0)

    estimator = TorchEstimator()
    for angle in (0.3, 0.8):
        Turn.angle = angle
        circuit = QuantumCircuit(1, name="turned")
        circuit.append(Turn("turn", 1, []), [0])
        assert estimator.run([(circuit, SparsePauliOp("Z"))]).result()[0].data.evs == pytest.approx(np.cos(angle))


def test_noise_that_was_added_to_the_model_is_seen():
    noise = pytest.importorskip("qiskit_aer.noise")
    model, circuit = noise.NoiseModel(), QuantumCircuit(1)
    circuit.x(0)
    estimator, found = TorchEstimator(NoisyEngine(model)), []
    for _ in range(2):
        found.append(float(estimator.run([(circuit, SparsePauliOp("Z"))]).result()[0].data.evs))
        model.add_all_qubit_quantum_error(noise.depolarizing_error(0.5, 1), ["x"])
    assert found == pytest.approx([-1, -0.5])


def test_jobs_at_one_time_do_not_disturb_each_other(rng):
    estimator = TorchEstimator()
    every = [(CIRCUIT, [[ZX], [XX]], rng.normal(size=(50, 4))) for _ in range(30)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pub: same_as_qiskit(estimator, pub), every))
