"""Circuits side by side on Amazon Braket: local simulators, a served device, and a lattice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from braket.device_schema import DeviceConnectivity
from braket.device_schema.standardized_gate_model_qpu_device_properties_v1 import (
    StandardizedGateModelQpuDeviceProperties,
)
from braket.devices import LocalSimulator
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN

import qiskit_qattn as qa
from qiskit_qattn.backends.braket.circuits import BraketProgram, measured_qubits, program_sets, samples_of
from qiskit_qattn.backends.braket.tiles import device_tiling
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tiling import TILES
from qiskit_qattn.errors import ConfigError

from .aws_devices import QPU, SV1, capabilities

BAD = 4  # the middle of the lattice


def exact(head: qa.QuantumHead, x: torch.Tensor) -> torch.Tensor:
    other = qa.QuantumHead(head.circuit)
    other.load_state_dict(head.state_dict())
    with torch.no_grad():
        return other(x)


@pytest.mark.parametrize("options", ["tiles=auto", "shots=1000&tiles=3&tile_spacing=0"])
def test_local_simulators_compute_each_tile_alone(options: str) -> None:
    head, x = qa.QuantumHead(qa.attention_circuit("qisa", 4)), torch.randn(7, 16)
    head.to_backend(f"braket:local?{options}")
    with torch.no_grad():
        error = (head(x) - exact(head, x)).abs().max()
    assert error < (5 * head.gain.max() / 1000**0.5 if "shots" in options else 1e-5)
    assert len(head.tiles) == (4 if "auto" in options else 3)


def test_a_noisy_local_simulator_gives_each_tile_the_same_noise() -> None:
    circuit, x = qa.attention_circuit("qisa", 2), torch.randn(4, 4)
    found = []
    for tiles in ("", "&tiles=auto"):
        head = qa.QuantumHead(circuit)
        torch.manual_seed(3)
        head.weight.data.normal_()
        with torch.no_grad():
            found.append(head.to_backend(f"braket:local_dm?noise=depolarizing&p1=0.01&p2=0.1{tiles}")(x))
    torch.testing.assert_close(*found)


def test_a_task_measures_all_tiles(aws: Any) -> None:
    head, x = qa.QuantumHead(qa.attention_circuit("qisa", 2)), torch.rand(4, 4)
    head.to_backend(f"braket:{QPU}?budget=9usd&shots=400&tiles=2&tile_spacing=0&s3=results/here")
    with torch.no_grad():
        values = head(x)
        assert (values - exact(head, x)).abs().max() < 5 * head.gain.max() / 20
        torch.testing.assert_close(head(x), values, rtol=0, atol=0)
    assert head.tiles == {"0 1": 4, "2 3": 4}
    [row] = Ledger().rows()
    assert (row.used.circuits, row.used.shots) == (2, 800)
    assert len(aws.tasks) == 1


def test_simulators_of_aws_refuse(aws: Any) -> None:
    with pytest.raises(ConfigError, match="tiles is for devices and for local simulators"):
        qa.get_backend("braket:sv1?budget=1usd&tiles=auto")
    with pytest.raises(ConfigError, match="tiles is for devices and for local simulators"):
        qa.get_backend(f"braket:{SV1}?budget=1usd&tiles=2")


def lattice(fidelity: float) -> Any:
    """Return a device of 3 × 3 qubits; its middle one has this readout fidelity."""
    graph = {
        str(3 * i + j): [str(3 * k + m) for k in range(3) for m in range(3) if abs(i - k) + abs(j - m) == 1]
        for i in range(3)
        for j in range(3)
    }
    one = {
        qubit: {
            "T1": {"value": 1e-5, "standardError": None, "unit": "S"},
            "T2": {"value": 1e-5, "standardError": None, "unit": "S"},
            "oneQubitFidelity": [
                {
                    "fidelityType": {"name": "READOUT", "description": None},
                    "fidelity": fidelity if qubit == str(BAD) else 0.97,
                    "standardError": None,
                }
            ],
        }
        for qubit in graph
    }
    two = {
        f"{u}-{v}": {"twoQubitGateFidelity": [{"gateName": "CZ", "fidelity": 0.99, "fidelityType": {"name": "GATE"}}]}
        for u, others in graph.items()
        for v in others
        if int(u) < int(v)
    }
    header = {"name": "braket.device_schema.standardized_gate_model_qpu_device_properties", "version": "1"}
    figures = StandardizedGateModelQpuDeviceProperties.parse_obj(
        {"braketSchemaHeader": header, "oneQubitProperties": one, "twoQubitProperties": two}
    )
    connectivity = DeviceConnectivity(fullyConnected=False, connectivityGraph=graph)
    paradigm = SimpleNamespace(qubitCount=9, connectivity=connectivity)
    return SimpleNamespace(
        name="lattice", arn="arn:lattice", properties=SimpleNamespace(paradigm=paradigm, standardized=figures)
    )


@pytest.mark.parametrize("fidelity", [0.97, 0.5])
def test_tiles_of_a_lattice_are_routed_inside_and_measured_alone(fidelity: float, rng: np.random.Generator) -> None:
    tiling = device_tiling(lattice(fidelity), Tiles(2, 1 if fidelity < 0.9 else 0))
    head = qa.attention_circuit("qisa", 3)
    points = rng.uniform(-3, 3, (4, len(head.circuit.parameters)))
    shots = 2000
    pub = EstimatorPub.coerce((head.circuit, [[each] for each in head.observables], points), precision_of(shots))
    tiled = tiling.tiled([pub])
    [wide] = tiled.pubs
    tiles = [set(tile) for tile in wide.circuit.metadata[TILES]]
    for item in wide.circuit.data:
        where = {wide.circuit.find_bit(qubit).index for qubit in item.qubits}
        assert any(where <= tile for tile in tiles)
        assert len(where) == 1 or abs(np.subtract(*map(lambda q: np.array(divmod(q, 3)), sorted(where)))).sum() == 1
    if fidelity < 0.9:
        assert BAD not in set().union(*tiles)
    program = BraketProgram(wide)
    assert program.measures == measured_qubits(wide) == sorted(set().union(*tiles))
    results = (
        entry
        for some in program_sets([program], 100, shots)
        for part in LocalSimulator().run(some).result()
        for entry in part
    )
    values = program.plan.from_samples(samples_of(entry, 9, shots, program.measures) for entry in results)
    [found] = tiled.split([SimpleNamespace(data=values, metadata={})])
    expected = StatevectorEstimator().run([(pub.circuit, pub.observables, pub.parameter_values)]).result()[0].data.evs
    assert np.abs(found.data.evs - expected).max() < 5 / shots**0.5


def test_qubits_of_a_lattice_may_be_numbered_from_one_and_with_gaps(aws: Any) -> None:
    """As IQM's and Rigetti's are: the largest number is then no less than how many there are."""
    graph = {"1": ["2"], "2": ["1", "4"], "4": ["2", "5"], "5": ["4", "6"], "6": ["5"]}
    device = capabilities(kind="qpu", qubits=5, unit="shot", price=0.001, program_sets=(6, 30000), graph=graph)
    aws.devices[QPU] |= {"deviceCapabilities": device}
    for size, tiles in ((1, {(1,): 2, (4,): 2, (6,): 2}), (2, {(1, 2): 3, (5, 6): 3})):
        circuit = QuantumCircuit(size)
        inputs = ParameterVector("x", size)
        for qubit in range(size):
            circuit.ry(inputs[qubit], qubit)
        network = EstimatorQNN(circuit=circuit, observables=SparsePauliOp("Z" * size), input_params=list(inputs))
        layer = qa.TorchConnector(network, backend=f"braket:{QPU}?budget=9usd&shots=400&tiles=auto&s3=results/here")
        x = torch.rand(6, size)
        with torch.no_grad():
            assert (layer(x)[:, 0] - x.cos().prod(-1)).abs().max() < 5 / 20
        program = layer.execution.program
        assert {tuple(sorted(tile)): count for tile, count in program.tiles.items()} == tiles


def test_a_lattice_is_placed_once_whatever_its_fidelities_are_tomorrow() -> None:
    """So that a run that is resumed finds the jobs that it paid for."""
    today, tomorrow = (device_tiling(lattice(fidelity), Tiles(2, 0)).tiles(3) for fidelity in (0.97, 0.5))
    assert any(BAD in tile for tile in today) and tomorrow == today
