"""Texts of circuits: different circuits have different ones, and those of Qiskit's gates never change."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, ControlModifier, Gate, InverseModifier, Parameter, PowerModifier
from qiskit.circuit.library import (
    CXGate,
    GraphStateGate,
    Isometry,
    LinearFunction,
    PermutationGate,
    UnitaryGate,
    get_standard_gate_name_mapping,
)

from qiskit_qattn.backends.jobs.circuit_text import circuit_text
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import CircuitError

STANDARD = {name: gate for name, gate in get_standard_gate_name_mapping().items() if gate.num_qubits}


def composite(name, num_qubits, angle=0.3, instruction=False):
    inner = QuantumCircuit(num_qubits, name=name)
    for qubit in range(num_qubits):
        inner.ry(angle, qubit)
    return inner.to_instruction() if instruction else inner.to_gate()


def of(*operations):
    circuit = QuantumCircuit(4)
    for operation in operations:
        circuit.append(operation, range(operation.num_qubits))
    return circuit


def test_the_text_of_qiskits_gates_is_that_of_ledgers_in_use():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(3, 1)
    circuit.ry(2 * a + b, 0)
    circuit.cx(0, 1)
    circuit.cx(0, 2, ctrl_state=0)
    circuit.u(0.5, b, 0.25, 1)
    circuit.delay(16, 0)
    circuit.barrier(0, 2)
    circuit.append(PermutationGate([1, 0]), [0, 1])
    circuit.append(composite("mine", 1), [2])
    circuit.reset(1)
    circuit.measure(2, 0)
    assert circuit_text(circuit).split("\n") == [
        "3 1 2",
        "ry(p0000001 + 2*p0000000) 0",
        "cx@1() 0 1",
        "{x() 0; cx@1() 0 1; x() 0} 0 2",
        "u(0x1.0000000000000p-1,p0000001,0x1.0000000000000p-2) 1",
        "delay(0x1.0000000000000p+4dt) 0",
        "barrier() 0 2",
        "matrix[000000000000f03f000000000000000000000000000000000000000000000000] 0 1",
        "{ry(0x1.3333333333333p-2) 0} 2",
        "reset() 1",
        "measure() 2 c0",
    ]


@pytest.mark.parametrize("name", [*STANDARD, "barrier", "unitary"])
def test_a_composite_with_the_name_of_a_gate_has_its_own_text(name):
    size = STANDARD[name].num_qubits if name in STANDARD else 2
    first, second = (of(composite(name, size, angle, instruction=True)) for angle in (0.3, 0.4))
    texts = {circuit_text(first), circuit_text(second)}
    if name in STANDARD and not STANDARD[name].params and not STANDARD[name].num_clbits:
        texts.add(circuit_text(of(STANDARD[name])))
        assert len(texts) == 3
    assert len(texts) >= 2
    keys = {Request.of([(each, "Z" * 4)], 0.1, "a", "").key for each in (first, second)}
    assert len(keys) == 2


def test_a_renamed_gate_and_a_controlled_composite_are_told_from_qiskits():
    renamed = CXGate().to_mutable()
    renamed.name = "cz"
    controlled = composite("z", 1).control(1, annotated=False)
    assert controlled.name == "cz"
    texts = [circuit_text(of(gate)) for gate in (renamed, controlled, CXGate(), STANDARD["cz"])]
    assert len(set(texts)) == 4


def test_arrays_of_different_gates_are_told_apart():
    swap = np.array([[0, 1], [1, 0]])
    gates = [
        LinearFunction(swap),
        GraphStateGate(swap),
        Isometry(swap, 1, 0),
        UnitaryGate(np.eye(4)[[0, 2, 1, 3]]),
        PermutationGate([1, 0]),
    ]
    assert len({circuit_text(of(gate)) for gate in gates}) == len(gates)


def test_open_controls_and_annotations_are_told_apart():
    phased, plain = (QuantumCircuit(1, name="g") for _ in range(2))
    phased.global_phase = 0.4
    operations = [
        CXGate(),
        CXGate(ctrl_state=0),
        *(
            AnnotatedOperation(base.to_gate(), modifiers)
            for base in (phased, plain)
            for modifiers in ([ControlModifier(1)], [ControlModifier(1, 0)], [ControlModifier(1), InverseModifier()])
        ),
        *(AnnotatedOperation(CXGate(), [PowerModifier(power)]) for power in (0.5, 0.25)),
    ]
    assert len({circuit_text(of(each)) for each in operations}) == len(operations)


def test_what_has_no_definition_has_no_text():
    with pytest.raises(CircuitError, match="'cz' cannot be sent"):
        circuit_text(of(Gate("cz", 2, [])))
    branch = QuantumCircuit(1, 1)
    with branch.if_test((branch.clbits[0], 1)):
        branch.x(0)
    with pytest.raises(CircuitError, match="'if_else' cannot be sent"):
        circuit_text(branch)


def test_composites_of_one_name_survive_the_bytes_of_a_request():
    made = Request.of([(of(composite("cz", 2), composite("cz", 2, 0.9), CXGate()), "ZZZZ")], 0.1, "a", "")
    assert Request.unpack(made.pack()).key == made.key
