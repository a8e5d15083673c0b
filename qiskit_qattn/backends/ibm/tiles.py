"""Tiles on IBM's devices: circuits in the gates of each tile, and tiled jobs on snapshots of devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.folders import cache_folder
from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.isa import ISAPassManager
from qiskit_qattn.backends.ibm.snapshot import Snapshot
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tile_parts import joined, parts_of
from qiskit_qattn.backends.tile_placement import Chip, placed_once
from qiskit_qattn.backends.tiling import Tile, Tiling


def ibm_tiling(asked: Tiles, device: Any, optimization: int, call: Guard) -> Tiling:
    """Return the tiles of a device of Qiskit Runtime.

    Args:
        asked: What the backend string asks for.
        device: A Qiskit ``BackendV2``.
        optimization: Qiskit's optimization level.
        call: The boundary to IBM's client, which may ask the service for the device's properties at any time.
    """
    chip = call("reading a device's errors", lambda: Chip.of(device.target))
    managers: dict[Tile, ISAPassManager] = {}

    def transpile(circuit: QuantumCircuit, tile: Tile) -> QuantumCircuit:
        if tile not in managers:
            managers[tile] = ISAPassManager(device, optimization, call=call, qubits=tile)
        return managers[tile].run(circuit)

    tiles = placed_once(chip, asked, cache_folder("ibm"), device.name)
    return Tiling(device.name, device.num_qubits, asked, tiles, transpile)


class LocalJobs:
    """A tiled job on a snapshot, as one job for each set of connected qubits; together they are a job of the client.

    Args:
        pubs: The PUBs.
        snapshot: Simulates each set of qubits alone.
        send: Sends PUBs to a simulator, with the number of the part, and returns its job.
    """

    def __init__(
        self,
        pubs: Sequence[EstimatorPub],
        snapshot: Snapshot,
        send: Callable[[Sequence[EstimatorPub], Any, int], Any],
    ) -> None:
        self._pubs, self._parts = pubs, [parts_of(pub) for pub in pubs]
        by_qubits: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for index, parts in enumerate(self._parts):
            for number, part in enumerate(parts):
                by_qubits.setdefault(part.qubits, []).append((index, number))
        self._jobs = {}
        for number, (qubits, members) in enumerate(by_qubits.items()):
            some = [self._parts[index][part].pub for index, part in members]
            self._jobs[tuple(members)] = send(some, snapshot.simulator(qubits), number)

    def job_id(self) -> str:
        """Return the id of the first job."""
        return next(iter(self._jobs.values())).job_id()

    def status(self) -> str:
        """Return the word for the state that comes first in ERROR, CANCELLED, RUNNING, DONE."""
        words = {getattr(status := job.status(), "name", status) for job in self._jobs.values()}
        return next(
            (word for word in ("ERROR", "CANCELLED") if word in words), "DONE" if words == {"DONE"} else "RUNNING"
        )

    def result(self) -> list[Any]:
        """Return the result of each PUB."""
        found: dict[tuple[int, int], Any] = {}
        about: dict[str, Any] = {}
        for members, job in self._jobs.items():
            result = job.result()
            about |= result.metadata or {}
            found |= zip(members, result, strict=True)
        return [
            joined(pub, parts, [found[index, number] for number in range(len(parts))], about)
            for index, (pub, parts) in enumerate(zip(self._pubs, self._parts, strict=True))
        ]

    def cancel(self) -> None:
        """Cancel all jobs."""
        for job in self._jobs.values():
            job.cancel()
