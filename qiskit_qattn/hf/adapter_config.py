"""The settings of a quantum adapter, as ``adapter_config.json`` holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, cast, get_args

from peft import PeftConfig

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.library.ansatzes import check_num_qubits, orthogonal_ansatz
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.library.encodings import amplitude_encoding
from qiskit_qattn.untrusted import shown

MapKind = Literal["qisa", "frozen", "quadratic", "unitary"]
MAX_UNITARY_QUBITS = 8  # the unitary is formed as a matrix, 256 × 256 for each block


class QattnPeftType(StrEnum):
    """The method's name in ``adapter_config.json``."""

    QATTN = "QATTN"


@dataclass
class QattnAdapterConfig(PeftConfig):
    """A quantum adapter of PEFT, or one of its classical controls: what ``adapter_config.json`` holds.

    :func:`~qiskit_qattn.hf.adapters.add_adapters` makes one; with PEFT's own ``get_peft_model`` it works as well.

    Raises:
        ConfigError: For a field of another type or out of range.
        CircuitError: For a number of qubits, layers or observables that is not possible.

    Attributes:
        kind: ``qisa``, ``frozen`` (the same with its circuit left at random), ``quadratic`` or ``unitary``.
        num_qubits: n; the circuit takes vectors of length 2ⁿ.
        reps: Layers of the ansatz; None takes 1, and 2 for ``unitary``.
        num_outputs: M, the width of the bottleneck's output; None takes 2ⁿ. Not of ``unitary``.
        rank: R, of the quadratic forms.
        observables: The M Pauli strings that a circuit measures; filled in when left None, so that a later version
            measures the same.
        target_modules: Names of the layers, a pattern, or ``all-linear``; None takes those that PEFT adapts with LoRA.
        exclude_modules: Names of layers that are left as they are, or a pattern.
        layers_to_transform: Numbers of the blocks whose layers are adapted; None for all.
        layers_pattern: Name of the list of blocks, where it is not among the usual ones.
        modules_to_save: Layers that are trained themselves, such as a new classifier.
    """

    kind: str = "qisa"
    num_qubits: int = 4
    reps: int | None = None
    num_outputs: int | None = None
    rank: int = 2
    observables: list[str] | None = None
    target_modules: Any = None
    exclude_modules: Any = None
    layers_to_transform: Any = None
    layers_pattern: Any = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        """Check every field and choose the observables."""
        super().__post_init__()
        self.peft_type = cast(Any, QattnPeftType.QATTN)
        if self.kind not in get_args(MapKind):
            raise unknown_name("kind of quantum adapter", str(self.kind), get_args(MapKind))
        for name in ("num_qubits", "rank"):
            _check_count(name, getattr(self, name), least=1)
        for name, least in (("reps", 0), ("num_outputs", 1)):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), least=least)
        for name in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save"):
            _check_names(name, getattr(self, name))
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list | tuple):
                setattr(self, name, set(getattr(self, name)))
        if self.kind == "unitary":
            if self.num_qubits > MAX_UNITARY_QUBITS:
                raise ConfigError(f"A unitary adapter has at most {MAX_UNITARY_QUBITS} qubits, got {self.num_qubits}.")
            return
        check_num_qubits(self.num_qubits)
        if self.num_outputs is None:
            self.num_outputs = 2**self.num_qubits if self.observables is None else len(self.observables)
        if self.kind == "quadratic":
            _check_count("num_outputs", self.num_outputs, least=1, most=4**self.num_qubits - 1)
            _check_count("rank", self.rank, least=1, most=2**self.num_qubits)
        if self.kind != "quadratic":
            self.observables = list(self.circuit().labels)  # those that were given are checked

    def circuit(self) -> AttentionCircuit:
        """Return the circuit that each layer runs, one object for all; not for ``quadratic``."""
        labels = None if self.observables is None else tuple(self.observables)
        return _circuit(self.kind == "unitary", self.num_qubits, self.reps, self.num_outputs, labels)


@cache
def _circuit(
    unitary: bool, num_qubits: int, reps: int | None, num_outputs: int | None, labels: tuple[str, ...] | None
) -> AttentionCircuit:
    if unitary:
        ansatz = orthogonal_ansatz(num_qubits, 2 if reps is None else reps)
        return AttentionCircuit("orthogonal", amplitude_encoding(num_qubits), ansatz, ("Z" * num_qubits,))
    observables = "grouped" if labels is None else labels
    return attention_circuit("qisa", num_qubits, reps=reps, num_observables=num_outputs, observables=observables)


def _check_count(name: str, value: Any, *, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name} of an adapter must be a whole number {limits}, got {shown(value)}.")


def _check_names(name: str, value: Any) -> None:
    """Check a list of names or, but for ``modules_to_save``, a regular expression."""
    if isinstance(value, str) and name != "modules_to_save":
        try:
            re.compile(value)
        except re.error as error:
            raise ConfigError(f"{name}={shown(value)} is not a regular expression: {error}.") from error
    elif value is not None and not (
        isinstance(value, list | tuple | set) and all(isinstance(each, str) for each in value)
    ):
        raise ConfigError(f"{name} must be a list of names, got {shown(value)}.")
