"""Samplers of backends: their registers are Qiskit's, and their counts those of the state, on every provider."""

import re

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, Parameter, QuantumRegister
from qiskit.circuit.classical import expr
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import Statevector
from scipy.stats import chisquare

from qiskit_qattn import get_backend
from qiskit_qattn.errors import CircuitError, ConfigError

for module in ("qiskit_aer", "qiskit_ibm_runtime", "qiskit_braket_provider"):
    pytest.importorskip(module)

A, B = Parameter("b"), Parameter("a")  # not in the order of their names
SHOTS = 2000
EXACT = [
    f"statevector?shots={SHOTS}&seed=3",
    f"statevector?shots={SHOTS}&seed=3&method=mps",
    f"density_matrix?shots={SHOTS}&seed=3",
    f"aer?shots={SHOTS}&seed=3",
    f"aer:matrix_product_state?shots={SHOTS}&seed=3",
    f"ibm:fake_manila?shots={SHOTS}&seed=3&noise=off",
    f"braket:local?shots={SHOTS}",
]


def two_registers():
    """Two registers, of which bits are measured out of order, one from a qubit nothing acts on, one never."""
    circuit = QuantumCircuit(
        QuantumRegister(4, "q"), ClassicalRegister(9, "alpha"), ClassicalRegister(2, "beta"), metadata={"about": "it"}
    )
    circuit.ry(A, 0)
    circuit.cx(0, 2)
    circuit.ry(2 * B, 3)
    circuit.cx(2, 3)
    circuit.measure([0, 2, 3], [8, 1, 10])
    circuit.measure(1, 0)
    return circuit


def probabilities(circuit, values, qubits):
    state = Statevector(circuit.remove_final_measurements(inplace=False).assign_parameters(values))
    return state.probabilities(qubits)


def on(backend, circuit):
    return circuit if backend.pass_manager is None else backend.pass_manager.run(circuit)


@pytest.mark.parametrize("text", EXACT)
def test_counts_are_those_of_the_state(text):
    backend, circuit = get_backend(text), two_registers()
    rows = np.array([[[0.4, 1.1], [2.0, -0.7]], [[1.3, 0.2], [0.4, 1.1]]])  # of a, then of b
    isa = on(backend, circuit)
    result = backend.sampler.run([(isa, {B: rows[..., 0], A: rows[..., 1]}), (isa, [0.3, 0.9])]).result()
    wanted = StatevectorSampler().run([(circuit, {B: rows[..., 0], A: rows[..., 1]}), (circuit, [0.3, 0.9])]).result()
    for part, right in zip(result, wanted, strict=True):
        assert part.data.shape == right.data.shape
        assert list(part.data) == list(right.data) == ["alpha", "beta"]
        for name in right.data:
            ours, theirs = part.data[name], right.data[name]
            assert (ours.shape, ours.num_bits, ours.num_shots) == (theirs.shape, theirs.num_bits, SHOTS)
            assert ours.array.dtype == theirs.array.dtype
        assert part.metadata["shots"] == SHOTS and part.metadata["circuit_metadata"] == isa.metadata
        joined = part.join_data(["alpha", "beta"])
        assert set("".join(joined.get_bitstrings())) <= {"0", "1"}
        for index in np.ndindex(part.data.shape):
            values = {B: rows[index][0], A: rows[index][1]} if part.data.shape else {B: 0.3, A: 0.9}
            exact = probabilities(circuit, values, [0, 2, 3])
            counts = np.zeros(8)
            for outcome, count in joined.get_counts(index if index else None).items():
                bits = outcome[::-1]  # bit i of alpha, then of beta
                assert bits[0] == "0" and set(bits[2:8] + bits[9]) == {"0"}  # idle, and never measured
                counts[int(bits[8]) + 2 * int(bits[1]) + 4 * int(bits[10])] += count
            used = exact > 1e-9
            assert counts[~used].sum() == 0
            assert chisquare(counts[used], exact[used] * SHOTS).pvalue > 1e-4


