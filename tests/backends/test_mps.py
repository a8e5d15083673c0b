"""Matrix product states: values, gradients, and what truncation costs."""

import sys
import warnings

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, zz_feature_map
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

from qiskit_qattn import QuantumHead, attention_circuit, get_backend
from qiskit_qattn.backends import mps, mps_log
from qiskit_qattn.backends.mps import MPSEstimator, TruncationWarning, bond_bound, mps_program, on_a_line
from qiskit_qattn.backends.mps_log import angles_of
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError, UnknownNameError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.simulation.statevector import StatevectorProgram

pytest.importorskip("qiskit_aer")


def rings(num_qubits, reps):
    """Return RY angles of data, then layers of RY and a CX ring; the data and the weights."""
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", num_qubits * reps)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.ry(x[q], q)
    for r in range(reps):
        for q in range(num_qubits):
            circuit.ry(w[r * num_qubits + q], q)
        for q in range(num_qubits):
            circuit.cx(q, (q + 1) % num_qubits)
    return circuit, list(x), list(w)


def pauli(num_qubits, letters):
    """Return the string with the given letters, by qubit."""
    return SparsePauliOp.from_sparse_list([("".join(letters.values()), list(letters), 1.0)], num_qubits)


def several(num_qubits):
    n = num_qubits - 1
    terms = [("YZ", [0, 2], 1.0), ("X", [n], -0.5), ("", [], 2.0)]
    return [
        pauli(num_qubits, {0: "Z"}),
        pauli(num_qubits, {1: "X", n: "Y"}),
        SparsePauliOp.from_sparse_list(terms, num_qubits),
    ]


def dense_values(circuit, observables, rows):
    states = [Statevector(circuit.assign_parameters(row)) for row in rows]
    return np.array([[state.expectation_value(o).real for state in states] for o in observables])  # (M, N)


def test_one_pub_of_several_observables_and_parameter_sets(rng):
    circuit = zz_feature_map(6, reps=1).compose(efficient_su2(6, reps=2, entanglement="circular"))
    observables, rows = several(6), rng.normal(size=(2, 4, circuit.num_parameters))
    result = MPSEstimator().run([(circuit, [[[o]] for o in observables], rows)]).result()[0]
    assert result.data.evs.shape == result.data.stds.shape == (3, 2, 4)
    expected = dense_values(circuit, observables, rows.reshape(8, -1)).reshape(3, 2, 4)
    np.testing.assert_allclose(result.data.evs, expected, atol=1e-8)
    assert result.metadata["truncation_error"].shape == (2, 4)
    assert (result.metadata["truncation_error"].max(), result.metadata["max_bond"]) == (0.0, 64)


def test_gates_and_projectors_of_many_kinds():
    circuit = QuantumCircuit(5)
    circuit.h(range(5))
    circuit.ccx(0, 2, 4)
    circuit.unitary(Operator(efficient_su2(2).assign_parameters([0.3] * 16)), [4, 1])
    circuit.rzz(0.3, 0, 3)
    circuit.iswap(1, 4)
    circuit.barrier()
    circuit.t(2)
    evs = MPSEstimator().run([(circuit, [{"01+rI": 1.5, "IIIII": 0.5}, {"ZZXYZ": 1.0}])]).result()[0].data.evs
    state = Statevector(circuit)
    projected = state.expectation_value(Operator.from_label("01+rI")).real
    expected = [1.5 * projected + 0.5, state.expectation_value(SparsePauliOp("ZZXYZ")).real]
    np.testing.assert_allclose(evs, expected, atol=1e-8)


def test_one_qubit_and_no_parameter_sets():
    circuit = QuantumCircuit(1)
    circuit.ry(ParameterVector("x", 1)[0], 0)
    assert MPSEstimator().run([(circuit, "Z", [[0.3]])]).result()[0].data.evs == pytest.approx(np.cos(0.3))
    assert MPSEstimator().run([(circuit, "Z", np.zeros((0, 1)))]).result()[0].data.evs.shape == (0,)


