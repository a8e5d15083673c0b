"""Circuits for a device, transpiled once and kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import PassManager
from qiskit_ibm_runtime.fake_provider import FakeFractionalBackend, FakeManilaV2, FakeTorino

import qiskit_qattn as qa
from qiskit_qattn.backends.ibm.isa import ISAPassManager, two_qubit_depth
from qiskit_qattn.backends.jobs.circuit_text import circuit_text
from qiskit_qattn.errors import BackendError, CircuitError


@pytest.fixture
def transpiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the circuits that were transpiled, as they are."""
    names: list[str] = []
    run = PassManager.run

    def counted(manager: PassManager, circuit: QuantumCircuit, *args: object, **options: object) -> object:
        names.append(circuit.name)
        return run(manager, circuit, *args, **options)

    monkeypatch.setattr(PassManager, "run", counted)
    return names


@pytest.mark.parametrize("name", qa.list_circuits())
def test_a_stored_circuit_computes_the_same(name: str, rng: np.random.Generator, transpiled: list[str]) -> None:
    results = []
    for _ in range(2):
        head = qa.attention_circuit(name, 3)
        isa = ISAPassManager(FakeManilaV2(), 1).run(head.circuit)
        assert isa.parameters == head.circuit.parameters
        results.append(isa)
    assert len(transpiled) == 1
    assert circuit_text(results[0]) == circuit_text(results[1])
    values = np.random.default_rng(1).normal(size=len(head.circuit.parameters))
    params = tuple(head.circuit.parameters)
    observables = [SparsePauliOp(label) for label in ("ZIX", "YZI", "XXZ")]
    estimator = StatevectorEstimator()
    direct = estimator.run([(head.circuit, observables, {params: values})]).result()[0].data.evs
    moved = [observable.apply_layout(isa.layout) for observable in observables]
    stored = estimator.run([(isa, moved, {params: values})]).result()[0].data.evs
    np.testing.assert_allclose(stored, direct, atol=1e-9)
    assert {item.operation.name for item in isa.data} <= set(FakeManilaV2().target.operation_names) | {"barrier"}


def test_another_process_takes_what_is_stored(no_user_folders: Path) -> None:
    head = qa.attention_circuit("zz", 3)
    ours = ISAPassManager(FakeManilaV2(), 2).run(head.circuit)
    code = (
        "import qiskit_qattn as qa\n"
        "from qiskit.transpiler import PassManager\n"
        "from qiskit_ibm_runtime.fake_provider import FakeManilaV2\n"
        "from qiskit_qattn.backends.jobs.circuit_text import circuit_text\n"
        "from qiskit_qattn.backends.ibm.isa import ISAPassManager\n"
        "PassManager.run = None  # not called\n"
        "print(circuit_text(ISAPassManager(FakeManilaV2(), 2).run(qa.attention_circuit('zz', 3).circuit)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True)
    assert done.stdout.strip() == circuit_text(ours), done.stderr


def test_another_device_level_or_circuit_is_another_entry(no_user_folders: Path, transpiled: list[str]) -> None:
    circuits = [qa.attention_circuit("angle", 2).circuit, qa.attention_circuit("angle", 3).circuit]
    managers = [ISAPassManager(FakeManilaV2(), 1), ISAPassManager(FakeManilaV2(), 3), ISAPassManager(FakeTorino(), 1)]
    for _ in range(2):
        for manager in managers:
            for circuit in circuits:
                manager.run(circuit)
    assert len(transpiled) == len(list(no_user_folders.glob("isa/*.qpy"))) == 6
    assert not list(no_user_folders.glob("isa/*.tmp"))


def test_parameters_of_other_names_are_another_circuit(transpiled: list[str]) -> None:
    for name in ("a", "b"):
        parameter = Parameter(name)
        circuit = QuantumCircuit(1)
        circuit.ry(parameter, 0)
        assert list(ISAPassManager(FakeManilaV2(), 1).run(circuit).parameters) == [parameter]
    assert len(transpiled) == 2


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 4096])
def test_a_damaged_entry_is_made_again(no_user_folders: Path, transpiled: list[str], content: bytes) -> None:
    circuit = qa.attention_circuit("angle", 2).circuit
    manager = ISAPassManager(FakeManilaV2(), 1)
    manager.run(circuit)
    [entry] = no_user_folders.glob("isa/*.qpy")
    good = entry.read_bytes()
    for damaged in (content, good[:-1], good[:50] + b"\0" + good[51:]):
        entry.write_bytes(damaged)
        assert list(manager.run(circuit).parameters) == list(circuit.parameters)
        assert entry.read_bytes() != damaged
    assert len(transpiled) == 4


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    circuit = qa.attention_circuit("angle", 2).circuit
    isa = ISAPassManager(FakeManilaV2(), 1, file / "isa").run(circuit)
    assert list(isa.parameters) == list(circuit.parameters)
    assert "cannot be cached" in caplog.text


def test_a_circuit_wider_than_the_device_is_refused() -> None:
    with pytest.raises(BackendError, match="6 qubits and fake_manila has 5"):
        ISAPassManager(FakeManilaV2(), 1).run(qa.attention_circuit("angle", 6).circuit)


def test_fractional_gates_take_rx_but_no_parametric_rzz() -> None:
    manager = ISAPassManager(FakeFractionalBackend(), 1)
    theta = ParameterVector("t", 2)
    circuit = QuantumCircuit(2)
    circuit.rx(theta[0], 0)
    circuit.rzz(0.3, 0, 1)
    assert manager.run(circuit).count_ops()["rx"] == 1
    circuit.rzz(theta[1], 0, 1)
    with pytest.raises(CircuitError, match="Leave fractional=on out"):
        manager.run(circuit)


def test_two_qubit_depth_counts_layers() -> None:
    circuit = QuantumCircuit(4)
    circuit.h(range(4))
    circuit.cx(0, 1)
    circuit.cx(2, 3)
    circuit.barrier()
    circuit.cx(1, 2)
    circuit.measure_all()
    assert two_qubit_depth(circuit) == 2
    assert two_qubit_depth(QuantumCircuit(2)) == 0