@pytest.mark.parametrize("text", ["statevector", "aer", "density_matrix", "braket:local"])
def test_a_circuit_without_measurements_is_told_as_by_qiskit(text):
    circuit, backend = QuantumCircuit(1), get_backend(text)
    with pytest.warns(UserWarning, match="no output classical registers") as theirs:
        StatevectorSampler().run([circuit]).result()
    with pytest.warns(UserWarning, match="no output classical registers") as ours:
        result = backend.sampler.run([on(backend, circuit)]).result()
    assert str(ours[0].message) == str(theirs[0].message)
    assert list(result[0].data) == []
    circuit.add_register(ClassicalRegister(2, "c"))
    assert backend.sampler.run([on(backend, circuit)], shots=7).result()[0].data.c.get_counts() == {"00": 7}


def test_without_shots_a_run_takes_those_that_qiskit_takes():
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    wanted = StatevectorSampler().run([circuit]).result()[0].data.meas.num_shots
    for text in ("statevector", "aer", "density_matrix", "braket:local"):
        backend = get_backend(text)
        assert backend.sampler.run([circuit]).result()[0].data.meas.num_shots == wanted
        assert backend.sampler.run([(circuit, None, 5)], shots=9).result()[0].data.meas.num_shots == 5
    assert get_backend("aer?precision=0.1").sampler.run([circuit]).result()[0].data.meas.num_shots == 100


@pytest.mark.parametrize("name", ["statevector", "aer"])
def test_equal_circuits_share_their_samples_unless_they_are_not_to(name):
    circuit = QuantumCircuit(1)
    circuit.ry(A, 0)
    circuit.measure_all()
    fixed = circuit.assign_parameters([1.5])
    pubs = [(circuit, [[1.5], [0.3], [1.5]]), (circuit, [1.5]), fixed, fixed]
    shared, apart = (
        get_backend(f"{name}?shots=400&seed=5&dedupe={dedupe}").sampler.run(pubs).result() for dedupe in ("on", "off")
    )

    def draws(result):
        bits = [*result[0].data.meas.array, *(each.data.meas.array for each in result[1:])]
        return [bits[0], bits[2], bits[3]], bits[4:]

    assert all(len({each.tobytes() for each in some}) == 1 for some in draws(shared))
    assert [len({each.tobytes() for each in some}) for some in draws(apart)] == [3, 2]


def test_successive_runs_are_new_samples_and_a_seed_repeats_them():
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.measure_all()
    for name in ("statevector", "aer", "density_matrix"):
        runs = []
        for _ in range(2):
            sampler = get_backend(f"{name}?shots=100&seed=1").sampler
            runs.append([sampler.run([circuit]).result()[0].data.meas.array.tobytes() for _ in range(2)])
        assert runs[0] == runs[1] and runs[0][0] != runs[0][1]


@pytest.mark.parametrize("noise", ["readout&readout=0.1", "fake_manila"])
def test_noise_is_the_same_on_aer_and_on_the_noisy_engine(noise):
    circuit = QuantumCircuit(3)
    circuit.ry(0.7, 2)
    circuit.cx(2, 0)
    circuit.measure_all()
    found = []
    for name in ("aer", "density_matrix"):
        backend = get_backend(f"{name}?noise={noise}&shots=4000&seed=2")
        counts = backend.sampler.run([on(backend, circuit)]).result()[0].data.meas.get_int_counts()
        found.append([counts.get(outcome, 0) / 4000 for outcome in range(8)])
    np.testing.assert_allclose(*found, atol=0.04)
    assert found[0][2] > 0.005  # qubit 1 is misread


