"""What reaches a device of IBM Quantum is the circuit, whatever its gates are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, ControlModifier, Instruction, Parameter
from qiskit.circuit.library import PauliEvolutionGate, RYGate, get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_ibm_runtime.fake_provider import FakeManilaV2, FakeTorino

import qiskit_qattn as qa
from qiskit_qattn.backends.ibm.isa import ISAPassManager
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.evolution import ProductFormulaWarning

NAMES = [name for name, gate in get_standard_gate_name_mapping().items() if gate.num_qubits]
T = Parameter("t")


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "ledger.sqlite"))


def composite(name: str, num_qubits: int, angle: Any = 0.7) -> Instruction:
    inner = QuantumCircuit(num_qubits, name=name)
    for qubit in range(num_qubits):
        inner.ry(angle * (qubit + 1), qubit)
        inner.rz(0.9, qubit)
    if num_qubits > 1:
        inner.crx(0.4, 0, num_qubits - 1)
    return inner.to_instruction()


def around(operation: Any) -> QuantumCircuit:
    circuit = QuantumCircuit(operation.num_qubits)
    circuit.h(range(operation.num_qubits))
    circuit.append(operation, range(operation.num_qubits)[::-1])
    return circuit


def check(circuit: QuantumCircuit, isa: QuantumCircuit) -> None:
    """Compare what is sent with the circuit, as states."""
    labels = [letter * circuit.num_qubits for letter in "XYZ"] + ["I" * (circuit.num_qubits - 1) + "X"]
    for label in labels:
        operator = SparsePauliOp(label)
        found = Statevector(isa).expectation_value(operator.apply_layout(isa.layout)).real
        assert found == pytest.approx(Statevector(circuit).expectation_value(operator).real, abs=1e-6)


@pytest.mark.parametrize("device", [FakeManilaV2(), pytest.param(FakeTorino(), id="torino")])
def test_composites_with_the_names_of_the_devices_gates(device: Any) -> None:
    """On a device of 133 qubits the ISA circuit is compared on the qubits in use."""
    from qiskit_qattn.simulation.cutting import cut

    for name in set(device.target.operation_names) & set(NAMES):
        gate = device.target.operation_from_name(name)
        circuit = around(composite(name, gate.num_qubits))
        isa = ISAPassManager(device, 1).run(circuit)
        part = cut(isa, [])
        state, whole = Statevector(part.circuit), Statevector(circuit)
        for label in ("X", "Y", "Z"):
            operator = SparsePauliOp("I" * (circuit.num_qubits - 1) + label)
            moved = operator.apply_layout(isa.layout).paulis.to_labels()[0]
            found = state.expectation_value(SparsePauliOp(part.label(moved))).real
            assert found == pytest.approx(whole.expectation_value(operator).real, abs=1e-6), name


@pytest.mark.parametrize("name", NAMES)
def test_composites_with_any_gates_name(name: str) -> None:
    """The second circuit finds no stored circuit of the first, nor does Qiskit's own gate."""
    manager = ISAPassManager(FakeManilaV2(), 1)
    gate = get_standard_gate_name_mapping()[name]
    for angle in (0.7, 1.1):
        circuit = around(composite(name, gate.num_qubits, angle))
        check(circuit, manager.run(circuit))
    parametric = around(composite(name, gate.num_qubits, T))
    isa = manager.run(parametric)
    check(parametric.assign_parameters([0.3]), isa.assign_parameters([0.3]))
    if not gate.params and not gate.num_clbits and name != "reset":
        check(around(gate), manager.run(around(gate)))


def test_annotated_composites() -> None:
    for base in (RYGate(0.4), composite("cz", 2).definition.to_gate()):
        circuit = around(AnnotatedOperation(base, [ControlModifier(1, 0)]))
        check(circuit, ISAPassManager(FakeManilaV2(), 1).run(circuit))


def test_an_evolution_warns_once_and_runs_as_its_product_formula() -> None:
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, 0)
    circuit.append(PauliEvolutionGate(SparsePauliOp(["XX", "ZI", "IZ"], [1, 0.5, 0.5]), 1.3), [0, 1])
    with pytest.warns(ProductFormulaWarning) as caught:
        isa = ISAPassManager(FakeManilaV2(), 1).run(circuit)
    assert len(caught) == 1
    check(circuit.decompose("PauliEvolution"), isa)


def test_what_cannot_be_transpiled_is_a_circuit_error() -> None:
    circuit = QuantumCircuit(1)
    circuit.delay(5, 0)  # the device waits in steps of another length
    with pytest.raises(CircuitError, match="cannot be transpiled"):
        ISAPassManager(FakeManilaV2(), 1).run(circuit)


def test_a_job_of_a_clashing_composite_has_the_circuits_values() -> None:
    backend = qa.get_backend("ibm:fake_manila?noise=off&shots=20000&seed=3&resilience=0")
    circuit = around(composite("cz", 2))
    isa = backend.pass_manager.run(circuit)
    observables = [SparsePauliOp(label) for label in ("ZZ", "XI", "IY")]
    pub = (isa, [observable.apply_layout(isa.layout) for observable in observables])
    found = backend.estimator.run([pub], precision=backend.precision).result()[0].data.evs
    expected = [Statevector(circuit).expectation_value(observable).real for observable in observables]
    np.testing.assert_allclose(found, expected, atol=0.05)
