"""Every gate is what Qiskit's Statevector takes it for, whatever its name and wherever it stands."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    Gate,
    InverseModifier,
    Parameter,
    PowerModifier,
    library,
)
from qiskit.circuit.library import (
    CZGate,
    RXGate,
    RYGate,
    UnitaryGate,
    get_standard_gate_name_mapping,
    real_amplitudes,
)
from qiskit.quantum_info import (
    Clifford,
    DensityMatrix,
    Pauli,
    SparsePauliOp,
    Statevector,
    random_clifford,
    random_unitary,
)

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram, NoisyEngine
from qiskit_qattn.simulation.elementary import as_circuit
from qiskit_qattn.simulation.gates import flatten, is_parametric, standard_name
from qiskit_qattn.simulation.statevector import StatevectorProgram

X, W = Parameter("x"), Parameter("w")
PRODUCTS = hasattr(library, "PauliProductRotationGate")  # older Qiskits have none


def around(gates, num_qubits, rng):
    """The gates, each on random qubits, in an entangled state that knows phases."""
    circuit = QuantumCircuit(num_qubits)
    for gate in gates:
        layer = real_amplitudes(num_qubits, reps=1, entanglement="linear")
        circuit.compose(layer.assign_parameters(rng.uniform(-np.pi, np.pi, layer.num_parameters)), inplace=True)
        for qubit in range(num_qubits):
            circuit.rx(float(rng.uniform(-np.pi, np.pi)), qubit)
        circuit.append(gate, rng.permutation(num_qubits)[: gate.num_qubits].tolist())
    return circuit


def observables(num_qubits, rng):
    """Operators that see every letter on every qubit."""
    labels = ["".join(rng.choice(list("XYZI"), num_qubits)) for _ in range(4)]
    return [SparsePauliOp([label, "Z" * num_qubits], [1.0, 0.5]) for label in labels]


def assert_parity(circuit, rng, engine=StatevectorProgram, atol=1e-9, values=None):
    """The engine's values, for x as data and for x as a weight, are Statevector's."""
    params = list(circuit.parameters)
    values = rng.uniform(0.2, 0.9, len(params)) if values is None else np.asarray(values)
    operators = observables(circuit.num_qubits, rng)
    bound = Statevector(circuit.assign_parameters(dict(zip(params, values, strict=True))))
    expected = [bound.expectation_value(operator).real for operator in operators]
    for data in (params, [], params[:1]) if params else ([],):
        weights = [p for p in params if p not in data]
        program = engine(circuit, operators, input_params=data, weight_params=weights)
        x, w = (torch.tensor([values[params.index(p)] for p in some]) for some in (data, weights))
        found = program.double()(x[None].double(), w.double())
        np.testing.assert_allclose(found[0].detach(), expected, atol=atol)
        single = program.float()(x[None].float(), w.float())
        np.testing.assert_allclose(single[0].detach(), expected, atol=2e-5)


def composite(name, num_qubits, num_params=0):
    """A gate of somebody's own with the name of one of Qiskit's."""
    body = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        body.h(qubit)
        body.ry(0.3 + qubit, qubit)
    for k, parameter in enumerate((X, W, X)[:num_params]):
        body.rx(parameter * (k + 1) + 0.2, k % num_qubits)
    for qubit in range(1, num_qubits):
        body.cy(0, qubit)
    gate = body.to_gate()
    gate.name = name
    return gate


NAMES = {name: (gate.num_qubits, len(gate.params)) for name, gate in get_standard_gate_name_mapping().items()}


@pytest.mark.parametrize("engine", [StatevectorProgram, DensityMatrixProgram])
@pytest.mark.parametrize("name", [*(n for n, (k, _) in NAMES.items() if k), "barrier", "PauliEvolution", "unitary"])
def test_a_composite_with_the_name_of_a_gate_is_itself(name, engine, rng):
    num_qubits, num_params = NAMES.get(name, (2, 1))
    circuit = around([composite(name, num_qubits), composite(name, num_qubits, min(num_params, 3))], 4, rng)
    assert_parity(circuit, rng, engine)


def test_a_gate_with_a_definition_set_by_hand_is_that_definition(rng):
    gate = Gate("cz", 2, [])
    gate.definition = QuantumCircuit(2)
    gate.definition.h(0)
    gate.definition.cx(0, 1)
    assert_parity(around([gate, gate], 2, rng), rng)


class Matrix(Gate):
    """A gate that has nothing but a matrix."""

    def __init__(self, matrix, name="swap"):
        super().__init__(name, int(np.log2(len(matrix))), [])
        self._matrix = matrix

    def __array__(self, dtype=None, copy=None):
        return np.array(self._matrix, dtype=dtype)


class Disagreeing(Matrix):
    """Its definition is not its matrix, which is what Qiskit's simulators take."""

    def _define(self):
        self.definition = QuantumCircuit(self.num_qubits)