def test_gradients_are_the_exact_engines(rng):
    circuit, inputs, weights = rings(8, 2)
    arguments = (circuit, several(8))
    params = {"input_params": inputs, "weight_params": weights}
    x, w = rng.uniform(-3, 3, (3, 8)), rng.uniform(-3, 3, 16)
    found = []
    for program in (mps_program(*arguments, **params), StatevectorProgram(*arguments, **params).double()):
        leaves = [torch.from_numpy(a).clone().requires_grad_() for a in (x, w)]
        values = program(*leaves)
        values.square().sum().backward()
        found.append([values.detach(), *(leaf.grad for leaf in leaves)])
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, atol=1e-6, rtol=0)


def test_a_ghz_state_of_30_qubits():
    angle = ParameterVector("a", 1)
    circuit = QuantumCircuit(30)
    circuit.ry(angle[0], 0)
    for q in range(29):
        circuit.cx(q, q + 1)
    observables = [
        pauli(30, {3: "Z", 27: "Z"}),
        pauli(30, {29: "Z"}),
        SparsePauliOp("X" * 30),
        SparsePauliOp("Z" * 30),
        pauli(30, {5: "X"}),
    ]
    angles = np.array([0.0, 0.4, np.pi / 2])
    result = MPSEstimator(max_bond=2).run([(circuit, [[o] for o in observables], angles[:, None])]).result()[0]
    one = np.ones(3)
    expected = [one, np.cos(angles), np.sin(angles), one, 0 * one]
    np.testing.assert_allclose(result.data.evs, expected, atol=1e-9)
    assert result.metadata["truncation_error"].max() == 0


def test_a_light_cone_of_a_24_qubit_ring(rng):
    """⟨Z⟩ after a layer of CX depends on the qubits before it only, as the same value on fewer qubits."""
    wide, narrow = rings(24, 1)[0], rings(6, 1)[0]
    rows = rng.uniform(-3, 3, (2, 48))
    keep = [*range(6), *range(24, 30)]  # weights first (w < x): those of qubits 0 to 5
    evs = MPSEstimator().run([(wide, pauli(24, {5: "Z"}), rows)]).result()[0].data.evs
    np.testing.assert_allclose(evs, dense_values(narrow, [pauli(6, {5: "Z"})], rows[:, keep])[0], atol=1e-9)


@pytest.mark.parametrize(("reps", "bound"), [(1, 4), (2, 16), (3, 64)])
def test_bonds_stay_below_their_bound(reps, bound):
    assert bond_bound(on_a_line(rings(20, reps)[0])) == bound


@pytest.mark.parametrize("max_bond", [2, 16, 24, 30, 31])
def test_truncation_is_measured_and_bounds_the_error(max_bond, rng):
    circuit, observables = rings(10, 8)[0], several(10)[:2]
    rows = rng.uniform(-3, 3, (3, circuit.num_parameters))
    estimator = MPSEstimator(max_bond=max_bond)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        result = estimator.run([(circuit, [[o] for o in observables], rows)]).result()[0]
    errors = result.metadata["truncation_error"]
    assert errors.shape == (3,) and errors.min() > 1e-8
    assert estimator.truncation_error == errors.max()
    missed = np.abs(result.data.evs - dense_values(circuit, observables, rows)).max(0)
    assert (missed > 1e-6).all() and (missed <= 2 * np.sqrt(errors)).all()


def test_the_largest_error_so_far_is_kept_and_a_full_bond_has_none(rng):
    circuit = rings(10, 8)[0]
    pub = (circuit, pauli(10, {0: "Z"}), rng.uniform(-3, 3, circuit.num_parameters))
    full = MPSEstimator(max_bond=32)
    result = full.run([pub]).result()[0]
    assert full.truncation_error == result.metadata["truncation_error"] == 0
    cut = MPSEstimator(max_bond=2)
    with pytest.warns(TruncationWarning, match=r"at max_bond 2: .* Raise max_bond"):
        worst = cut.run([pub]).result()[0].metadata["truncation_error"]
    shallow = QuantumCircuit(2)
    shallow.cx(0, 1)
    assert cut.run([(shallow, "ZZ")]).result()[0].metadata["truncation_error"] == 0
    assert cut.truncation_error == worst > 0


