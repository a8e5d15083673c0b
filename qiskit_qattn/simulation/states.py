"""The exact engine's states themselves, where expectations are not enough."""

from __future__ import annotations

import torch
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.statevector import StatevectorProgram


class StateProgram(StatevectorProgram):
    r"""State vectors :math:`|\psi(x, \theta)\rangle` of an attention circuit, for batches of x and of θ.

    Args:
        circuit: The circuit. Amplitude-encoded circuits take real vectors of length 2ⁿ, others their angles.
    """

    def __init__(self, circuit: AttentionCircuit) -> None:
        observable = [SparsePauliOp("Z" * circuit.num_qubits)]  # one basis, in which nothing is turned
        if circuit.encoding.kind == "amplitude":
            super().__init__(
                circuit.ansatz,
                observable,
                weight_params=circuit.weight_params,
                input_kind="amplitude",
                all_outcomes=True,
            )
        else:
            super().__init__(
                circuit.circuit,
                observable,
                input_params=circuit.input_params,
                weight_params=circuit.weight_params,
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
        if not self.dense or inputs.shape[-2] < self.fewest_rows:
            return self._gate_by_gate(inputs, weights).mT
        state, last = self._dense(inputs, weights, self.fused(weights))
        parts = (state @ last).unflatten(-1, (-1, 2**self.num_qubits))  # (..., B, 1 or 2, 2**n)
        real = parts[..., 0, :]
        return torch.complex(real, parts[..., 1, :] if parts.shape[-2] == 2 else torch.zeros_like(real))