@pytest.mark.parametrize("kind", [Matrix, Disagreeing, UnitaryGate])
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 5])
def test_gates_that_bring_a_matrix(kind, num_qubits, rng):
    gates = [kind(random_unitary(2**num_qubits, seed=rng).data) for _ in range(2)]
    for width in (num_qubits, 6, 9):
        assert_parity(around(gates, width, rng), rng)


class DoubleRX(RXGate):
    def _define(self):
        self.definition = QuantumCircuit(1)
        self.definition.rx(2 * self.params[0], 0)


class OtherCZ(CZGate):
    def _define(self):
        self.definition = QuantumCircuit(2)
        self.definition.h(0)


class DoubleCRY(library.CRYGate):
    def _define(self):
        self.definition = QuantumCircuit(2)
        self.definition.cry(2 * self.params[0], 0, 1)


@pytest.mark.parametrize("gate", [DoubleRX(0.4), DoubleRX(X), OtherCZ(), DoubleCRY(X), DoubleCRY(0.3)], ids=repr)
def test_a_subclass_of_a_standard_gate_is_what_statevector_takes_it_for(gate, rng):
    assert_parity(around([gate, gate], 3, rng), rng)


def test_a_wrong_matrix_is_an_error():
    circuit = QuantumCircuit(2)
    gate = Matrix(np.eye(4))
    gate._matrix = np.eye(2)
    circuit.append(gate, [0, 1])
    with pytest.raises(CircuitError, match=r"matrix of shape \(2, 2\)"):
        StatevectorProgram(circuit, [SparsePauliOp("ZZ")])


