"""Braket's local simulators against the exact engine, and backend strings that cannot be."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import Pauli, SparsePauliOp, Statevector

from qiskit_qattn import QuantumHead, attention_circuit, get_backend, list_circuits
from qiskit_qattn.backends.braket.circuits import BraketProgram, program_sets
from qiskit_qattn.backends.braket.local import GATES
from qiskit_qattn.backends.braket.provider import PROVIDER, braket
from qiskit_qattn.backends.gradients import SPSA, Simulated
from qiskit_qattn.backends.measurement import Plan, Samples, shots_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import BackendError, ConfigError, UnknownNameError
from qiskit_qattn.simulation.estimator import TorchEstimator

OPERATORS = [SparsePauliOp(["ZZI", "XIY", "III"], [0.5, -2.0, 0.25]), SparsePauliOp("YXI"), SparsePauliOp("IIZ")]


def backend_of(text):
    return PROVIDER.build(BackendSpec.parse(text))


def three_qubits():
    angles = ParameterVector("x", 3)
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(angles[qubit], qubit)
        circuit.rx(0.3 + angles[qubit], qubit)
        circuit.cx(qubit, (qubit + 1) % 3)
        circuit.barrier()
    circuit.global_phase = angles[0]
    return circuit


def pubs_of(name, num_qubits, rng, rows=3):
    circuit = attention_circuit(name, num_qubits)
    points = rng.normal(size=(rows, circuit.circuit.num_parameters))
    return circuit, (circuit.circuit, [[operator] for operator in circuit.observables], points)


def exact(pub):
    return TorchEstimator().run([pub]).result()[0].data.evs


def run(estimator, pub, **options):
    return estimator.run([pub], **options).result()[0].data


@pytest.mark.parametrize("num_qubits", [2, 3, 4])
@pytest.mark.parametrize("name", list_circuits())
def test_exact_values_are_those_of_the_engine(name, num_qubits, rng):
    _, pub = pubs_of(name, num_qubits, rng)
    target = "local_dm" if num_qubits == 2 else "local"
    backend = backend_of(f"braket:{target}")
    found = run(backend.estimator, pub, precision=backend.precision)
    np.testing.assert_allclose(found.evs, exact(pub), atol=1e-6)
    assert not found.stds.any()


@pytest.mark.parametrize("target", ["local", "local_dm"])
@pytest.mark.parametrize("name", list_circuits())
def test_samples_scatter_around_them(name, target, rng):
    _, pub = pubs_of(name, 2, rng)
    backend = backend_of(f"braket:{target}?shots=2000")
    found, expected = run(backend.estimator, pub, precision=backend.precision), exact(pub)
    assert (np.abs(found.evs - expected) <= 5 * np.maximum(found.stds, 1 / 2000)).all()
    assert not np.array_equal(found.evs, expected)
    assert (found.stds < 1.1 * backend.precision * np.abs(expected).size).all()


@pytest.mark.parametrize("precision", [0.0, 0.02])
@pytest.mark.parametrize(
    ("observables", "shape"),
    [
        ([[operator] for operator in OPERATORS], (4,)),
        (OPERATORS, (3,)),
        (OPERATORS, (4, 1)),
        (OPERATORS[0], ()),
        (OPERATORS[1], (2, 2)),
        (SparsePauliOp("III", [2.0]), (2,)),
        ({"0+I": 1.5, "IIr": 1.0}, (2,)),
    ],
)
def test_pubs_of_all_shapes(observables, shape, precision, rng):
    pub = (three_qubits(), observables, rng.normal(size=(*shape, 3)))
    found = run(backend_of("braket:local").estimator, pub, precision=precision)
    expected = exact(pub)
    assert found.evs.shape == expected.shape
    bound = 1e-6 if precision == 0 else 5 * np.maximum(found.stds, 1e-6)
    assert (np.abs(found.evs - expected) <= bound).all()


def test_a_circuit_without_parameters(rng):
    circuit = three_qubits().assign_parameters(rng.normal(size=3))
    pub = (circuit, OPERATORS)
    estimator = backend_of("braket:local").estimator
    np.testing.assert_allclose(run(estimator, pub).evs, exact(pub), atol=1e-6)
    sampled = run(estimator, pub, precision=0.02)
    assert (np.abs(sampled.evs - exact(pub)) <= 5 * sampled.stds).all()


@pytest.mark.parametrize(
    "noise",
    ["noise=depolarizing&p1=0.02&p2=0.05", "noise=amplitude_damping&gamma=0.03", "noise=phase_damping&gamma=0.04"],
)
@pytest.mark.parametrize("name", list_circuits())
def test_noise_means_what_it_means_to_the_noisy_engine(name, noise, rng):
    _, pub = pubs_of(name, 2, rng, rows=2)
    ours, theirs = backend_of(f"braket:local_dm?{noise}").estimator, get_backend(f"density_matrix?{noise}").estimator
    found, expected = run(ours, pub).evs, run(theirs, pub).evs
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - exact(pub)).max() > 1e-3


def test_a_head_runs_and_learns_there():
    head = QuantumHead(attention_circuit("qsann", 2)).double()
    x = torch.randn(2, head.num_features, dtype=torch.float64, requires_grad=True)
    expected = head(x)
    grads = torch.autograd.grad(expected.square().sum(), (x, head.weight))
    head.to_backend(backend_of("braket:local"))
    values = head(x)
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)
    again = torch.autograd.grad(values.square().sum(), (x, head.weight))
    for one, other in zip(grads, again, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_a_plan_measures_each_basis_once(rng):
    pub = EstimatorPub.coerce((three_qubits(), [[operator] for operator in OPERATORS], rng.normal(size=(4, 3))), 0.1)
    plan = Plan(pub)
    assert sorted(plan.terms) == ["IIZ", "XIY", "YXI", "ZZI"]
    assert len(plan.bases) == 3 and plan.size == 12  # ZZI and IIZ share one
    elementwise = Plan(EstimatorPub.coerce((three_qubits(), OPERATORS, rng.normal(size=(3, 3))), 0.1))
    assert elementwise.size == 4  # ZZI and IIZ of different rows, XIY and YXI


def test_a_plan_gives_exact_values_of_exact_probabilities(rng):
    circuit = three_qubits()
    pub = (circuit, [[operator] for operator in OPERATORS], rng.normal(size=(4, 3)))
    plan = Plan(EstimatorPub.coerce(pub, 0.1))
    bits = np.arange(8)[:, None] >> np.arange(3) & 1

    def samples():
        for basis in plan.bases:
            for row in basis.rows:
                bound = circuit.assign_parameters(plan.points[row])
                for qubit, letter in enumerate(reversed(basis.label)):
                    if letter in "XY":
                        bound.append(_rotation(letter), [qubit])
                yield Samples(bits, Statevector(bound).probabilities(), 100)

    values = plan.from_samples(samples())
    np.testing.assert_allclose(values.evs, exact(pub), atol=1e-9)
    for row, point in enumerate(plan.points):  # of one Pauli string the variance is that of a coin
        mean = Statevector(circuit.assign_parameters(point)).expectation_value(Pauli("YXI"))
        assert values.stds[1, row] == pytest.approx(np.sqrt((1 - mean**2) / 100))


def _rotation(letter):
    change = QuantumCircuit(1)
    if letter == "Y":
        change.sdg(0)
    change.h(0)
    return change.to_gate()


@pytest.mark.parametrize("most", [1, 5, 12, 100])
def test_program_sets_hold_no_more_than_they_may(most, rng):
    pub = EstimatorPub.coerce((three_qubits(), [[operator] for operator in OPERATORS], rng.normal(size=(4, 3))), 0.1)
    sizes = [some.total_executables for some in program_sets([BraketProgram(pub)], most, 10)]
    assert sum(sizes) == 12 and sizes[:-1] == [most] * (len(sizes) - 1) and sizes[-1] <= most


def test_shots_of_a_precision():
    assert [shots_of(backend_of(f"braket:local?shots={shots}").precision) for shots in (1, 7, 1000)] == [1, 7, 1000]
    for precision in (0.0, -1.0, float("nan"), 1e-9):
        with pytest.raises(BackendError, match="Set shots in the backend string"):
            shots_of(precision)


def test_options_reach_the_backend():
    assert backend_of("braket:local").shots is None
    assert backend_of("braket:local?gradient=simulated").gradient == Simulated()
    rule = backend_of("braket:local_dm?gradient=spsa&spsa_samples=3&shots=9").gradient
    assert isinstance(rule, SPSA) and rule.samples == 3
    assert backend_of("braket:local?shots=9").name == "braket:local?shots=9"
    assert set(GATES) > {"cx", "rz"}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("braket", ConfigError, "needs a target, such as braket:local"),
        ("braket:local_mps", UnknownNameError, "Known: local, local_dm"),
        ("braket:local?shots=0", ConfigError, "shots must be an integer of at least 1"),
        ("braket:local?s3=a/b", ConfigError, "s3 is for AWS devices"),
        ("braket:local?budget=5usd", ConfigError, "budget is for AWS devices"),
        ("braket:local?noise=depolarizing", ConfigError, "noise needs the target local_dm"),
        ("braket:sv1?noise=depolarizing", ConfigError, "noise needs the target local_dm"),
        ("braket:local_dm?noise=depolarising", UnknownNameError, "Did you mean 'depolarizing'"),
        ("braket:local_dm?noise=depolarizing&p1=0.1", ConfigError, "needs p2"),
        ("braket:local_dm?noise=phase_damping&p1=0.1", ConfigError, "p1 is not used with noise=phase_damping"),
        ("braket:local_dm?gamma=0.1", ConfigError, "gamma is not used with noise=none"),
        ("braket:local_dm?noise=phase_damping&gamma=2", ConfigError, "between 0 and 1"),
        ("braket:sv1?s3=bucket", ConfigError, "form bucket/prefix"),
        ("braket:sv1?shots=0", ConfigError, "shots must be an integer of at least 1"),
        ("braket:arn:aws", ConfigError, "no ARN of a device"),
    ],
)
def test_strings_that_cannot_be(text, error, message):
    with pytest.raises(error, match=message):
        braket(BackendSpec.parse(text))


def test_too_many_qubits_and_a_negative_precision():
    estimator = backend_of("braket:local_dm").estimator
    circuit = QuantumCircuit(14)
    with pytest.raises(BackendError, match="14 qubits, but Braket's local simulator braket_dm takes at most 13"):
        estimator.run([(circuit, SparsePauliOp("Z" * 14))])
    with pytest.raises(ConfigError, match="precision must be 0"):
        estimator.run([(QuantumCircuit(1), SparsePauliOp("Z"))], precision=-0.1)


@pytest.mark.parametrize("name", ["pi", "angle", "input", "a b", "θ[0]"])
def test_parameters_may_have_names_that_mean_something_in_openqasm(name):
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter(name), 0)
    pub = (circuit, SparsePauliOp("Z"), [[0.3], [0.4]])
    for text in ("braket:local", "aer", "statevector"):
        estimator = get_backend(text).estimator
        np.testing.assert_allclose(estimator.run([pub]).result()[0].data.evs, np.cos([0.3, 0.4]), atol=1e-6)
    sampled = get_backend("braket:local?shots=10000").estimator.run([pub]).result()[0].data.evs
    np.testing.assert_allclose(sampled, np.cos([0.3, 0.4]), atol=0.05)
