"""Tiles on Amazon Braket: on devices whose qubits are all connected, on lattices, and on the local simulators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qiskit import QuantumCircuit
from qiskit.transpiler import CouplingMap

from qiskit_qattn.backends.folders import cache_folder
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tile_placement import Chip, blocks, placed_once
from qiskit_qattn.backends.tiling import Tile, Tiling
from qiskit_qattn.simulation.decomposition import preset_pass_manager, transpiled

_GATES = ["rx", "ry", "rz", "cx"]
_LEVEL, _SEED = 2, 0


def side_by_side(name: str, num_qubits: int, asked: Tiles) -> Tiling:
    """Return the tiles of a device whose qubits are all connected; circuits stay as they are."""
    return Tiling(name, num_qubits, asked, lambda size: blocks(num_qubits, size, asked.count, asked.spacing))


def device_tiling(device: Any, asked: Tiles) -> Tiling:
    """Return the tiles of Braket's ``AwsDevice``, by the connections and fidelities that it reports.

    Circuits are routed inside their tiles. Braket compiles them again, and may then move them to other qubits.
    """
    paradigm = device.properties.paradigm
    connectivity = getattr(paradigm, "connectivity", None)
    if connectivity is None or connectivity.fullyConnected:
        return side_by_side(device.name, int(paradigm.qubitCount), asked)
    chip = _chip(connectivity.connectivityGraph, getattr(device.properties, "standardized", None))

    def transpile(circuit: QuantumCircuit, tile: Tile) -> QuantumCircuit:
        place = {qubit: index for index, qubit in enumerate(tile)}
        pairs = [(place[u], place[v]) for u in tile for v in tile if (u, v) in chip.gates]
        manager = preset_pass_manager(
            _LEVEL, coupling_map=CouplingMap(pairs) if pairs else None, basis_gates=_GATES, seed_transpiler=_SEED
        )
        return transpiled(manager, circuit)

    tiles = placed_once(chip, asked, cache_folder("braket"), device.arn)
    return Tiling(device.name, len(chip.readout), asked, tiles, transpile)


def _chip(graph: Mapping[str, list[str]], figures: Any) -> Chip:
    """Return the chip of a graph of connections, with the fidelities that a device reports, or none."""
    pairs = {(min(int(u), int(v)), max(int(u), int(v))) for u, others in graph.items() for v in others}
    twos, ones = (getattr(figures, name, None) or {} for name in ("twoQubitProperties", "oneQubitProperties"))
    errors = {}
    for u, v in sorted(pairs):
        about = twos.get(f"{u}-{v}") or twos.get(f"{v}-{u}")
        errors[u, v] = min((1 - each.fidelity for each in about.twoQubitGateFidelity), default=0.0) if about else 0.0
    there = {int(qubit) for qubit in graph} | {qubit for pair in pairs for qubit in pair}
    readout = []
    for qubit in range(1 + max(there, default=0)):
        if qubit not in there:  # numbers start at 1, or have gaps
            readout.append(math.inf)
            continue
        about = ones.get(str(qubit))
        found = [
            1 - each.fidelity
            for each in (about.oneQubitFidelity if about else ())
            if "READOUT" in str(getattr(each.fidelityType, "name", each.fidelityType)).upper()
        ]
        readout.append(max(found, default=0.0))
    gates = {pair: frozenset({"cx"}) for u, v in pairs for pair in ((u, v), (v, u))}
    return Chip.with_errors(errors, readout, gates)
