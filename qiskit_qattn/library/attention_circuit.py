"""AttentionCircuit: what a quantum head computes, as plain Qiskit objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qiskit import QuantumCircuit, qasm3
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.library.observables import measurement_bases

if TYPE_CHECKING:
    from qiskit_machine_learning.neural_networks import EstimatorQNN


@dataclass(frozen=True)
class ShotReport:
    """What a precision costs.

    Attributes:
        precision: Largest standard error of an expectation.
        num_observables: How many expectations the shots serve.
        bases: The measurement bases, one of ``X``, ``Y``, ``Z`` a qubit, qubit 0 last.
        shots: Samples a basis; what a backend string takes as ``shots``.
    """

    precision: float
    num_observables: int
    bases: tuple[str, ...]
    shots: int

    @property
    def total(self) -> int:
        """Circuit executions for one input."""
        return len(self.bases) * self.shots

    def __str__(self) -> str:
        bases = "basis" if len(self.bases) == 1 else "bases"
        return (
            f"{self.num_observables} observables in {len(self.bases)} measurement {bases}, {self.shots} shots each: "
            f"{self.total} executions an input for standard errors of at most {self.precision:g}."
        )


@dataclass(frozen=True, eq=False)
class AttentionCircuit:
    r"""The circuit of an attention head and what is measured on it.

    .. math:: f_m(x; \theta) = \langle 0 | E(x)^\dagger A(\theta)^\dagger P_m A(\theta) E(x) | 0 \rangle

    Attributes:
        name: Name in the catalog, or any label.
        encoding: E, the data-encoding circuit.
        ansatz: A, the trainable circuit on the same qubits.
        labels: The Pauli strings :math:`P_m` in Qiskit's order (qubit 0 last).
    """

    name: str
    encoding: Encoding
    ansatz: QuantumCircuit
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        n = self.encoding.num_qubits
        if self.ansatz.num_qubits != n:
            raise CircuitError(f"The encoding has {n} qubits and the ansatz {self.ansatz.num_qubits}; they must match.")
        wrong = [label for label in self.labels if len(label) != n or set(label) - set("IXYZ")]
        if wrong or not self.labels:
            raise CircuitError(f"Observables must be strings of {n} letters I, X, Y, Z, at least one; got {wrong}.")

    @property
    def num_qubits(self) -> int:
        """The number of qubits, n."""
        return self.encoding.num_qubits

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """Encoding then ansatz, without measurement."""
        circuit = QuantumCircuit(self.num_qubits, name=self.name)
        circuit.compose(self.encoding.circuit, inplace=True)
        circuit.compose(self.ansatz, inplace=True)
        return circuit

    @property
    def input_params(self) -> tuple:
        """The encoding's parameters, in the order of the data."""
        return self.encoding.params

    @cached_property
    def weight_params(self) -> tuple:
        """The ansatz's parameters, in the order of their vector."""
        return tuple(sorted(self.ansatz.parameters, key=lambda p: p.index))

    @cached_property
    def observables(self) -> tuple[SparsePauliOp, ...]:
        """One operator an output."""
        return tuple(SparsePauliOp(label) for label in self.labels)

    def annotated(self) -> QuantumCircuit:
        """Return the circuit with labelled barriers between its parts, measured in its first basis."""
        circuit = QuantumCircuit(self.num_qubits, self.num_qubits, name=self.name)
        circuit.barrier(label="encoding")
        circuit.compose(self.encoding.circuit, inplace=True)
        circuit.barrier(label="ansatz")
        circuit.compose(self.ansatz, inplace=True)
        circuit.barrier(label="measure")
        basis = measurement_bases(self.labels)[0][0]
        for qubit, letter in enumerate(reversed(basis)):
            if letter == "Y":
                circuit.sdg(qubit)
            if letter != "Z":
                circuit.h(qubit)
        circuit.measure(range(self.num_qubits), range(self.num_qubits))
        return circuit

    def draw(self, output: str = "text", **options: Any) -> Any:
        """Draw encoding, ansatz and measurement, separated by labelled barriers.

        Args:
            output: As for :meth:`qiskit.QuantumCircuit.draw`: ``text``, ``mpl``, ``latex`` or ``latex_source``.
            options: Passed on to that method.
        """
        return self.annotated().draw(output, **options)

    def qasm3(self) -> str:
        """Return :attr:`circuit` as an OpenQASM 3 program with its parameters as inputs."""
        return qasm3.dumps(self.circuit)

    def shots(self, precision: float) -> ShotReport:
        r"""Report the shots that give every observable a standard error of at most ``precision``.

        .. math:: N = B \lceil 1 / \varepsilon^2 \rceil

        for one input and B measurement bases: all strings of a basis share its shots, and a string's variance a shot,
        :math:`1 - \langle P \rangle^2`, is at most 1. A head's gain multiplies the error of its outputs.

        Args:
            precision: ε, at least 1e-9 and finite.

        Raises:
            CircuitError: For another precision.
        """
        if not 1e-9 <= precision < math.inf:
            raise CircuitError(f"precision must be at least 1e-9 and finite, got {precision}.")
        bases = tuple(basis for basis, _ in measurement_bases(self.labels))
        return ShotReport(precision, len(self.labels), bases, math.ceil(1 / precision**2))

    def qnn(self, backend: Any = "statevector") -> EstimatorQNN:
        """Return the head as a Qiskit Machine Learning network with input gradients.

        Args:
            backend: A backend string, or anything with the attributes ``estimator``, ``pass_manager`` and
                ``precision``.

        The network's inputs are the circuit's parameters: for amplitude encoding the RY angles that
        :func:`qiskit_qattn.amplitude_angles` gives for a vector.
        """
        from qiskit_machine_learning.neural_networks import EstimatorQNN

        if isinstance(backend, str):
            from qiskit_qattn.backends.registry import (
                get_backend,  # the one import that points up, and only when a name is given
            )

            backend = get_backend(backend)
        circuit, observables = self.circuit, list(self.observables)
        if backend.pass_manager is not None:
            circuit = backend.pass_manager.run(circuit)
            observables = [op.apply_layout(circuit.layout) for op in observables]
        return EstimatorQNN(
            circuit=circuit,
            observables=observables,
            input_params=self.input_params,
            weight_params=self.weight_params,
            input_gradients=True,
            estimator=backend.estimator,
            default_precision=backend.precision,
        )
