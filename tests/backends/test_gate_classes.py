"""Every gate on every simulator: the values are those of the circuit, whatever a gate is called."""

from itertools import product

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlledGate,
    ControlModifier,
    InverseModifier,
    Parameter,
    PowerModifier,
    Reset,
)
from qiskit.circuit import library as lib
from qiskit.quantum_info import DensityMatrix, Operator, Pauli, SparsePauliOp, Statevector, random_unitary

from qiskit_qattn import get_backend
from qiskit_qattn.backends.aer import AerEstimator
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.evolution import ProductFormulaWarning

pytest.importorskip("qiskit_aer")
pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's exponentials

AER = ["aer", "aer:density_matrix", "aer:matrix_product_state"]
STANDARD = {name: gate for name, gate in lib.get_standard_gate_name_mapping().items() if gate.num_qubits}
UNITARY = {name: gate for name, gate in STANDARD.items() if name not in ("measure", "reset", "delay")}
T = Parameter("t")


def matrix(num_qubits):
    return random_unitary(2**num_qubits, seed=num_qubits).data


def composite(name, num_qubits, angle=0.7):
    inner = QuantumCircuit(num_qubits, name=name)
    for qubit in range(num_qubits):
        inner.ry(angle * (qubit + 1), qubit)
        inner.rz(0.9, qubit)
    if num_qubits > 1:
        inner.crx(angle + 0.2, 0, num_qubits - 1)
    return inner.to_instruction()


def standard(angles=None):
    """Return Qiskit's own gates, with open controls too, at angles that are given or drawn."""
    rng, gates = np.random.default_rng(3), {}
    for name, gate in UNITARY.items():
        drawn = rng.normal(size=len(gate.params)).tolist()
        params = drawn if angles is None else angles[: len(gate.params)]
        gates[name] = gate.base_class(*params)
        if isinstance(gate, ControlledGate):
            gates[f"{name} open"] = gate.base_class(*params, ctrl_state=0)
    return gates


FIXED = {
    **standard(),
    **{f"composite {name}": composite(name, gate.num_qubits) for name, gate in STANDARD.items()},
    **{f"composite {name}": composite(name, 2) for name in ("barrier", "unitary", "mcx", "multiplexer", "pauli", "ms")},
    "mcx": lib.MCXGate(3),
    "mcx open": lib.MCXGate(3, ctrl_state=2),
    "mcphase": lib.MCPhaseGate(0.3, 2),
    "unitary": lib.UnitaryGate(matrix(2)),
    "controlled unitary": lib.UnitaryGate(matrix(1)).control(1, annotated=False),
    "diagonal": lib.DiagonalGate([1, 1j, -1, 1]),
    "permutation": lib.PermutationGate([2, 0, 1]),
    "linear function": lib.LinearFunction([[1, 1], [0, 1]]),
    "pauli": lib.PauliGate("XYZ"),
    "pauli rotation": lib.PauliProductRotationGate(Pauli("XZY"), 0.3),
    "isometry": lib.Isometry(matrix(2), 0, 0),
    "uniformly controlled": lib.UCGate([matrix(1), np.eye(2)]),
    "uniformly controlled x": lib.UCRXGate([0.1, 0.4]),
    "multi-target": lib.MCMTGate(lib.RYGate(0.3), 1, 2),
    "ms": lib.MSGate(2, 0.4),
    "rv": lib.RVGate(0.1, 0.2, 0.3),
    "evolution": lib.PauliEvolutionGate(SparsePauliOp(["ZZ", "XX"]), 0.4),
    "hamiltonian": lib.HamiltonianGate(SparsePauliOp(["XX", "ZI"]).to_matrix(), 0.3),
    "fourier": lib.QFTGate(3),
    "state": lib.StatePreparation([0.6, 0.8]),
    "graph": lib.GraphStateGate([[0, 1], [1, 0]]),
    "and": lib.AndGate(2),
    "adder": lib.HalfAdderGate(1),
    "rx with controls": lib.RXGate(0.3).control(2, ctrl_state=1, annotated=False),
    "controlled composite": composite("z", 1).definition.to_gate().control(1, annotated=False),
    "annotated": AnnotatedOperation(lib.RYGate(0.4), [ControlModifier(2, 1)]),
    "inverse of a root": AnnotatedOperation(lib.CXGate(), [PowerModifier(0.5), InverseModifier()]),
    "controlled phase": AnnotatedOperation(lib.PauliProductRotationGate(Pauli("I"), 0.7), [ControlModifier(1)]),
    "annotated composite": AnnotatedOperation(composite("cz", 2).definition.to_gate(), [PowerModifier(0.5)]),
}
PARAMETRIC = {
    **{name: gate for name, gate in standard([T, 0.5 - T, 2 * T, 0.4]).items() if gate.params},
    **{
        f"composite {name}": composite(name, UNITARY[name].num_qubits, T) for name in ("rz", "p", "u", "cp", "cz", "id")
    },
    "mcphase": lib.MCPhaseGate(T, 2),
    "ry with controls": lib.RYGate(T).control(2, annotated=False),
    "annotated": AnnotatedOperation(lib.RXGate(T), [ControlModifier(2, 1), InverseModifier()]),
    "evolution": lib.PauliEvolutionGate(SparsePauliOp(["ZZ", "XX"]), T),
}


