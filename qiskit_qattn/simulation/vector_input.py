"""Circuits that begin with Qiskit Machine Learning's ``raw_feature_vector``: data as amplitudes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Instruction, Parameter
from qiskit.quantum_info.operators.base_operator import BaseOperator
from qiskit_machine_learning.circuit.library.raw_feature_vector import ParameterizedInitialize
from torch import Tensor

from qiskit_qattn.simulation.gates import standard_name
from qiskit_qattn.simulation.program import MAX_QUBITS
from qiskit_qattn.simulation.statevector import StatevectorProgram


class VectorProgram(StatevectorProgram):
    r"""Expectations for real vectors :math:`x / \lVert x \rVert` as amplitudes of some of the qubits, in any order.

    Args:
        circuit: What follows the encoding.
        observables: Hermitian operators on its qubits.
        weight_params: Trainable parameters.
        order: Which entry of the input is each basis state's amplitude, shape ``(2**n,)``; −1 where that is 0.
        all_outcomes: As for :class:`StatevectorProgram`.
    """

    order: Tensor
    mask: Tensor

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        weight_params: Sequence[Any],
        order: np.ndarray,
        all_outcomes: bool = False,
    ) -> None:
        super().__init__(
            circuit, observables, weight_params=weight_params, input_kind="amplitude", all_outcomes=all_outcomes
        )
        self.ordered = np.array_equal(order, np.arange(len(order)))
        self.add_constant("order", np.maximum(order, 0))
        self.add_constant("mask", (order >= 0).astype(float))

    def forward(self, inputs: Tensor, weights: Tensor, *options: Any, **more: Any) -> Tensor:
        """Return expectations, shape ``(..., B, M)``; as for :class:`StatevectorProgram`."""
        return super().forward(self._amplitudes(inputs), weights, *options, **more)

    def probabilities(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the probabilities of all outcomes; as for :class:`StatevectorProgram`."""
        return super().probabilities(self._amplitudes(inputs), weights)

    def _amplitudes(self, inputs: Tensor) -> Tensor:
        return inputs if self.ordered else inputs.index_select(-1, self.order) * self.mask.to(inputs)


def vector_program(
    circuit: QuantumCircuit,
    observables: Sequence[BaseOperator],
    *,
    input_params: Sequence[Any],
    weight_params: Sequence[Any],
    all_outcomes: bool = False,
) -> VectorProgram | None:
    """Return the program of a circuit whose data are the amplitudes it begins with, or None for any other circuit.

    Unlike Qiskit's, it takes the zero vector, as |0…0⟩ with zero gradient.

    Args:
        circuit: The circuit.
        observables: Hermitian operators on its qubits.
        input_params: The entries of the vector, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        all_outcomes: As for :class:`StatevectorProgram`.

    Raises:
        CircuitError: For circuits, parameters or observables that cannot be simulated.
    """
    if circuit.num_qubits > MAX_QUBITS:
        return None
    items = list(_opened(circuit).data)
    at = next((i for i, item in enumerate(items) if type(item.operation) is ParameterizedInitialize), None)
    if at is None:
        return None
    encoding = items.pop(at)
    before = [item for item in items[:at] if standard_name(item.operation) not in ("barrier", "reset")]
    if any(not set(encoding.qubits).isdisjoint(item.qubits) for item in before):
        return None
    entries = encoding.operation.params
    position = {param: i for i, param in enumerate(input_params)}
    if not all(isinstance(entry, Parameter) for entry in entries) or set(entries) != set(input_params):
        return None
    rest = circuit.copy_empty_like()
    for item in items:
        rest.append(item)
    if not position.keys().isdisjoint(rest.parameters):
        return None
    state = np.arange(2**circuit.num_qubits)
    places = [circuit.find_bit(qubit).index for qubit in encoding.qubits]
    local = np.sum([(state >> q & 1) << k for k, q in enumerate(places)], axis=0)  # the vector's index of each state
    elsewhere = state & ~np.sum([1 << q for q in places])
    order = np.where(elsewhere == 0, np.array([position[entry] for entry in entries])[local], -1)
    return VectorProgram(rest, observables, weight_params=weight_params, order=order, all_outcomes=all_outcomes)


def _opened(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with composites that contain an encoding replaced by their contents."""
    opened = circuit.copy_empty_like()
    for item in circuit.data:
        operation = item.operation
        inner = operation.definition if type(operation) in (Instruction, Gate) else None
        inner = None if inner is None else _opened(inner)
        if inner is not None and any(type(part.operation) is ParameterizedInitialize for part in inner.data):
            opened.compose(inner, item.qubits, item.clbits, inplace=True)
        else:
            opened.append(item)
    return opened
