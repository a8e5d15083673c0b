"""Noise as Pauli transfer matrices, read from any Qiskit Aer ``NoiseModel``.

The model is only asked for what it says about an instruction; Aer itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from qiskit.quantum_info import PTM, Operator

from qiskit_qattn.errors import CircuitError


def pauli_labels(num_qubits: int) -> list[str]:
    """Return the 4ⁿ Pauli strings in the order of transfer matrices; qubit 0 is the last letter."""
    return ["".join(letters) for letters in product("IXYZ", repeat=num_qubits)]


def transfer_matrix(unitary: np.ndarray) -> np.ndarray:
    r"""Return :math:`T_{ij} = \mathrm{tr}(P_i\, U P_j U^\dagger) / 2^n`, real, 4ⁿ×4ⁿ."""
    return np.real(PTM(Operator(unitary)).data)


@dataclass(frozen=True)
class DeviceNoise:
    """The errors of a noise model, by instruction and qubits.

    Attributes:
        model: An Aer ``NoiseModel``, or None for no noise.
        qubits: The physical qubit each qubit of the circuit stands for.
        readout: Whether measured values carry readout error.
    """

    model: Any = None
    qubits: tuple[int, ...] | None = None
    readout: bool = True
    _cache: dict[Any, np.ndarray | None] = field(default_factory=dict, compare=False, repr=False)

    def after(self, name: str, qubits: Sequence[int]) -> np.ndarray | None:
        """Return the transfer matrix of the error after an instruction, on its qubits in their order, or None.

        Raises:
            CircuitError: For an error on other qubits than the instruction's.
        """
        if self.model is None:
            return None
        physical = self._physical(qubits)
        key = (name, physical)
        if key not in self._cache:
            error = self._find(name, physical)
            if error is not None and error.num_qubits != len(qubits):
                raise CircuitError(
                    f"The noise model's error of {name!r} on qubits {list(physical)} acts on {error.num_qubits} "
                    f"qubits; errors on other qubits than the gate's are not supported."
                )
            self._cache[key] = None if error is None else np.real(PTM(error.to_quantumchannel()).data)
        return self._cache[key]

    def readout_matrix(self, qubit: int) -> np.ndarray | None:
        """Return P(read | true) of a qubit, rows the true value, or None for a perfect readout.

        Raises:
            CircuitError: For readout errors that are correlated between qubits.
        """
        if self.model is None or not self.readout:
            return None
        local = self.model._local_readout_errors
        if any(len(key) > 1 for key in local):
            raise CircuitError("Readout errors that are correlated between qubits are not supported.")
        error = local.get(self._physical([qubit]), self.model._default_readout_error)
        return None if error is None else np.asarray(error.probabilities)

    def as_read(self, label: str) -> dict[str, float]:
        r"""Return the sum of Pauli strings whose exact expectation is that of a string with readout error.

        Readout error turns a measured Z of a qubit into :math:`\alpha Z + \beta` with
        :math:`\alpha = 1 - p_{1|0} - p_{0|1}` and :math:`\beta = p_{0|1} - p_{1|0}`, in any measurement basis.
        """
        terms = {label: 1.0}
        for at, letter in enumerate(label):
            matrix = None if letter == "I" else self.readout_matrix(len(label) - 1 - at)
            if matrix is not None:
                alpha, beta = matrix[0, 0] + matrix[1, 1] - 1, matrix[1, 0] - matrix[0, 1]
                bare = {name[:at] + "I" + name[at + 1 :]: value * beta for name, value in terms.items() if beta}
                terms = {name: value * alpha for name, value in terms.items()} | bare
        return terms

    def _find(self, name: str, physical: tuple[int, ...]) -> Any:
        by_qubits = self.model._local_quantum_errors.get(name, {})
        return by_qubits.get(physical, self.model._default_quantum_errors.get(name))

    def _physical(self, qubits: Sequence[int]) -> tuple[int, ...]:
        return tuple(qubits if self.qubits is None else (self.qubits[q] for q in qubits))