def unusual():
    """Gates of Qiskit's library whose constructors need arguments of their own, and what they need."""
    lib, w = library, np.exp(1j * np.linspace(0, 2, 4))
    ry = [RYGate(0.3).to_matrix(), RXGate(1.3).to_matrix()]
    return {
        "and": lib.AndGate(2, [1, -1]),
        "bitflip": lib.BitFlipOracleGate("x & ~y"),
        "xor": lib.BitwiseXorGate(2, 3),
        "clifford": Clifford(random_clifford(2, seed=1)),
        "cu_open": lib.CUGate(0.1, X, W, X * W, ctrl_state=0),
        "diagonal": lib.DiagonalGate(w.tolist()),
        "full_adder": lib.FullAdderGate(1),
        "graph": lib.GraphStateGate(np.array([[0, 1], [1, 0]])),
        "half_adder": lib.HalfAdderGate(1),
        "hamiltonian": lib.HamiltonianGate(np.array([[1, 0.3j], [-0.3j, -2]]), 0.7),
        "hamiltonian_x": lib.HamiltonianGate(random_hermitian(4), X * W + 1),
        "inner": lib.InnerProductGate(2),
        "comparator": lib.IntegerComparatorGate(2, 2),
        "linear": lib.LinearFunction([[1, 1], [0, 1]]),
        "linear_rotations": lib.LinearPauliRotationsGate(2, 0.3, 0.7),
        "mcmt": lib.MCMTGate(RYGate(X), 2, 1),
        "mcphase": lib.MCPhaseGate(X, 3),
        "mcphase_open": lib.MCPhaseGate(X, 2, ctrl_state=1),
        "mcx": lib.MCXGate(3),
        "mcx_open": lib.MCXGate(4, ctrl_state=5),
        "ms": lib.MSGate(3, 0.4),
        "multiplier": lib.MultiplierGate(1),
        "or": lib.OrGate(2),
        "pauli": lib.PauliGate("XYZ"),
        "permutation": lib.PermutationGate([2, 0, 1]),
        "phase_oracle": lib.PhaseOracleGate("x ^ y"),
        "polynomial": lib.PolynomialPauliRotationsGate(2, [0.1, 0.2, 0.3]),
        "qft": lib.QFTGate(3),
        "rv": lib.RVGate(0.1, 0.2, 0.3),
        "preparation": lib.StatePreparation([0.6, 0, 0, 0.8j]),
        "uc": lib.UCGate([random_unitary(2, seed=k).data for k in range(4)]),
        "uc_2": lib.UCGate(ry),
        "ucrx": lib.UCRXGate([0.1, 0.2, -0.3, 2.0]),
        "ucry": lib.UCRYGate([0.1, 0.2, -0.3, 2.0]),
        "ucrz": lib.UCRZGate([0.1, 0.2, -0.3, 2.0]),
        "uniform": lib.UniformSuperpositionGate(3, 2),
        "c3x": lib.C3XGate(),
        "c3x_open": lib.C3XGate(ctrl_state=2),
        "c4x": lib.C4XGate(),
        "xx_minus": lib.XXMinusYYGate(X, W),
        "xx_plus": lib.XXPlusYYGate(X, W),
    } | ({"product": lib.PauliProductRotationGate(Pauli("XYZ"), X)} if PRODUCTS else {})


def random_hermitian(size):
    matrix = random_unitary(size, seed=4).data
    return matrix + matrix.conj().T


@pytest.mark.parametrize("name", unusual())
def test_gates_of_the_library(name, rng):
    gate = unusual()[name]
    assert_parity(around([gate], max(gate.num_qubits, 3), rng), rng)


@pytest.mark.parametrize("width", [6, 9])
def test_gates_of_the_library_on_more_qubits(width, rng):
    gates = [gate for gate in unusual().values() if gate.num_qubits <= width]
    for chosen in rng.permutation(len(gates)).reshape(-1, 2 if len(gates) % 2 == 0 else 1)[:8]:
        assert_parity(around([gates[k] for k in chosen], width, rng), rng)


MODIFIERS = {
    "control": [ControlModifier(2)],
    "open": [ControlModifier(2, 1)],
    "inverse": [InverseModifier()],
    "power": [PowerModifier(3)],
    "both": [PowerModifier(-2), ControlModifier(1, 0), InverseModifier(), ControlModifier(1)],
}


def bases():
    """Operations to modify, with and without parameters."""
    body = QuantumCircuit(1, global_phase=X / 3)
    body.rz(W, 0)
    body.append(library.PhaseGate(X), [0])
    return {
        "ry": RYGate(W),
        "p": library.PhaseGate(X),
        "u": library.UGate(X, W, 0.4),
        "u2": library.U2Gate(X, 0.3),
        "r": library.RGate(X, W),
        "cz": CZGate(),
        "cp": library.CPhaseGate(X),
        "rxx": library.RXXGate(X),
        "sx": library.SXGate(),
        "h": library.HGate(),
        "swap": library.SwapGate(),
        "composite": body.to_gate(),
        "evolution": library.PauliEvolutionGate(SparsePauliOp(["XX", "ZI", "II"], [1, 0.5, 0.3]), X),
        "matrix": Matrix(random_unitary(4, seed=5).data),
        "phase": library.GlobalPhaseGate(X),
        "mcx": library.MCXGate(2),
    }


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's matrices of evolutions
@pytest.mark.parametrize("modifiers", MODIFIERS)
@pytest.mark.parametrize("base", bases())
def test_annotated_operations(base, modifiers, rng):
    operation = AnnotatedOperation(bases()[base], MODIFIERS[modifiers])
    assert_parity(around([operation], max(3, operation.num_qubits), rng), rng)


