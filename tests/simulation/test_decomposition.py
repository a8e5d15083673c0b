"""Circuits in Qiskit's own gates do what the circuits they come from do, by class, whatever gates are called."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, ControlModifier, Gate, InverseModifier, Parameter, PowerModifier, library
from qiskit.circuit.library import (
    CCZGate,
    CXGate,
    GlobalPhaseGate,
    HGate,
    PauliEvolutionGate,
    QFTGate,
    RYGate,
    SwapGate,
    UnitaryGate,
    XGate,
    get_standard_gate_name_mapping,
)
from qiskit.quantum_info import Operator, Pauli, SparsePauliOp, Statevector
from qiskit.synthesis import MatrixExponential, SuzukiTrotter

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.decomposition import (
    device_circuit,
    device_pubs,
    is_own,
    preset_pass_manager,
)
from qiskit_qattn.simulation.evolution import ProductFormulaWarning

STANDARD = {name: gate.num_qubits for name, gate in get_standard_gate_name_mapping().items() if gate.num_qubits}
BASIS = ["rz", "sx", "x", "cz", "swap", "rx", "p", "u", "id", "delay"]


def composite(name, num_qubits, instruction=False):
    inner = QuantumCircuit(num_qubits, name=name, global_phase=0.3)
    for qubit in range(num_qubits):
        inner.ry(0.4 + qubit, qubit)
        inner.rz(0.9 - qubit, qubit)
    if num_qubits > 1:
        inner.crx(0.7, 0, num_qubits - 1)
    return inner.to_instruction() if instruction else inner.to_gate()


class Matrix(Gate):
    """A gate with a matrix and no definition."""

    def __init__(self, name, num_qubits):
        super().__init__(name, num_qubits, [])

    def __array__(self, dtype=None, copy=None):
        return Operator(composite("any", self.num_qubits)).data


def renamed(gate, name):
    gate = gate.to_mutable()
    gate.name = name
    return gate


def nested():
    inner = QuantumCircuit(2, name="cx")
    inner.append(composite("cz", 2), [1, 0])
    inner.append(composite("cx", 2), [0, 1])
    return inner.to_gate()


CUSTOM = {
    **{f"composite {name}": composite(name, size, instruction=True) for name, size in STANDARD.items()},
    **{
        f"composite {name}": composite(name, 2, instruction=True) for name in ("barrier", "unitary", "initialize", "ms")
    },
    "matrix": Matrix("cz", 2),
    "renamed": renamed(HGate(), "x"),
    "renamed without definition": renamed(CXGate(), "cz"),
    "controlled": composite("z", 1).control(1, annotated=False),
    "open": composite("z", 1).control(1, ctrl_state=0, annotated=False),
    "nested": nested(),
}
BASES = {
    "x": XGate(),
    "ry": RYGate(0.3),
    "swap": SwapGate(),
    "unitary": UnitaryGate(Operator(composite("any", 1))),
    "composite": composite("cz", 2),
    "matrix": Matrix("cz", 2),
    "own name": Matrix("mine", 1),
    "controlled composite": composite("cz", 2).control(1, annotated=False),
    "annotated": AnnotatedOperation(composite("cz", 2), InverseModifier()),
    "evolution": PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"]), 0.3),
    "long evolution": PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"]), 2.9),  # its root is no evolution of half the time
    "cx": CXGate(),
    "ccz": CCZGate(),
}
if hasattr(library, "PauliProductRotationGate"):
    BASES["phase"] = library.PauliProductRotationGate(Pauli("-I"), 0.7)  # its definition lacks the phase
MODIFIERS = {
    "inverse": [InverseModifier()],
    "control": [ControlModifier(1)],
    "open": [ControlModifier(1, 0)],
    "root": [PowerModifier(0.5)],
    "inverse of root": [PowerModifier(0.5), InverseModifier()],
    "root of inverse": [InverseModifier(), PowerModifier(0.5), ControlModifier(1, 0)],
    "root of power": [PowerModifier(2), PowerModifier(0.75)],
    "negative": [PowerModifier(-2)],
    "all": [InverseModifier(), ControlModifier(1, 1), PowerModifier(3)],
}
ANNOTATED = {f"{b} {m}": AnnotatedOperation(BASES[b], MODIFIERS[m]) for b in BASES for m in MODIFIERS}


def around(operation):
    """Return a circuit with an operation in the middle, on qubits in reverse order."""
    circuit = QuantumCircuit(operation.num_qubits)
    circuit.h(range(operation.num_qubits))
    circuit.append(operation, range(operation.num_qubits)[::-1])
    return circuit


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's exponential
@pytest.mark.parametrize("operation", [pytest.param(op, id=name) for name, op in {**CUSTOM, **ANNOTATED}.items()])
def test_custom_gates_become_qiskits(operation):
    circuit = around(operation)
    ours = device_circuit(circuit)
    assert all(is_own(item.operation) for item in ours.data)
    np.testing.assert_allclose(Statevector(ours).data, Statevector(circuit).data, atol=1e-8)
    isa = preset_pass_manager(1, basis_gates=BASIS).run(circuit)
    assert set(isa.count_ops()) <= set(BASIS)
    assert abs(Statevector(isa).inner(Statevector(circuit))) == pytest.approx(1, abs=1e-8)


def test_circuits_of_qiskits_gates_are_left_alone():
    circuit = QuantumCircuit(3, 1)
    circuit.ccx(0, 1, 2)
    circuit.unitary(np.eye(4), [0, 1])
    circuit.mcp(0.2, [0, 1], 2)
    circuit.delay(10, 0)
    circuit.barrier()
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    assert device_circuit(circuit) is circuit
    circuit.cx(0, 1, ctrl_state=0)
    shared = device_pubs([(circuit, "ZZZ"), (circuit, "XXX")])
    assert shared[0].circuit is shared[1].circuit
    assert shared[0].circuit.count_ops()["x"] == 2


def test_loops_over_known_numbers_and_boxes_are_unrolled():
    theta, turn = Parameter("θ"), Parameter("i")
    circuit = QuantumCircuit(2)
    with circuit.for_loop(range(1, 4), turn):
        circuit.ry(turn * theta, 0)
        with circuit.box():
            circuit.append(composite("cz", 2), [1, 0])
    straight = QuantumCircuit(2)
    for i in range(1, 4):
        straight.ry(i * theta, 0)
        straight.append(composite("cz", 2), [1, 0])
    ours = device_circuit(circuit)
    assert ours.parameters == {theta}
    np.testing.assert_allclose(
        Statevector(ours.assign_parameters([0.4])).data, Statevector(straight.assign_parameters([0.4])).data, atol=1e-10
    )
    early = QuantumCircuit(1, 1)
    with early.for_loop(range(3)):
        early.h(0)
        with early.if_test((early.clbits[0], 1)):
            early.break_loop()
    assert "for_loop" in device_circuit(early).count_ops()


def test_a_gate_that_only_has_a_name_of_qiskits_is_refused():
    circuit = QuantumCircuit(2)
    circuit.append(Gate("cz", 2, []), [0, 1])
    with pytest.raises(CircuitError, match="'cz' on qubits \\[0, 1\\] has the name of one of Qiskit's"):
        device_circuit(circuit)
    native = QuantumCircuit(1)
    native.append(Gate("gpi", 1, [0.3]), [0])  # a device's own
    assert device_circuit(native) is native


def test_powers_that_are_no_whole_numbers():
    """Roots of phases are phases; those of gates with parameters, or of wide ones, have no circuit."""
    circuit = QuantumCircuit(1)
    circuit.append(AnnotatedOperation(GlobalPhaseGate(0.6), [PowerModifier(0.5), InverseModifier()]), [])
    assert device_circuit(circuit).global_phase == pytest.approx(2 * np.pi - 0.3)
    x = Parameter("x")
    for base in (RYGate(x), PauliEvolutionGate(SparsePauliOp("X"), x), QFTGate(9)):
        circuit = QuantumCircuit(base.num_qubits)
        circuit.append(AnnotatedOperation(base, [PowerModifier(0.5)]), circuit.qubits)
        with pytest.raises(CircuitError, match=f"Power 0.5 of '{base.name}' has no circuit: .* must be whole numbers"):
            device_circuit(circuit)


@pytest.mark.skipif(not hasattr(library, "PauliProductRotationGate"), reason="Qiskit has no such gate yet")
def test_rotations_about_the_identity_keep_their_phase(rng):
    """Qiskit's matrix has it, and so has its Statevector; its definition has not."""
    x = Parameter("x")
    inner = QuantumCircuit(2)
    inner.append(library.PauliProductRotationGate(Pauli("II"), 2 * x), [1, 0])
    inner.ry(0.3, 0)
    for base in (inner.to_gate(), library.PauliProductRotationGate(Pauli("II"), x)):
        circuit = around(AnnotatedOperation(base, [InverseModifier(), ControlModifier(1, 0)]))
        ours = device_circuit(circuit)
        angle = rng.normal(size=1)
        expected = Statevector(circuit.assign_parameters(angle)).data
        np.testing.assert_allclose(Statevector(ours.assign_parameters(angle)).data, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("operator", "options", "differs"),
    [
        (["XX", "ZI", "IZ"], {}, True),
        (["XX", "ZI"], {"time": Parameter("t")}, True),
        (["XX", "ZI"], {"synthesis": SuzukiTrotter(2, reps=2)}, True),
        (["XX", "ZI"], {"time": 0.0}, False),
        (["XX", "ZI"], {"synthesis": MatrixExponential()}, False),
        (["XX", "ZZ"], {}, False),
        (["XX", "ZZ"], {"time": Parameter("t")}, False),
        (["XZ"], {}, False),
    ],
)
def test_product_formulas_are_told_where_they_differ(operator, options, differs):
    gate = PauliEvolutionGate(SparsePauliOp(operator), **{"time": 0.3, **options})
    circuit = QuantumCircuit(2)
    circuit.append(gate, [0, 1])
    if differs:
        with pytest.warns(ProductFormulaWarning, match="do not commute.*differs from the exponential.*reps") as caught:
            device_circuit(circuit)
        assert len(caught) == 1
        assert ("in spectral norm" in str(caught[0].message)) == (not circuit.parameters)
    else:
        assert "PauliEvolution" not in device_circuit(circuit).count_ops()