def around(operation):
    """Return a circuit with an operation in it, on qubits in reverse order, and observables."""
    n = operation.num_qubits
    circuit = QuantumCircuit(n)
    for qubit in range(n):
        circuit.ry(0.4 + 0.3 * qubit, qubit)
        circuit.rz(0.2 + 0.5 * qubit, qubit)
    circuit.append(operation, range(n)[::-1])
    for qubit in range(n):
        circuit.rx(0.5 + 0.2 * qubit, qubit)
    labels = dict.fromkeys(["Z" * n, "I" * (n - 1) + "X", "Y" + "I" * (n - 1), "I" * (n - 1) + "Z"])
    return circuit, [SparsePauliOp(label) for label in labels]


def exact(circuit, observables):
    """Return Qiskit's values; its density matrix takes a composite called reset for a reset."""
    resets = any(isinstance(item.operation, Reset) for item in circuit.data)
    state = (DensityMatrix if resets else Statevector)(circuit)
    return [state.expectation_value(operator).real for operator in observables]


def check(text, operation):
    """Compare the values of a backend with the circuit's, as it is and transpiled, and through a program."""
    backend = get_backend(text)
    circuit, observables = around(operation)
    expected = exact(circuit, observables)
    forms = [(circuit, observables)]
    if backend.pass_manager is not None:
        isa = backend.pass_manager.run(circuit)
        forms.append((isa, [operator.apply_layout(isa.layout) for operator in observables]))
    for form, operators in forms:
        found = backend.estimator.run([(form, operators)]).result()[0].data.evs
        np.testing.assert_allclose(found, expected, atol=1e-6)
        program = PubProgram(
            form, operators, input_params=[], weight_params=[], estimator=backend.estimator, precision=0.0
        )
        values = program(torch.zeros(1, 0, dtype=torch.float64), torch.zeros(0))
        np.testing.assert_allclose(values[0], expected, atol=1e-6)


@pytest.mark.more
@pytest.mark.parametrize(
    ("name", "text"),
    [
        *product(FIXED, ["aer", "aer:matrix_product_state", "density_matrix"]),
        *((name, "aer:density_matrix") for name in FIXED if not name.startswith("composite")),
    ],
)
def test_gates_and_clashing_composites(name, text):
    check(text, FIXED[name])


@pytest.mark.more
@pytest.mark.parametrize("name", FIXED)
def test_gates_and_clashing_composites_on_braket(name):
    pytest.importorskip("qiskit_braket_provider")
    check("braket:local", FIXED[name])