def test_one_cut_is_measured_exactly():
    """√(1−w)|00⟩ + √w|11⟩ cut to one term gives up w, whatever ran before it."""
    angle = ParameterVector("a", 1)
    circuit = QuantumCircuit(2)
    circuit.ry(angle[0], 0)
    circuit.cx(0, 1)
    weights = np.array([1e-6, 1e-4, 0.0, 3e-4])
    pub = (circuit, "ZZ", 2 * np.arcsin(np.sqrt(weights))[:, None])
    for _ in range(2):
        errors = MPSEstimator(max_bond=1).run([pub]).result()[0].metadata["truncation_error"]
        np.testing.assert_allclose(errors, weights, rtol=1e-4, atol=1e-15)


def test_a_circuit_that_never_needs_its_bound_is_exact():
    circuit = QuantumCircuit(4)
    for q in (0, 1, 2, 0, 1, 2):
        circuit.rzz(0.3, q, q + 1)  # of |0000⟩: a phase
        circuit.rx(0.0, q)
    estimator = MPSEstimator(max_bond=1)
    assert estimator.run([(circuit, "ZZZZ")]).result()[0].data.evs == pytest.approx(1)
    assert estimator.truncation_error < 1e-12 and bond_bound(on_a_line(circuit)) > 1


def test_a_log_of_another_form_is_an_error():
    assert angles_of("discarded_value=0.25, I0:cx on qubits 0,1, BD=[1], I1:cx", 1, 2).tolist() == pytest.approx(
        [np.pi / 6, 0]
    )
    with pytest.raises(BackendError, match="has 1 gates, expected 2"):
        angles_of("I0:cx on qubits 0,1, BD=[1]", 2, 1)


def test_a_measuring_process_that_ended_is_replaced():
    circuit = QuantumCircuit(2)
    circuit.ry(0.2, 0)
    circuit.cx(0, 1)
    estimator = MPSEstimator(max_bond=1)
    with pytest.warns(TruncationWarning):
        expected = estimator.run([(circuit, "ZZ")]).result()[0].metadata["truncation_error"]
    mps_log._child.kill()
    mps_log._child.wait()
    with pytest.raises(BackendError, match="Aer ended while its truncation error was measured"):
        estimator.run([(circuit, "ZZ")]).result()
    with pytest.warns(TruncationWarning):
        assert estimator.run([(circuit, "ZZ")]).result()[0].metadata["truncation_error"] == expected


def test_shots_sample_with_fresh_noise(rng):
    circuit, observables = rings(5, 1)[0], several(5)[:2]
    rows = rng.uniform(-3, 3, (3, 10))
    pub = (circuit, [[o] for o in observables], rows)
    estimator = MPSEstimator(default_precision=0.02, seed=5)
    first, second = (estimator.run([pub]).result()[0] for _ in range(2))
    expected = dense_values(circuit, observables, rows)
    for result in (first, second):
        assert np.abs(result.data.evs - expected).max() < 5 * 0.02
        assert result.metadata["shots"] == 2500
    assert not np.array_equal(first.data.evs, second.data.evs)
    again = MPSEstimator(default_precision=0.02, seed=5).run([pub]).result()[0]
    np.testing.assert_array_equal(first.data.evs, again.data.evs)
    assert (first.data.stds < 0.021).all()


def head_circuit(num_qubits):
    params, weights = tuple(ParameterVector("x", num_qubits)), ParameterVector("w", num_qubits)
    circuit, ansatz = QuantumCircuit(num_qubits), QuantumCircuit(num_qubits)
    for q, param in enumerate(params):
        circuit.ry(param, q)
        ansatz.ry(weights[q], q)
    ansatz.cx(0, 1)
    labels = ("Z" + "I" * (num_qubits - 1), "I" * (num_qubits - 2) + "ZZ")
    return AttentionCircuit("wide", Encoding("angle", circuit, params, num_qubits), ansatz, labels)