def test_measurements_before_the_end_run_on_aer_and_are_refused_by_the_engine():
    circuit = QuantumCircuit(1, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.x(0)
    circuit.measure(0, 1)
    counts = get_backend("aer?shots=50&seed=1").sampler.run([circuit]).result()[0].data.c.get_counts()
    assert set(counts) == {"01", "10"}
    for text in ("statevector", "braket:local"):
        with pytest.raises(CircuitError, match="uses classical bits before the end"):
            get_backend(text).sampler.run([circuit]).result()


def test_registers_may_share_bits_and_gates_may_have_any_name():
    inner = QuantumCircuit(2, name="swap")  # it is none
    inner.x(0)
    circuit = QuantumCircuit(2, 3)
    circuit.append(inner.to_gate(), [0, 1])
    circuit.add_register(ClassicalRegister(bits=[circuit.clbits[2], circuit.clbits[0]], name="mirrored"))
    circuit.measure([0, 1], [0, 2])
    for text in ("statevector?shots=10", "aer?shots=10", "braket:local?shots=10"):
        data = get_backend(text).sampler.run([circuit]).result()[0].data
        assert (data.c.get_counts(), data.mirrored.get_counts()) == ({"001": 10}, {"10": 10})
    backend = get_backend("ibm:fake_manila?shots=10")  # whose primitive would return 00 for mirrored
    with pytest.raises(CircuitError, match="belongs to one register, but some of c, mirrored share bits"):
        backend.sampler.run([on(backend, circuit)])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("aer?noise=fake_manila&mitigation=trex&shots=100", "leave mitigation out"),
        ("density_matrix?noise=fake_manila&mitigation=trex", "leave mitigation out"),
        ("ibm:fake_manila?mitigation=trex", "leave mitigation out"),
        ("ibm:fake_manila?tiles=2", "leave tiles out"),
        ("braket:local?tiles=2&shots=10", "leave tiles out"),
    ],
)
def test_what_no_sampler_does_is_refused(text, why):
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    with pytest.raises(ConfigError, match=re.escape(why)):
        get_backend(text).sampler.run([circuit])


def test_numbers_that_are_not_finite_are_refused():
    circuit = QuantumCircuit(1)
    circuit.ry(A, 0)
    circuit.measure_all()
    for text in ("statevector", "density_matrix", "aer", "braket:local", "ibm:fake_manila"):
        backend = get_backend(f"{text}?shots=10")
        isa = on(backend, circuit)
        for bad in (np.nan, np.inf):
            with pytest.raises(CircuitError, match=f"must be finite, got {bad}"):
                backend.sampler.run([(isa, [[0.5], [bad]])]).result()


def test_classical_variables_are_refused():
    circuit = QuantumCircuit(1, 1)
    flag = circuit.add_var("flag", expr.lift(True))
    with circuit.if_test(flag):
        circuit.x(0)
    circuit.measure(0, 0)
    for text in ("statevector", "aer", "braket:local"):
        with pytest.raises(CircuitError, match="classical variables cannot be simulated, got flag"):
            get_backend(text).sampler.run([circuit]).result()


@pytest.mark.parametrize("text", EXACT)
def test_a_parameter_of_the_phase_alone_changes_nothing(text):
    circuit = QuantumCircuit(2, 1)
    circuit.global_phase = A
    circuit.x(1)
    circuit.measure(1, 0)
    backend = get_backend(text)
    data = backend.sampler.run([(on(backend, circuit), [[0.3], [0.9]])]).result()[0].data
    assert data.c.shape == (2,) and data.c.get_counts() == {"1": 2 * SHOTS}


def test_more_qubits_than_the_engine_has_are_sampled_from_matrix_product_states():
    circuit = QuantumCircuit(21)
    circuit.h(0)
    for qubit in range(20):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    runs = [get_backend("statevector?seed=4").sampler.run([circuit], shots=100).result()[0] for _ in range(2)]
    counts = runs[0].data.meas.get_counts()
    assert set(counts) == {"0" * 21, "1" * 21} and counts == runs[1].data.meas.get_counts()
    with pytest.raises(CircuitError, match="at most 20 qubits"):
        get_backend("statevector?method=dense").sampler.run([circuit]).result()
