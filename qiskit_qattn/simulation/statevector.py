"""The exact engine: expectations of a circuit as a batched, differentiable torch program.

What is computed is a :class:`~qiskit_qattn.simulation.plan.Plan`; how, stands in the executors
:class:`~qiskit_qattn.simulation.dense.Dense`, :class:`~qiskit_qattn.simulation.gatewise.Gatewise` for few rows, and
:class:`~qiskit_qattn.simulation.blockwise.Blockwise` for many qubits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.blockwise import Blockwise
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.dense import Dense, Fused
from qiskit_qattn.simulation.gatewise import Gatewise
from qiskit_qattn.simulation.plan import InputKind, make_plan
from qiskit_qattn.simulation.precision import without_autocast
from qiskit_qattn.simulation.products import probabilities, squared_moduli

__all__ = ["Fused", "StateProgram", "StatevectorProgram"]


class StatevectorProgram(ConstantModule):
    r"""Expectations :math:`\langle \psi(x, \theta) | O_m | \psi(x, \theta) \rangle` for batches of x.

    Everything that does not depend on data is one unitary, built once per step, with the measurement bases as its last
    factor. Writing its real and imaginary parts side by side as R, the features of the data as f (the unit vector
    itself, or cosines and sines of phases) and the signs of all observables as S, the values are

    .. math:: \langle O \rangle = (f R)^{\odot 2} S

    Angles, phases and the unitary are computed in float64 and rounded once; what grows with the batch is float32, or
    float64 after ``module.double()``. Weights may have leading axes, one weight set per head, that broadcast against
    those of the inputs.

    Args:
        circuit: Any circuit of unitary gates, at most 20 qubits. With ``amplitude`` input, what follows the encoding.
        observables: Hermitian operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        input_kind: ``parameters``, or ``amplitude``: inputs are real vectors of length 2ⁿ, loaded as amplitudes.
        all_outcomes: Compute every outcome, as :meth:`probabilities` needs, and not only those that expectations need.

    Raises:
        CircuitError: For circuits, parameters or observables that cannot be simulated.
    """

    signs: Tensor

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        input_params: Sequence[Any] = (),
        weight_params: Sequence[Any] = (),
        input_kind: InputKind = "parameters",
        all_outcomes: bool = False,
    ) -> None:
        super().__init__()
        self.plan = make_plan(
            circuit,
            observables,
            input_params=input_params,
            weight_params=weight_params,
            input_kind=input_kind,
            all_outcomes=all_outcomes,
        )
        plan = self.plan
        self.num_qubits, self.num_inputs = plan.num_qubits, plan.num_inputs
        self.num_weights, self.num_outputs = len(plan.weight_params), plan.signs.shape[1]
        self.input_kind, self.bases = plan.input_kind, plan.readout.bases
        self.fewest_rows, self.effective = plan.fewest_rows, plan.effective_rows
        self.add_constant("signs", plan.signs)  # (R, M), R outcomes
        self.gates = Gatewise(plan) if plan.dense else Blockwise(plan)
        self.unitaries = Dense(plan, self.gates) if isinstance(self.gates, Gatewise) else None
        if plan.float64:
            self.need_float64()

    def forward(
        self, inputs: Tensor, weights: Tensor, fused: Fused | None = None, signs: Tensor | None = None
    ) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``; leading axes broadcast with the inputs'.
            fused: What :meth:`fused` gave for these weights, if it was called already.
            signs: What :meth:`scaled_signs` gave, to scale each expectation at no cost. Without gradients only.

        Raises:
            EncodingError: For NaN or infinity in amplitude input.
        """
        with without_autocast(inputs.device):
            return self._with_axes(self._expectations(inputs, weights, fused, signs), inputs, weights)

    def _expectations(self, inputs: Tensor, weights: Tensor, fused: Fused | None, signs: Tensor | None) -> Tensor:
        self.leave_meta(weights)
        signs, rows, unitaries = self.signs if signs is None else signs, inputs.shape[-2], self.unitaries
        if isinstance(self.gates, Blockwise):
            return self.gates.expectations(inputs, weights, signs)
        if unitaries is None or (fused is None and not self._repays_unitaries(rows)):
            outcomes = squared_moduli(self.gates.amplitudes(inputs, weights, self.signs.dtype))  # (..., B, R)
            return (outcomes @ signs.to(outcomes.dtype)).to(self.signs.dtype)
        effective = self.effective is not None and rows >= self.effective
        return unitaries.expectations(inputs, weights, signs, fused, effective=effective)

    def _repays_unitaries(self, rows: int) -> bool:
        """Return whether forming unitaries takes less time than applying gates to so many rows."""
        if self.unitaries is not None and self.unitaries.few_calls:
            return True
        return rows >= self.fewest_rows or (self.plan.always_dense and not torch.is_grad_enabled())

    def fused(self, weights: Tensor) -> Fused:
        """Return the data-independent factors as real matrices; nothing where gates are applied to the batch.

        Without gradients they are cached until the weights change.
        """
        self.leave_meta(weights)
        if self.unitaries is None:
            return ()
        with without_autocast(weights.device):
            return self.unitaries.fused(weights, self.unitaries.state_dtype(self.signs.dtype))

    def scaled_signs(self, scale: Tensor) -> Tensor:
        """Return the signs with which a call gives expectations times ``scale``, of shape ``(..., M)``."""
        return self.signs * scale.unsqueeze(-2)  # (..., R, M)

    def probabilities(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the probabilities of all outcomes in all bases, shape ``(..., B, num_bases * 2**n)``.

        Only for a program made with ``all_outcomes``; arguments as for a call.
        """
        self.leave_meta(weights)
        if self.unitaries is None:
            found = squared_moduli(self.gates.amplitudes(inputs, weights, self.signs.dtype)).to(self.signs.dtype)
        else:
            found = probabilities(self.unitaries.amplitudes(inputs, weights, self.signs.dtype), len(self.signs))
        return self._with_axes(found, inputs, weights)

    def _with_axes(self, values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return values of shape ``(..., B, ·)`` with the leading axes of inputs or weights that occur in no angle."""
        if self.plan.uses_all:
            return values
        lead = torch.broadcast_shapes(values.shape[:-2], inputs.shape[:-2], weights.shape[:-1])
        return values.expand(*lead, -1, -1)

    @property
    def dense(self) -> bool:
        """Whether unitaries are formed, at least for large batches."""
        return self.unitaries is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        how = "fused unitaries" if self.dense else "fused gates on the batch"
        how += "" if self.effective is None else f", effective observables from {self.effective} rows on"
        gates = self.gates
        count = gates.num_phases
        data = f"{count} data-dependent phase{'s' * (count != 1)}"
        bases = f"{len(self.bases)} measurement bas{'is' if len(self.bases) == 1 else 'es'}"
        return f"{self.num_qubits} qubits, {data}, {bases}, {how}"


class StateProgram(StatevectorProgram):
    r"""State vectors :math:`|\psi(x, \theta)\rangle` of an attention circuit, for batches of x and of θ.

    Args:
        circuit: The circuit. Amplitude-encoded circuits take real vectors of length 2ⁿ, others their angles.
    """

    def __init__(self, circuit: AttentionCircuit) -> None:
        takes_vectors = circuit.encoding.kind == "amplitude"
        super().__init__(
            circuit.ansatz if takes_vectors else circuit.circuit,
            [SparsePauliOp("Z" * circuit.num_qubits)],  # the basis of the amplitudes themselves
            input_params=() if takes_vectors else circuit.input_params,
            weight_params=circuit.weight_params,
            input_kind="amplitude" if takes_vectors else "parameters",
            all_outcomes=True,
        )

    def states(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return amplitudes in Qiskit's order (qubit 0 last), shape ``(..., B, 2**n)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``; leading axes broadcast with the inputs'.

        Raises:
            EncodingError: For NaN or infinity in amplitude input.
        """
        return torch.complex(*self.parts(inputs, weights).unbind(-2))

    def parts(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return real and imaginary parts of the amplitudes, shape ``(..., B, 2, 2**n)``; arguments as above."""
        self.leave_meta(weights)
        with without_autocast(inputs.device):
            if self.unitaries is None or not self._repays_unitaries(inputs.shape[-2]):
                states = self._with_axes(self.gates.amplitudes(inputs, weights, self.signs.dtype).mT, inputs, weights)
                return torch.stack([states.real, states.imag], -2)
            rows = self._with_axes(self.unitaries.amplitudes(inputs, weights, self.signs.dtype), inputs, weights)
        parts = rows.unflatten(-1, (-1, 2**self.num_qubits))  # (..., B, 1 or 2, 2**n)
        return parts if parts.shape[-2] == 2 else torch.cat([parts, torch.zeros_like(parts)], -2)