@pytest.mark.parametrize("text", [*AER, "braket:local"])
@pytest.mark.parametrize("name", PARAMETRIC)
def test_gates_with_parameters(name, text, rng):
    if text == "braket:local":
        pytest.importorskip("qiskit_braket_provider")
    backend = get_backend(text)
    circuit, observables = around(PARAMETRIC[name])
    points = rng.normal(size=(2, 1))
    expected = [exact(circuit.assign_parameters(row), observables) for row in points]
    found = backend.estimator.run([(circuit, [[op] for op in observables], points)]).result()[0].data.evs.T
    np.testing.assert_allclose(found, expected, atol=1e-6)
    program = PubProgram(
        circuit, observables, input_params=[T], weight_params=[], estimator=backend.estimator, precision=0.0
    )
    inputs = torch.from_numpy(points).requires_grad_()
    values = program(inputs, torch.zeros(0))
    np.testing.assert_allclose(values.detach(), expected, atol=1e-6)
    if text == "aer":
        (slopes,) = torch.autograd.grad(values.sum(), inputs)
        ahead, behind = (
            [sum(exact(circuit.assign_parameters(row), observables)) for row in points + step] for step in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(slopes[:, 0], (np.array(ahead) - behind) / 2e-5, atol=1e-6)


def test_controlled_phases_on_matrix_product_states_beyond_the_dense_engine(rng):
    """Values of 21 qubits, of which 19 stand apart, are those of two."""
    from qiskit.primitives import StatevectorEstimator
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    from qiskit_qattn import TorchConnector, compile_qnn

    w, found = Parameter("w"), []
    for n in (21, 2):
        circuit = QuantumCircuit(n)
        for q in range(2, n):
            circuit.x(q)
        circuit.ry(T, 0)
        circuit.h(1)
        circuit.cp(w, 0, 1)
        circuit.rx(0.4, 1)
        network = EstimatorQNN(
            circuit=circuit,
            observables=[SparsePauliOp("I" * (n - 2) + label) for label in ("ZZ", "YI", "XX")],
            input_params=[T],
            weight_params=[w],
            estimator=StatevectorEstimator(),
            input_gradients=True,
            default_precision=0.0,
        )
        assert compile_qnn(network).engine == ("mps" if n == 21 else "statevector")
        connector = TorchConnector(network, initial_weights=[1.1]).double()
        values = connector(torch.tensor([[0.7], [-0.3]], dtype=torch.float64))
        values.square().sum().backward()
        found.append((values.detach(), connector.weight.grad))
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", ["aer", "aer:matrix_product_state", "density_matrix?noise=depolarizing&p1=0&p2=0"])
def test_evolutions_run_as_their_product_formula_with_a_warning(text):
    """The values of issue 19: 0.10102 for the exponential, −0.78925 for one step."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, 0)
    operator = SparsePauliOp(["XX", "ZI", "IZ"], [1, 0.5, 0.5])
    circuit.append(lib.PauliEvolutionGate(operator, 1.3), [0, 1])
    pub = (circuit, SparsePauliOp("IZ"))
    assert get_backend("statevector").estimator.run([pub]).result()[0].data.evs is not None
    with pytest.warns(ProductFormulaWarning, match="do not commute"):
        found = get_backend(text).estimator.run([pub]).result()[0].data.evs
    assert found == pytest.approx(-0.78925, abs=1e-5)
    stepped = circuit.decompose("PauliEvolution")
    assert found == pytest.approx(Statevector(stepped).expectation_value(pub[1]).real, abs=1e-6)


def test_exact_values_of_mixed_states_take_a_density_matrix():
    circuit, observables = around(lib.RXGate(0.4))
    circuit.reset(0)
    circuit.ry(0.3, 0)
    expected = exact(circuit, observables)
    values = get_backend("aer:density_matrix").estimator.run([(circuit, observables)]).result()[0].data.evs
    np.testing.assert_allclose(values, expected, atol=1e-8)
    for text, reason in (("aer", "mixed state"), ("aer:matrix_product_state", "unitary gates only")):
        with pytest.raises(CircuitError, match=reason):
            get_backend(text).estimator.run([(circuit, observables)]).result()
    sampled = get_backend("aer?shots=20000&seed=1").estimator.run([(circuit, observables)]).result()[0].data.evs
    np.testing.assert_allclose(sampled, expected, atol=0.04)
    started = QuantumCircuit(1)
    started.initialize([0.6, 0.8], 0)
    for text in (*AER, "braket:local"):
        found = get_backend(text).estimator.run([(started, "Z")]).result()[0].data.evs
        assert found == pytest.approx(-0.28, abs=1e-6)


def test_what_braket_has_no_form_for_is_a_circuit_error():
    pytest.importorskip("qiskit_braket_provider")
    circuit, observables = around(lib.RXGate(0.4))
    circuit.delay(10, 0)
    with pytest.raises(CircuitError, match="Amazon Braket cannot run the circuit"):
        get_backend("braket:local").estimator.run([(circuit, observables)]).result()


def test_the_operator_of_a_unitary_keeps_its_noise():
    """Gates that Aer has are left as they are, since noise goes by them."""
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel, pauli_error

    model = NoiseModel()
    model.add_all_qubit_quantum_error(pauli_error([("X", 0.1), ("I", 0.9)]), "unitary")
    circuit = QuantumCircuit(2)
    circuit.unitary(np.eye(2), 0)
    circuit.append(composite("cz", 2, 0.0), [0, 1])
    circuit.ch(0, 1)  # unknown to Aer
    estimator = AerEstimator(AerSimulator(method="density_matrix"), model)
    assert estimator.run([(circuit, "IZ")]).result()[0].data.evs == pytest.approx(0.8, abs=1e-9)
    assert Operator(circuit).is_unitary()
