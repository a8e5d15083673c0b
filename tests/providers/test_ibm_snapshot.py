"""Snapshots of devices with more qubits than a simulation holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import Target

import qiskit_qattn as qa
from qiskit_qattn.backends.ibm.device import IBMDevice
from qiskit_qattn.backends.ibm.runtime import EstimatorSettings
from qiskit_qattn.backends.ibm.snapshot import Snapshot, part_of
from qiskit_qattn.backends.noise import fake_device
from qiskit_qattn.backends.registry import precision_of

SHOTS = 40_000
PRECISION = precision_of(SHOTS)
TOLERANCE = 5 * PRECISION
WORST, POOR, GOOD = 97, 114, 51  # by their readout


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "ledger.sqlite"))


@pytest.fixture(scope="module")
def torino() -> Any:
    return fake_device("fake_torino")


def reading(target: Target, *qubits: int) -> EstimatorPub:
    """Return a PUB that asks for Z of idle qubits, one by one."""
    observables = [SparsePauliOp.from_sparse_list([("Z", [qubit], 1)], target.num_qubits) for qubit in qubits]
    return EstimatorPub.coerce((QuantumCircuit(target.num_qubits), observables), PRECISION)


def read(target: Target, *qubits: int) -> np.ndarray:
    """Return Z of qubits in state 0 as they are misread."""
    return np.array([1 - 2 * target["measure"][qubit,].error for qubit in qubits])


@pytest.mark.parametrize("mode", ["batch", "session", "job"])
def test_each_qubit_has_its_own_readout_error(torino: Any, mode: Any) -> None:
    ibm = IBMDevice(torino, mode=mode, settings=EstimatorSettings(resilience=0, seed=1))
    jobs = [[(WORST, GOOD), (POOR,)], [(GOOD,), (POOR, GOOD)]]  # on three qubits, then on two
    for job, qubits in enumerate(jobs):
        pubs = [reading(torino.target, *each) for each in qubits]
        found = ibm.result(ibm.submit(pubs, PRECISION, f"{mode} {job}"), pubs)
        for values, each in zip(found, qubits, strict=True):
            np.testing.assert_allclose(values.evs, read(torino.target, *each), atol=TOLERANCE)
    ibm.close()


def test_readout_errors_are_mitigated(torino: Any) -> None:
    ibm = IBMDevice(torino, settings=EstimatorSettings(resilience=1, decoupling="XY4", seed=1))
    pubs = [reading(torino.target, POOR, GOOD)]
    [values] = ibm.result(ibm.submit(pubs, PRECISION, "mitigated"), pubs)
    assert np.abs(values.evs - 1).max() < TOLERANCE < np.abs(read(torino.target, POOR) - 1).max()


def test_a_head_has_the_values_of_the_noisy_engine() -> None:
    torch.manual_seed(0)
    head = qa.QuantumHead(qa.attention_circuit("qisa", 3))
    x = torch.rand(3, head.num_features) + 0.5
    sampled = f"ibm:fake_guadalupe?resilience=0&optimization=1&shots={SHOTS}&seed=1"
    with torch.no_grad():
        exact = head(x)
        noisy = head.to_backend("density_matrix?noise=fake_guadalupe")(x)
        found = head.to_backend(sampled)(x)
    assert ((found - noisy) / head.gain).abs().max() < TOLERANCE < ((exact - noisy) / head.gain).abs().max()


def test_a_session_on_a_large_snapshot() -> None:
    model = qa.GPT(qa.GPTConfig(5, 4, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=3))
    tokens = torch.randint(5, (1, 4))
    with torch.no_grad():
        exact = model(tokens)[0]
        with model.to_backend("ibm:fake_torino?mode=session&shots=4096&seed=1"):
            found = model(tokens)[0]
    assert 0 < (found - exact).abs().max() < 0.1


def test_a_part_of_a_device_keeps_what_it_says_of_its_qubits(torino: Any) -> None:
    whole, part = torino.target, part_of(torino.target, [15, 0, 4])
    assert [each.t1 for each in part.qubit_properties] == [whole.qubit_properties[qubit].t1 for qubit in (15, 0, 4)]
    assert part["cz"] == {(1, 0): whole["cz"][0, 15], (0, 1): whole["cz"][15, 0]}
    assert part["sx"] == {(index,): whole["sx"][qubit,] for index, qubit in enumerate((15, 0, 4))}
    assert part.operation_names == whole.operation_names
    assert (part.dt, part.acquire_alignment) == (whole.dt, whole.acquire_alignment)


def test_a_parameter_of_the_global_phase_alone_is_kept(torino: Any) -> None:
    circuit = QuantumCircuit(133, global_phase=Parameter("a"))
    circuit.x(WORST)
    [pub], simulator = Snapshot(torino, noise=True).cut([EstimatorPub.coerce((circuit, "Z" + 132 * "I", [[1.0]]))])
    assert (pub.circuit.num_qubits, pub.circuit.num_parameters, simulator.num_qubits) == (2, 1, 2)
    assert pub.observables.tolist() == {"ZI": 1.0}
