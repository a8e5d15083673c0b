"""A user's SamplerQNN: which outcome counts for which output, on the exact engine and on backends."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import LinCombSamplerGradient, ParamShiftSamplerGradient
from qiskit_machine_learning.neural_networks import SamplerQNN
from qiskit_machine_learning.primitives import QMLSampler
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.cutting import cut, without_final_measurements
from qiskit_qattn.simulation.gates import standard_name
from qiskit_qattn.simulation.program import MAX_QUBITS
from qiskit_qattn.simulation.statevector import StatevectorProgram
from qiskit_qattn.simulation.vector_input import vector_program

#: The most Pauli strings, of all outputs together, that a backend is asked for.
MAX_TERMS = 2**14


def is_exact_sampler(network: SamplerQNN) -> bool:
    """Tell whether a network's sampler is a simulator that returns exact probabilities: one that draws no shots."""
    return _is_exact(network.sampler)


def has_exact_gradient(network: SamplerQNN) -> bool:
    """Tell whether the sampler of a network's gradient is exact, which may be another one than the network's own."""
    return _is_exact(getattr(network.gradient, "_sampler", None))


def _is_exact(sampler: object) -> bool:
    return type(sampler) is QMLSampler and sampler._exact_mode


def own_sampler_gradient(network: SamplerQNN) -> str | None:
    """Return what makes a network's gradient more than the derivative of its values, or None if nothing does."""
    gradient = network.gradient
    name = type(gradient).__name__
    if type(gradient) not in (ParamShiftSamplerGradient, LinCombSamplerGradient):
        return f"{name} is no exact derivative"
    if gradient._sampler is not network.sampler and not _is_exact(gradient._sampler):
        return f"{name} has a sampler of its own, {type(gradient._sampler).__name__}"
    return None


def sampler_parts(network: SamplerQNN) -> tuple[QuantumCircuit, np.ndarray]:
    r"""Return a network's circuit, without measurements, and which output each of its outcomes counts for.

    Output m is the sum of :math:`|\langle i | \psi \rangle|^2` over the outcomes i with ``outputs[i] == m``; outputs of
    more than one axis are counted in C order, outcomes with qubit 0 as the least significant bit.

    Returns:
        The circuit on the qubits in use, and the numbers of the outputs, shape ``(2**n,)``.

    Raises:
        CircuitError: For more than 16 qubits in use, measurements other than ``measure_all``, or an ``interpret`` that
            gives no place in the output for some outcome.
    """
    circuit = network.circuit
    layout = circuit.layout
    if circuit.clbits:
        _check_all_measured(circuit)
        if layout is not None:
            raise CircuitError("A SamplerQNN of a transpiled circuit must be given it without measurements.")
    plain = without_final_measurements(circuit)
    size = network.num_virtual_qubits
    where = list(range(size)) if layout is None else layout.final_index_layout(filter_ancillas=True)
    qubits: tuple[int, ...] = tuple(range(plain.num_qubits))
    if layout is not None:
        part = cut(plain, where)
        plain, qubits = part.circuit, part.qubits
    if plain.num_qubits > MAX_QUBITS:
        raise CircuitError(f"Outcomes are computed on at most {MAX_QUBITS} qubits, got {plain.num_qubits}.")
    found = np.arange(2**plain.num_qubits)
    numbers = sum(((found >> qubits.index(qubit)) & 1) << bit for bit, qubit in enumerate(where))
    return plain, _outputs(network)[numbers]


def _outputs(network: SamplerQNN) -> np.ndarray:
    """Return the number of the output that each outcome of the logical qubits counts for."""
    shape, found = network.output_shape, np.zeros(2**network.num_virtual_qubits, dtype=np.int64)
    places, interpret = np.arange(int(np.prod(shape))).reshape(shape), network.interpret
    assert interpret is not None  # a network without one gives the identity
    for outcome in range(len(found)):
        try:
            place: Any = interpret(outcome)
        except Exception as error:  # a user's function
            raise CircuitError(f"interpret gives no place in the output for outcome {outcome}: {error}") from error
        try:
            index = (int(place),) if isinstance(place, Integral) else tuple(map(int, place))
            number = places[index]
        except (TypeError, ValueError, IndexError) as error:
            raise CircuitError(f"interpret gives no place in the output for outcome {outcome}: {error}") from error
        if number.ndim:
            raise CircuitError(
                f"interpret gives {index} for outcome {outcome}, but an output of shape {shape} has {len(shape)} axes."
            )
        found[outcome] = number
    return found


