"""Noise as Pauli transfer matrices, read from any Qiskit Aer ``NoiseModel``.

Only attributes of the model are read; Aer itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from qiskit.circuit import Delay
from qiskit.circuit.library import C3XGate, C4XGate, DiagonalGate, MCPhaseGate, MCXGate, UnitaryGate
from qiskit.quantum_info import PTM, Operator

from qiskit_qattn.errors import CircuitError, ConfigError
from qiskit_qattn.simulation.gates import standard_name

_AER_NAMES = {
    UnitaryGate: "unitary",
    DiagonalGate: "diagonal",
    MCXGate: "mcx",
    C3XGate: "mcx",
    C4XGate: "mcx",
    MCPhaseGate: "mcphase",
}
_TOLERANCE = 1e-6  # of eigenvalues that must not be negative, and of a trace that must be 1
_NOISELESS = {"barrier", "global_phase", "initialize", "measure"}
_WITHOUT_LABEL = {"delay", "reset", "diagonal"}


def pauli_labels(num_qubits: int) -> list[str]:
    """Return the 4ⁿ Pauli strings in the order of transfer matrices; qubit 0 is the last letter."""
    return ["".join(letters) for letters in product("IXYZ", repeat=num_qubits)]


def noise_name(operation: Any) -> str | None:
    """Return the name by which Aer looks up an instruction's error, or None if it has none.

    The class identifies an instruction; a gate's label replaces its name.
    """
    name = standard_name(operation)
    if name is None:
        name = _AER_NAMES.get(getattr(operation, "base_class", type(operation)))
    if name is None or name in _NOISELESS:
        return None
    return name if name in _WITHOUT_LABEL else operation.label or name


def transfer_matrix(unitary: np.ndarray) -> np.ndarray:
    r"""Return :math:`T_{ij} = \mathrm{tr}(P_i\, U P_j U^\dagger) / 2^n`, real, 4ⁿ×4ⁿ."""
    return np.real(PTM(Operator(unitary)).data)


def check_channel(channel: Any, name: str, qubits: Sequence[int]) -> None:
    """Check that an error is completely positive and trace preserving, to 10⁻⁶.

    Aer checks what its own functions make, but not instructions that were put into an error as they are.

    Args:
        channel: A quantum channel of Qiskit's, or what can become one.
        name: The instruction that it follows, for the error.
        qubits: Where.

    Raises:
        ConfigError: If it is not; no state has the expectations that it would give.
    """
    found = PTM(channel)
    if not (np.isfinite(found.data).all() and found.is_cptp(atol=_TOLERANCE)):
        raise ConfigError(
            f"The noise model's error of {name!r} on qubits {list(qubits)} is no channel: it must be completely "
            f"positive and trace preserving to {_TOLERANCE:g}."
        )


def _transfer(channel: Any, name: str, qubits: Sequence[int]) -> np.ndarray:
    """Return the transfer matrix of an error that is a channel."""
    found = PTM(channel)
    check_channel(found, name, qubits)
    return np.real(found.data)


@dataclass(frozen=True)
class DeviceNoise:
    """The errors of a noise model, by instruction and qubits.

    Attributes:
        model: An Aer ``NoiseModel``, or None for no noise.
        qubits: The physical qubit of each qubit of the circuit.
        readout: Whether measured values include readout error.
    """

    model: Any = None
    qubits: tuple[int, ...] | None = None
    readout: bool = True
    _cache: dict[Any, np.ndarray | None] = field(default_factory=dict, compare=False, repr=False)

    def after(self, operation: Any, qubits: Sequence[int]) -> np.ndarray | None:
        """Return the transfer matrix of the error after an instruction, on its qubits in their order, or None.

        The error is the one that Aer applies: that of a gate's label if it has one, otherwise of the instruction's
        name. After a delay, what the model's noise passes add for it follows.

        Raises:
            CircuitError: For an error on other qubits than the instruction's, or a noise pass that adds to other
                instructions than delays.
            ConfigError: For an error that is no channel.
        """
        if self.model is None or (name := noise_name(operation)) is None:
            return None
        error = self._error(name, qubits)
        for extra in self._of_delay(operation, qubits) if name == "delay" else ():
            error = extra if error is None else extra @ error
        return error

    def _error(self, name: str, qubits: Sequence[int]) -> np.ndarray | None:
        """Return the transfer matrix of the error under a name."""
        physical = self._physical(qubits)
        key = (name, physical)
        if key not in self._cache:
            error = self._find(name, physical)
            if error is not None and error.num_qubits != len(qubits):
                raise CircuitError(
                    f"The noise model's error of {name!r} on qubits {list(physical)} acts on {error.num_qubits} "
                    f"qubits; errors on other qubits than the gate's are not supported."
                )
            self._cache[key] = None if error is None else _transfer(error.to_quantumchannel(), name, physical)
        return self._cache[key]

    def _of_delay(self, delay: Any, qubits: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the transfer matrix of what each of the model's noise passes adds after a delay."""
        for noise_pass in self.model._custom_noise_passes:
            if getattr(noise_pass, "_ops", None) != (Delay,) or noise_pass._method != "append":
                raise CircuitError(
                    f"The noise model's pass {type(noise_pass).__name__} is not supported; known are passes that add "
                    f"noise after delays."
                )
            error = noise_pass._func(delay, list(self._physical(qubits)))
            if error is not None:
                yield _transfer(error, "delay", self._physical(qubits))

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
