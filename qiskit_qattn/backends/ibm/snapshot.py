"""Snapshots of devices in this process: PUBs, targets and simulators of the qubits in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparseObservable
from qiskit.transpiler import Target

from qiskit_qattn.simulation.cutting import cut


class Snapshot:
    """A local backend of any size, cut to the qubits that a job uses.

    Qiskit Runtime's Estimator measures every qubit of its circuits, also the idle ones, so that a simulation of a
    circuit in the layout of a hundred qubits does not fit into memory. On the qubits in use it gives the same values.

    Args:
        backend: A ``BackendV2``.
        noise: Whether its noise is simulated.
    """

    def __init__(self, backend: Any, noise: bool) -> None:
        self._backend, self._noise = backend, noise
        self._simulators: dict[tuple[int, ...], Any] = {}

    def cut(self, pubs: Sequence[EstimatorPub]) -> tuple[list[EstimatorPub], Any]:
        """Return PUBs on the qubits that any of them uses, and the simulator of these qubits, which is cached."""
        qubits = tuple(sorted(set().union(*map(used_qubits, pubs))))
        return [on_qubits(pub, qubits) for pub in pubs], self.simulator(qubits)

    def simulator(self, qubits: tuple[int, ...]) -> Any:
        """Return the simulator of some of the device's qubits, in their order, which is cached."""
        if qubits not in self._simulators:
            self._simulators[qubits] = self._simulator(qubits)
        return self._simulators[qubits]

    def _simulator(self, qubits: Sequence[int]) -> Any:
        from qiskit_aer import AerSimulator
        from qiskit_aer.noise import NoiseModel

        if not self._noise:
            return AerSimulator()  # takes the gates of any device
        simulator = AerSimulator(target=part_of(self._backend.target, qubits))
        simulator.set_options(noise_model=NoiseModel.from_backend(simulator))
        return simulator


def part_of(target: Target, qubits: Sequence[int]) -> Target:
    """Return the target of some of a device's qubits, numbered from 0 in the order given."""
    place = {qubit: index for index, qubit in enumerate(qubits)}
    part = Target(
        num_qubits=len(qubits),
        dt=target.dt,
        granularity=target.granularity,
        min_length=target.min_length,
        pulse_alignment=target.pulse_alignment,
        acquire_alignment=target.acquire_alignment,
        qubit_properties=target.qubit_properties and [target.qubit_properties[qubit] for qubit in qubits],
    )
    for name in target.operation_names:
        operation, where = target.operation_from_name(name), target[name]
        if None in where:  # on any qubits
            part.add_instruction(operation, name=name)
            continue
        kept = {tuple(place[at] for at in qargs): each for qargs, each in where.items() if place.keys() >= set(qargs)}
        if kept:
            part.add_instruction(operation, kept, name=name)
    return part


def used_qubits(pub: EstimatorPub) -> set[int]:
    """Return the qubits that a PUB's circuit or its observables act on."""
    observed = {int(qubit) for each in pub.observables.sparse_observables_array().flat for qubit in each.indices}
    return set(cut(pub.circuit, observed).qubits)


def on_qubits(pub: EstimatorPub, qubits: Sequence[int]) -> EstimatorPub:
    """Return a PUB on some of its qubits, which include all that it uses."""
    place = {qubit: index for index, qubit in enumerate(qubits)}

    def moved(observable: SparseObservable) -> SparseObservable:
        terms = [
            (letters, [place[qubit] for qubit in where], factor)
            for letters, where, factor in observable.to_sparse_list()
        ]
        return SparseObservable.from_sparse_list(terms, len(place))

    circuit = cut(pub.circuit, qubits).circuit
    circuit.global_phase = pub.circuit.global_phase  # it may have a parameter that occurs nowhere else
    observables = np.vectorize(moved, otypes=[object])(pub.observables.sparse_observables_array())
    return EstimatorPub(circuit, ObservablesArray(observables), pub.parameter_values, pub.precision)