def test_nested_and_fractional_annotations(rng):
    inner = AnnotatedOperation(library.PhaseGate(X), [InverseModifier(), ControlModifier(1)])
    nested, flat = QuantumCircuit(3), QuantumCircuit(3)
    for circuit, operation in (
        (nested, AnnotatedOperation(inner, ControlModifier(1, 0))),  # Qiskit itself cannot bind this one
        (flat, AnnotatedOperation(library.PhaseGate(X), [InverseModifier(), ControlModifier(2, 2)])),
    ):
        circuit.h([0, 1, 2])
        circuit.append(operation, [2, 0, 1])
    assert_parity(flat, rng)
    operators, values = observables(3, rng), (torch.zeros(1, 0), torch.rand(1))
    one, other = (StatevectorProgram(circuit, operators, weight_params=[X]) for circuit in (nested, flat))
    torch.testing.assert_close(one(*values), other(*values))
    for operation in (
        AnnotatedOperation(library.SwapGate(), [PowerModifier(0.5), ControlModifier(1)]),
        AnnotatedOperation(library.TGate(), PowerModifier(-0.3)),
        AnnotatedOperation(library.GlobalPhaseGate(0.4), [PowerModifier(3), ControlModifier(2)]),
        library.iSwapGate().power(0.5),
        library.RXXGate(X).power(0.5),
        RYGate(X).control(2, annotated=True),
        RYGate(X).control(2, annotated=False, ctrl_state=1),
        RYGate(X).inverse(annotated=True),
        RYGate(X).repeat(3),
        composite("cz", 2, 2).inverse(),
        composite("cz", 2, 2).control(1, annotated=False),
        composite("cz", 2).power(0.5),
        *(
            AnnotatedOperation(library.PauliProductRotationGate(Pauli(label), X), [ControlModifier(1, 0)])
            for label in ("-I", "II", "-YI")
            if PRODUCTS
        ),
    ):
        assert_parity(around([operation], 3, rng), rng)
    circuit = QuantumCircuit(1)
    circuit.append(AnnotatedOperation(RXGate(X), PowerModifier(0.5)), [0])
    with pytest.raises(CircuitError, match="whole numbers"):
        StatevectorProgram(circuit, [SparsePauliOp("Z")], weight_params=[X])


def test_what_changes_no_expectation_is_left_out(rng):
    plain = around([RYGate(X), composite("h", 2, 1)], 3, rng)
    dressed = QuantumCircuit(3, 3)
    dressed.reset([0, 1])
    dressed.barrier()
    dressed.compose(plain, inplace=True)
    dressed.delay(100, 0)
    dressed.id(1)
    dressed.barrier()
    dressed.measure([0, 2], [0, 1])
    operators = observables(3, rng)
    one, other = (StatevectorProgram(c, operators, weight_params=list(plain.parameters)) for c in (plain, dressed))
    inputs, weights = torch.zeros(1, 0), torch.rand(plain.num_parameters)
    torch.testing.assert_close(one(inputs, weights), other(inputs, weights))


def test_loops_of_a_known_length_are_unrolled(rng):
    a = Parameter("a")
    looped, unrolled = QuantumCircuit(2), QuantumCircuit(2)
    looped.h(0)
    unrolled.h(0)
    with looped.for_loop(range(1, 4), a):
        looped.rx(a * W, 1)
        looped.cx(0, 1)
    with looped.for_loop(range(2)):
        looped.ry(X, 0)
    for k in range(1, 4):
        unrolled.rx(k * W, 1)
        unrolled.cx(0, 1)
    unrolled.ry(2 * X, 0)
    operators = observables(2, rng)
    one, other = (StatevectorProgram(c, operators, input_params=[X], weight_params=[W]) for c in (looped, unrolled))
    x, w = torch.rand(3, 1), torch.rand(1)
    torch.testing.assert_close(one(x, w), other(x, w))


