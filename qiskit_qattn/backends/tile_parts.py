"""Tiled PUBs on simulators: each connected part of a circuit is simulated alone, so that crosstalk is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rustworkx as rx
from qiskit import QuantumCircuit
from qiskit.primitives import DataBin, PubResult
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparseObservable


@dataclass(frozen=True)
class Part:
    """A connected part of a tiled PUB.

    Attributes:
        pub: The part on its own qubits, numbered from 0.
        qubits: Their numbers in the tiled circuit.
        lines: Which of the PUB's observables it has.
    """

    pub: EstimatorPub
    qubits: tuple[int, ...]
    lines: np.ndarray


def parts_of(pub: EstimatorPub) -> list[Part]:
    """Return the parts of a tiled PUB that neither a gate nor an observable connects.

    Args:
        pub: A PUB of observables in a column, shape ``(M, 1)``.
    """
    circuit, observables = pub.circuit, pub.observables.sparse_observables_array().ravel()
    items = [(item.operation, [circuit.find_bit(qubit).index for qubit in item.qubits]) for item in circuit.data]
    supports = [sorted({int(qubit) for qubit in observable.indices}) for observable in observables]
    groups = _connected([*(where for _, where in items), *supports])
    part_at = {qubit: number for number, group in enumerate(groups) for qubit in group}
    places = [{qubit: index for index, qubit in enumerate(group)} for group in groups]
    alone = [QuantumCircuit(len(group)) for group in groups]
    lines: list[list[int]] = [[] for _ in groups]
    for operation, where in items:
        if where:
            number = part_at[where[0]]
            alone[number].append(operation, [places[number][qubit] for qubit in where], copy=False)
    for line, support in enumerate(supports):
        lines[part_at[support[0]] if support else 0].append(line)  # one without a qubit is a number
    return [
        Part(
            _on_part(pub, alone[number], [observables[line] for line in some], places[number]),
            groups[number],
            np.array(some),
        )
        for number, some in enumerate(lines)
        if some
    ]


def joined(pub: EstimatorPub, parts: Sequence[Part], results: Sequence[Any], about: dict[str, Any]) -> PubResult:
    """Return the result of a tiled PUB from the results of its parts.

    Args:
        pub: The PUB.
        parts: Its parts, and in ``results`` their results.
        results: One for each part.
        about: Metadata of the result.
    """
    evs, stds = np.zeros(pub.shape), np.zeros(pub.shape)
    for part, result in zip(parts, results, strict=True):
        evs[part.lines], stds[part.lines] = result.data.evs, result.data.stds
        about = about | result.metadata
    about = about | {"circuit_metadata": pub.circuit.metadata}
    return PubResult(DataBin(evs=evs, stds=stds, shape=pub.shape), metadata=about)


def _connected(links: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the numbers that links connect, in sets, each sorted."""
    graph: rx.PyGraph = rx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(1 + max((number for link in links for number in link), default=0)))
    graph.add_edges_from_no_data([(link[0], other) for link in links for other in link[1:]])
    used = {number for link in links for number in link} or {0}
    return sorted(tuple(sorted(map(int, group))) for group in rx.connected_components(graph) if used & group)


def _on_part(
    pub: EstimatorPub, circuit: QuantumCircuit, observables: Sequence[SparseObservable], place: dict[int, int]
) -> EstimatorPub:
    moved = np.empty((len(observables), 1), dtype=object)
    for index, observable in enumerate(observables):
        terms = [
            (word, [place[qubit] for qubit in where], factor) for word, where, factor in observable.to_sparse_list()
        ]
        moved[index, 0] = SparseObservable.from_sparse_list(terms, len(place))
    names = list(pub.circuit.parameters)
    own = list(circuit.parameters)
    table = pub.parameter_values.as_array(names)[..., [names.index(each) for each in own]]
    bindings = BindingsArray({tuple(own): table} if own else {}, shape=pub.parameter_values.shape)
    return EstimatorPub(circuit, ObservablesArray(moved), bindings, pub.precision)