def test_heads_run_by_name_as_on_the_exact_engine(rng):
    head = QuantumHead(attention_circuit("qisa", 3))
    x = torch.from_numpy(rng.normal(size=(4, 8))).float()
    exact = head(x)
    exact.sum().backward()
    expected, head.weight.grad = head.weight.grad, None
    head.to_backend("statevector?max_bond=8&method=mps")
    assert head.backend.estimator.max_bond == 8 and not head.backend.differentiable
    values = head(x)
    values.sum().backward()
    torch.testing.assert_close(values, exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(head.weight.grad, expected, atol=1e-5, rtol=0)


def test_the_exact_backend_turns_to_mps_beyond_its_reach():
    program = get_backend("statevector").program
    assert isinstance(program(head_circuit(20)), StatevectorProgram)
    head = QuantumHead(head_circuit(21))
    assert isinstance(head._program, PubProgram) and isinstance(head._program.estimator, MPSEstimator)
    y = head(torch.zeros(2, 21))
    assert y.shape == (2, 2) and y.isfinite().all()
    with pytest.raises(CircuitError, match="at most 30 qubits here, got 31"):
        program(head_circuit(31))
    with pytest.raises(CircuitError, match="at most 20 qubits, got 21"):
        get_backend("statevector?method=dense").program(head_circuit(21))


def test_shots_and_gradients_in_the_backend_string():
    backend = get_backend("statevector?method=mps&shots=400&seed=1&gradient=spsa")
    assert (backend.precision, backend.shots) == (pytest.approx(0.05), 400)
    head = QuantumHead(attention_circuit("angle", 2)).to_backend(backend)
    head(torch.zeros(1, 2)).sum().backward()
    assert head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("statevector?method=msp", UnknownNameError, "Did you mean 'mps'.*Known: auto, dense, mps"),
        ("statevector?max_bond=8", ConfigError, "max_bond=8 needs method=mps, got method=auto"),
        ("statevector?method=mps&max_bond=0", ConfigError, "max_bond must be an integer of at least 1"),
    ],
)
def test_wrong_options(text, error, message):
    with pytest.raises(error, match=message):
        get_backend(text)


def test_wrong_circuits_and_settings():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        MPSEstimator(max_bond=0)
    with pytest.raises(ConfigError, match="got -1"):
        MPSEstimator().run([], precision=-1)
    with pytest.raises(CircuitError, match="at most 30 qubits here, got 31"):
        MPSEstimator().run([(QuantumCircuit(31), "Z" * 31)]).result()
    angle = QuantumCircuit(1)
    angle.ry(ParameterVector("x", 1)[0], 0)
    with pytest.raises(CircuitError, match="must be finite, got nan"):
        MPSEstimator().run([(angle, "Z", [[0.1], [np.nan]])]).result()
    measured = QuantumCircuit(2, 1)
    measured.h(0)
    measured.measure(0, 0)
    measured.h(0)
    with pytest.raises(CircuitError, match=r"unitary gates only, got \['measure'\]"):
        MPSEstimator().run([(measured, "ZZ")]).result()


def test_without_aer_the_error_tells_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    mps.mps_simulator.cache_clear()
    with pytest.raises(ImportError, match=r"qiskit-qattn\[aer\]"):
        get_backend("statevector?method=mps")


@pytest.mark.parametrize("gate", ["cp", "crz"])
def test_gates_between_far_qubits_of_which_others_idle(gate):
    """Aer gives wrong values, or ends the process, for observables on permuted qubits of which some are idle."""
    x, w = Parameter("x"), Parameter("w")
    circuit = QuantumCircuit(12)
    circuit.h(range(12))
    getattr(circuit, gate)(x, 0, 1)
    getattr(circuit, gate)(w, 1, 11)
    circuit.h(range(12))
    observable = SparsePauliOp("I" * 10 + "ZZ")
    expected = Statevector(circuit.assign_parameters({x: 0.4, w: 0.7})).expectation_value(observable).real
    estimator = get_backend("statevector?method=mps").estimator
    found = estimator.run([(circuit, observable, {(x, w): [0.4, 0.7]})]).result()[0].data.evs
    np.testing.assert_allclose(found, expected, atol=1e-6)
