"""Circuits side by side on IBM's devices: snapshots of large ones, and the loopback service with its real client."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.transpiler import InstructionProperties

import qiskit_qattn as qa
from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.tiles import ibm_tiling
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.noise import fake_device
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tiling import TILES
from qiskit_qattn.errors import BudgetError, ConfigError
from qiskit_qattn.evaluation.report import _backends

from .ibm_server import IBMServer

SHOTS = 2000
TORINO = f"ibm:fake_torino?seed=1&shots={SHOTS}&optimization=1&resilience=0&noise=off"
SERVED = "budget=60s&optimization=0&resilience=0&shots=100"


def head_on(backend: str, qubits: int = 4) -> qa.QuantumHead:
    torch.manual_seed(5)
    return qa.QuantumHead(qa.attention_circuit("qisa", qubits)).to_backend(backend)


def exact(head: qa.QuantumHead, x: torch.Tensor) -> torch.Tensor:
    other = qa.QuantumHead(head.circuit)
    other.load_state_dict(head.state_dict())
    return other(x)


def test_tokens_share_a_chip_and_are_labelled() -> None:
    head, x = head_on(f"{TORINO}&tiles=6"), torch.randn(13, 16)
    with torch.no_grad():
        values = head(x)
        assert (values - exact(head, x)).abs().max() < 5 * head.gain.max() / SHOTS**0.5
    [row] = Ledger().rows()
    assert row.state == "done" and row.estimate.circuits == 3  # of 13 rows, 5 tiles each
    request = Ledger().request(row.id)
    [tiles] = [pub.circuit.metadata[TILES] for pub in request.pubs]
    assert head.tiles == dict(sorted((" ".join(map(str, tile)), 3 - (i > 2)) for i, tile in enumerate(tiles)))
    assert len({qubit for tile in tiles for qubit in tile}) == 4 * len(tiles) == 20

    with torch.no_grad():
        torch.testing.assert_close(head(x), values, rtol=0, atol=0)  # from the ledger
        torch.testing.assert_close(head_on(f"{TORINO}&tiles=6")(x), values, rtol=0, atol=0)
    assert len(Ledger().rows()) == 1


def test_the_report_names_the_tiles() -> None:
    config = qa.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4, heads="qisa:1", num_qubits=2)
    model = qa.GPT(config)
    model.to_backend(f"{TORINO}&tiles=3")
    with torch.no_grad():
        model(torch.tensor([[0, 1, 2, 3]]))
    [row] = model.head_backends()
    assert 2 <= len(row["tiles"]) <= 3
    assert f"(side by side on qubits {'; '.join(row['tiles'])})" in _backends({"head_backends": [row]})
    model.to_backend("statevector")
    assert "tiles" not in model.head_backends()[0]


def test_gradients_run_side_by_side() -> None:
    head = head_on(f"{TORINO.replace(f'shots={SHOTS}', 'shots=20000')}&tiles=auto", qubits=2)
    x = torch.randn(3, 4)
    grads = []
    for each in (head, qa.QuantumHead(head.circuit)):
        each.load_state_dict(head.state_dict())
        each(x).sum().backward()
        grads.append(each.weight.grad)
    assert (grads[0] - grads[1]).abs().max() < 0.2 * grads[1].abs().max() + 0.1
    _, backward = sorted(Ledger().rows(), key=lambda row: row.id)
    assert backward.estimate.circuits < 2 * head.circuit.circuit.num_parameters * 3 / 20


def test_tiles_stay_where_they_are_after_the_next_calibration(no_user_folders: Path, monkeypatch: Any) -> None:
    def tiles(device: Any) -> list[tuple[int, ...]]:
        return ibm_tiling(Tiles(5), device, 0, Guard()).tiles(4)

    before, device = tiles(fake_device("fake_torino")), fake_device("fake_torino")
    for qubit in before[0]:
        device.target.update_instruction_properties("measure", (qubit,), InstructionProperties(error=0.5))
    assert tiles(device) == before
    monkeypatch.setenv("QATTN_CACHE_DIR", str(no_user_folders / "other"))
    assert not set(before[0]) & {qubit for tile in tiles(device) for qubit in tile}


def test_a_shape_is_transpiled_once(no_user_folders: Path) -> None:
    tiling = get_backend("ibm:fake_torino?tiles=auto").tiling
    assert tiling is not None
    circuit = qa.attention_circuit("qisa", 4).circuit
    places = tiling.places(circuit)
    shapes = len(list(no_user_folders.glob("**/isa/*.qpy")))
    assert 1 <= shapes <= 2 < len(places)
    assert all(place.circuit.num_qubits == 4 and sorted(place.where) == sorted(place.tile) for place in places)


def test_executions_on_64_tokens_are_fewer_by_the_number_of_tiles() -> None:
    x, found = torch.randn(64, 32), {}
    alone = qa.estimate(head_on("statevector", qubits=5), x, "ibm:fake_torino?resilience=0&optimization=0")
    assert alone.total.circuits == 64 and alone.tiles == 1
    for name in ("fake_torino", "fake_fez"):
        for spacing in (1, 0):
            head = head_on("statevector", qubits=5)
            cost = qa.estimate(head, x, f"ibm:{name}?resilience=0&optimization=0&tiles=auto&tile_spacing={spacing}")
            assert cost.total.circuits == -(-64 // len(tiles_of(name, spacing)))
            found[name, spacing] = cost.total.circuits
    assert found["fake_torino", 1] <= 8 and found["fake_fez", 1] <= 6 and max(found[n, 0] for n, _ in found) <= 4


def tiles_of(name: str, spacing: int) -> list[tuple[int, ...]]:
    return ibm_tiling(Tiles(None, spacing), fake_device(name), 0, Guard()).tiles(5)


def test_a_served_device_is_paid_for_once_and_within_the_budget(ibm_server: IBMServer) -> None:
    x = torch.rand(4, 4)
    for _ in range(2):
        head = head_on(f"ibm:test_nairobi?{SERVED}&tiles=auto&gradient=simulated", qubits=2)
        with torch.no_grad():
            values = head(x)
        assert torch.isfinite(values).all() and len(head.tiles) == 2
    [job] = ibm_server.jobs.values()
    [row] = Ledger().rows()
    assert row.tag in job.tags and row.estimate.circuits == 2
    with pytest.raises(BudgetError), torch.no_grad():
        head_on(f"ibm:test_nairobi?{SERVED.replace('60s', '1s')}&tiles=auto", qubits=2)(torch.rand(5, 4))
    assert len(ibm_server.jobs) == 1


def test_what_a_chosen_device_computed_is_found_however_it_is_tiled(ibm_server: IBMServer) -> None:
    x = torch.rand(4, 4)
    with torch.no_grad():
        head_on(f"ibm:test_nairobi?{SERVED}&tiles=2", qubits=2)(x)
        with ibm_server.lock:
            ibm_server.state.devices.queues["test_manila"] = 0
        for tiles in ("", "&tiles=2&tile_spacing=0"):
            with pytest.raises(ConfigError, match="test_nairobi"):
                head_on(f"ibm:least_busy?{SERVED}{tiles}", qubits=2)(x)
    assert len(ibm_server.jobs) == 1


def test_programs_of_copies_share_the_tiling() -> None:
    head = head_on(f"{TORINO}&tiles=2", qubits=2)
    other = copy.deepcopy(head)
    programs = [part for each in (head, other) for part in each.modules() if isinstance(part, PubProgram)]
    assert programs[0].tiling is programs[1].tiling is not None
    with torch.no_grad():
        x = torch.rand(3, 4)
        np.testing.assert_array_equal(head(x), other(x))