def _check_all_measured(circuit: QuantumCircuit) -> None:
    """Refuse other measurements than ``measure_all`` adds: Qiskit Machine Learning counts those over whole batches."""
    pairs = [
        (circuit.find_bit(item.qubits[0]).index, circuit.find_bit(item.clbits[0]).index)
        for item in circuit.data
        if standard_name(item.operation) == "measure"
    ]
    names = [register.name for register in circuit.cregs]
    if names != ["meas"] or sorted(pairs) != [(i, i) for i in range(circuit.num_qubits)]:
        raise CircuitError(
            f"A SamplerQNN's circuit must have no measurements, or those of measure_all(); got {len(pairs)} into "
            f"{', '.join(names) or 'no register'}."
        )


def sampler_circuit(network: SamplerQNN) -> AttentionCircuit:
    r"""Return what a network computes, for a backend to run: projectors as sums of strings of Z, in one basis.

    .. math:: p_m = \sum_{i : \mathrm{interpret}(i) = m} |\langle i | \psi \rangle|^2
              = \langle \psi | \sum_s c_{m,s} Z^s | \psi \rangle

    All of them come from the same shots, so what a backend with shots gives are frequencies.

    Raises:
        CircuitError: As :func:`sampler_parts`, and for more than 16384 strings.
    """
    circuit, outputs = sampler_parts(network)
    size, count = circuit.num_qubits, int(np.prod(network.output_shape))
    factors = np.zeros((count, len(outputs)))
    factors[outputs, np.arange(len(outputs))] = 1 / len(outputs)
    for qubit in range(size):  # Walsh-Hadamard
        pairs = factors.reshape(count, -1, 2, 2**qubit)
        factors = np.stack([pairs.sum(2), pairs[:, :, 0] - pairs[:, :, 1]], 2).reshape(count, -1)
    if (terms := np.count_nonzero(factors)) > MAX_TERMS:
        raise CircuitError(
            f"A SamplerQNN with {count} outputs on {size} qubits takes {terms} strings of Z on a backend, of at most "
            f"{MAX_TERMS}; give it fewer outputs by interpret."
        )
    observables = []
    for row in factors:
        masks = np.flatnonzero(row)
        labels = ["".join("IZ"[int(bit)] for bit in f"{mask:0{size}b}") for mask in masks]
        observables.append(SparsePauliOp(labels or ["I" * size], row[masks] if labels else [0.0]))
    return AttentionCircuit.from_circuit(circuit, observables, network.input_params, network.weight_params)


class OutcomeProgram(nn.Module):
    r"""Sums of outcome probabilities :math:`p_m = \sum_{i \to m} |\langle i | \psi(x, \theta) \rangle|^2`.

    Args:
        network: A network; its sampler does not count.

    Raises:
        CircuitError: For circuits that cannot be simulated, and as :func:`sampler_parts`.
    """

    outputs: Tensor

    def __init__(self, network: SamplerQNN) -> None:
        super().__init__()
        circuit, outputs = sampler_parts(network)
        basis, count = [SparsePauliOp("Z" * circuit.num_qubits)], int(np.prod(network.output_shape))
        params: dict[str, Any] = {"input_params": network.input_params, "weight_params": network.weight_params}
        program = vector_program(circuit, basis, all_outcomes=True, **params)
        self.states = program or StatevectorProgram(circuit, basis, all_outcomes=True, **params)
        self.num_outputs = count
        self.identity = np.array_equal(outputs, np.arange(count))
        self.register_buffer("outputs", torch.from_numpy(outputs), persistent=False)

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        return self.states.summary()

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return probabilities, shape ``(B, M)``, for inputs ``(B, num_inputs)`` and weights ``(num_weights,)``."""
        return self.summed(self.states.probabilities(inputs, weights))  # (B, 2**n)

    def summed(self, outcomes: Tensor) -> Tensor:
        """Return the sums of outcomes, shape ``(..., M)``, for numbers of each outcome, shape ``(..., 2**n)``."""
        if self.identity:
            return outcomes
        sums = outcomes.new_zeros(*outcomes.shape[:-1], self.num_outputs)
        return sums.index_add(-1, self.outputs.to(outcomes.device), outcomes)


class SparseGradient(torch.autograd.Function):
    """Weights whose gradient is sparse, as Qiskit Machine Learning's is for sparse output."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        """Return the weights."""
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient as a sparse tensor."""
        return grad.to_sparse()