def test_initial_states_on_fresh_qubits(rng):
    for initial in ([0.6, 0, 0, 0.8j], 2, "+r"):
        circuit = QuantumCircuit(3)
        circuit.ry(0.3, 1)
        circuit.initialize(initial, [2, 0])
        circuit.cx(0, 1)
        circuit.rx(X, 2)
        assert_parity(circuit, rng)


def refused():
    """Circuits that are no unitary, with what the error names."""
    measured, again, branched, looped = (QuantumCircuit(2, 1) for _ in range(4))
    measured.measure(0, 0)
    measured.h(0)
    again.h(0)
    again.reset(0)
    branched.measure(0, 0)
    with branched.if_test((0, 1)):
        branched.x(1)
    with looped.for_loop(range(3)):
        looped.h(0)
        looped.measure(0, 0)
    late = QuantumCircuit(2)
    late.h(0)
    late.initialize([0.6, 0.8], 0)
    empty = QuantumCircuit(2)
    empty.append(Gate("mystery", 2, []), [0, 1])
    return {
        "'measure'": measured,
        "'reset'": again,
        "'if_else'": branched,
        "measure' on qubits": looped,
        "reset' on": late,
        "myst": empty,
    }


@pytest.mark.parametrize("match", refused())
def test_what_is_no_unitary_is_an_error(match):
    with pytest.raises(CircuitError, match=match):
        StatevectorProgram(refused()[match], [SparsePauliOp("ZZ")])


@pytest.mark.parametrize("engine", [DensityMatrixProgram, NoisyEngine()])
def test_resets_and_measurements_on_the_density_matrix(engine, rng):
    circuit = around([RYGate(X), composite("swap", 2, 1)], 3, rng)
    circuit.reset(1)
    circuit.compose(around([composite("cx", 2, 1)], 3, rng), inplace=True)
    circuit.initialize([0.6, 0.8j], 2)
    circuit.cx(0, 2)
    state = DensityMatrix(circuit.assign_parameters({X: 0.3}))
    operators = observables(3, rng)
    expected = [state.expectation_value(op).real for op in operators]
    circuit.barrier()
    circuit.measure_all()
    program = engine(circuit, operators, weight_params=[X]).double()
    found = program(torch.zeros(1, 0, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))
    np.testing.assert_allclose(found[0].detach(), expected, atol=1e-12)
    for name in ("'measure'", "'if_else'"):
        with pytest.raises(CircuitError, match=name):
            engine(refused()[name], [SparsePauliOp("ZZ")])


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_elementary_operations_as_a_circuit_again(rng):
    gates = [gate for gate in unusual().values() if gate.num_qubits <= 6]
    gates += [composite("swap", 2, 1), bases()["evolution"], library.MCXGate(4, ctrl_state=5), library.SwapGate()]
    gates += [AnnotatedOperation(library.CXGate(), ControlModifier(1, 0)), library.PermutationGate([2, 0, 3, 1])]
    for gate in gates:
        circuit = around([gate], 6, rng)
        values = dict.fromkeys(circuit.parameters, 0.7)
        again = as_circuit(flatten(circuit), 6)
        parametric = {standard_name(item.operation) for item in again.data if is_parametric(item.operation)}
        assert parametric <= {"rx", "ry", "rz", "rzz"}
        assert Statevector(again.assign_parameters(values)).equiv(Statevector(circuit.assign_parameters(values)))


@pytest.mark.parametrize("num_qubits", [3, 5, 6])
def test_wide_matrices_on_the_density_matrix(num_qubits, rng):
    circuit = around([UnitaryGate(random_unitary(2**num_qubits, seed=rng))], num_qubits, rng)
    operators, state = observables(num_qubits, rng), Statevector(circuit)
    found = DensityMatrixProgram(circuit, operators).double()(torch.zeros(1, 0), torch.zeros(0))
    np.testing.assert_allclose(found[0], [state.expectation_value(op).real for op in operators], atol=1e-8)
