"""Which errors of a noise model an instruction meets: those that Aer's density matrix meets, by class and label."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import CXGate, DiagonalGate, HGate, IGate, MCXGate, UGate, UnitaryGate, ZGate
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn import get_backend
from qiskit_qattn.backends.aer import AerEstimator
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator

aer_noise = pytest.importorskip("qiskit_aer.noise")
LABELS = ["ZZ", "IX", "YI", "XY", "IZ", "ZI"]


def flip(p):
    return aer_noise.pauli_error([("X", p), ("I", 1 - p)])


def model():
    """Return a model with another error for each name."""
    noise = aer_noise.NoiseModel()
    names = ["id", "delay", "reset", "unitary", "h", "z", "ry", "marked", "barrier", "initialize", "measure", "u"]
    for index, name in enumerate(names):
        error = flip(0.02 + 0.02 * index).compose(aer_noise.amplitude_damping_error(0.05 + 0.01 * index))
        noise.add_all_qubit_quantum_error(error, name, warnings=False)
    noise.add_quantum_error(flip(0.3), "id", [1], warnings=False)
    noise.add_all_qubit_quantum_error(aer_noise.depolarizing_error(0.1, 2), ["cx", "marked pair"], warnings=False)
    return noise


def by_aer(circuit, noise):
    from qiskit_aer import AerSimulator

    observed = circuit.copy()
    for label in LABELS:
        observed.save_expectation_value(SparsePauliOp(label), range(2), label=label)
    data = AerSimulator(method="density_matrix", noise_model=noise).run(observed, shots=1).result().data(0)
    return [data[label] for label in LABELS]


def values(estimator, circuit):
    return estimator.run([(circuit, [SparsePauliOp(label) for label in LABELS])]).result()[0].data.evs


def start():
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.ry(0.4, 1)
    circuit.cx(0, 1)
    return circuit


def labelled(gate, label):
    gate = gate.to_mutable()
    gate.label = label
    return gate


STEPS = {
    "id": lambda c: c.id([0, 1]),
    "delay": lambda c: c.delay(100, 0),
    "reset": lambda c: c.reset(0),
    "barrier": lambda c: c.barrier(),
    "unitary": lambda c: c.unitary(np.eye(2), 1),
    "labelled gate": lambda c: c.append(HGate(label="marked"), [1]),
    "labelled id": lambda c: c.append(IGate(label="marked"), [0]),
    "label without error": lambda c: c.append(ZGate(label="another"), [0]),
    "labelled unitary": lambda c: c.append(UnitaryGate(np.eye(2), label="marked"), [0]),
    "labelled pair": lambda c: c.append(CXGate(label="marked pair"), [1, 0]),
    "labelled diagonal": lambda c: c.append(labelled(DiagonalGate([1, 1j]), "marked"), [0]),
    "u": lambda c: c.append(UGate(0.3, 0.2, 0.1), [0]),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_instruction_meets_the_error_that_aer_applies(step):
    noise, circuit = model(), start()
    STEPS[step](circuit)
    circuit.cx(1, 0)
    expected = by_aer(circuit, noise)
    np.testing.assert_allclose(values(TorchEstimator(NoisyEngine(noise)), circuit), expected, atol=1e-6)
    from qiskit_aer import AerSimulator

    aer = AerEstimator(AerSimulator(method="density_matrix"), noise)
    np.testing.assert_allclose(values(aer, circuit), expected, atol=1e-6)


def test_a_composite_meets_the_errors_of_its_gates():
    inner = QuantumCircuit(2, name="cx")
    inner.ry(0.3, 1)
    inner.h(0)
    composed, spelled = start(), start()
    composed.append(inner.to_gate(), [1, 0])
    spelled.compose(inner, [1, 0], inplace=True)
    noise = model()
    found = values(TorchEstimator(NoisyEngine(noise)), composed)
    np.testing.assert_allclose(found, by_aer(spelled, noise), atol=1e-6)


def test_open_controls_meet_the_errors_of_what_they_are_made_of():
    noise, opened, spelled = model(), start(), start()
    noise.add_all_qubit_quantum_error(flip(0.1), "x")
    opened.append(MCXGate(1, ctrl_state=0), [0, 1])
    spelled.x(0)
    spelled.cx(0, 1)
    spelled.x(0)
    found = values(TorchEstimator(NoisyEngine(noise)), opened)
    np.testing.assert_allclose(found, by_aer(spelled, noise), atol=1e-6)


def test_initialize_is_one_instruction_without_noise():
    noise, circuit = model(), start()
    circuit.initialize([0.6, 0.8], 1)
    circuit.ry(0.2, 1)
    found = values(TorchEstimator(NoisyEngine(noise)), circuit)
    prepared = start()
    prepared.barrier()
    expected = aer_noise.NoiseModel()
    for name, error in noise._default_quantum_errors.items():
        if name not in ("reset", "unitary"):
            expected.add_all_qubit_quantum_error(error, name, warnings=False)
    prepared.reset(1)
    prepared.unitary(np.array([[0.6, -0.8], [0.8, 0.6]]), 1)
    prepared.ry(0.2, 1)
    np.testing.assert_allclose(found, by_aer(prepared, expected), atol=1e-6)


@pytest.mark.parametrize("layout", [None, [3, 1]])
def test_delays_relax_as_on_the_device(layout):
    """A model of a device brings a pass that adds relaxation after delays, on physical qubits."""
    fake = pytest.importorskip("qiskit_ibm_runtime.fake_provider").FakeManilaV2()
    from qiskit_aer import AerSimulator

    noise = aer_noise.NoiseModel.from_backend(fake)
    where = layout or [0, 1]
    circuit = QuantumCircuit(5)
    circuit.x(where)
    circuit.delay(200, where[0], unit="us")
    circuit.delay(160000, where[1], unit="dt")
    circuit.delay(160000, 2, unit="dt")  # an idle qubit is not in use
    observables = [SparsePauliOp.from_sparse_list([("Z", [qubit], 1)], 5) for qubit in where]
    observed = circuit.copy()
    for index, operator in enumerate(observables):
        observed.save_expectation_value(operator, range(5), label=str(index))
    data = AerSimulator(method="density_matrix", noise_model=noise).run(observed, shots=1).result().data(0)
    expected = [data["0"], data["1"]]
    assert expected[0] > -0.6  # relaxed by much
    engine = NoisyEngine(noise, readout=False)
    found = TorchEstimator(engine).run([(circuit, observables)]).result()[0].data.evs
    np.testing.assert_allclose(found, expected, atol=1e-6)
    noise._local_readout_errors.clear()
    aer = AerEstimator(AerSimulator(method="density_matrix"), noise)
    np.testing.assert_allclose(aer.run([(circuit, observables)]).result()[0].data.evs, expected, atol=1e-6)


def test_both_noisy_backends_agree_on_waiting_and_resetting():
    circuit = start()
    circuit.id(0)
    circuit.delay(1600, 0)
    circuit.reset(1)
    circuit.ry(0.9, 1)
    circuit.cx(1, 0)
    for text in ("noise=fake_manila", "noise=thermal&t1=50&t2=40", "noise=depolarizing&p1=0.01&p2=0.05"):
        found = []
        for name in ("density_matrix", "aer"):
            backend = get_backend(f"{name}?{text}")
            isa, operators = circuit, [SparsePauliOp(label) for label in LABELS]
            if backend.pass_manager is not None:
                isa = backend.pass_manager.run(circuit)
                operators = [operator.apply_layout(isa.layout) for operator in operators]
            found.append(backend.estimator.run([(isa, operators)]).result()[0].data.evs)
        np.testing.assert_allclose(*found, atol=1e-6)


def test_noise_passes_of_other_kinds_are_refused():
    noise = aer_noise.NoiseModel()
    noise._custom_noise_passes.append(aer_noise.RelaxationNoisePass([1e-4], [1e-4], dt=1e-9))
    circuit = QuantumCircuit(1)
    circuit.delay(10, 0)
    with pytest.raises(CircuitError, match="RelaxationNoisePass is not supported"):
        TorchEstimator(NoisyEngine(noise)).run([(circuit, "Z")]).result()


def test_measurements_at_the_end_are_dropped_and_others_refused():
    noise = aer_noise.NoiseModel()
    circuit = start()
    expected = by_aer(circuit, noise)
    circuit.measure_all()
    np.testing.assert_allclose(values(TorchEstimator(NoisyEngine(noise)), circuit), expected, atol=1e-10)
    circuit.x(0)
    with pytest.raises(CircuitError, match="uses classical bits before the end"):
        values(TorchEstimator(NoisyEngine(noise)), circuit)
