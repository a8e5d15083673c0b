"""AttentionCircuit: what a quantum head computes, as plain Qiskit objects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qiskit import QuantumCircuit, qasm3
from qiskit.circuit import Parameter
from qiskit.quantum_info import Pauli, SparsePauliOp

from qiskit_qattn.errors import CircuitError, counted
from qiskit_qattn.forks import cached_property
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.library.observables import measurement_bases
from qiskit_qattn.untrusted import shown

if TYPE_CHECKING:
    from qiskit_machine_learning.neural_networks import EstimatorQNN


@dataclass(frozen=True)
class ShotReport:
    """The shots that a precision takes.

    Attributes:
        precision: Largest standard error of an expectation.
        num_observables: Number of expectations that are estimated from the shots.
        bases: The measurement bases, one of ``X``, ``Y``, ``Z`` per qubit, qubit 0 last.
        shots: Shots per basis, the option ``shots`` of a backend string.
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
            f"{counted(self.num_observables, 'observable')} in {len(self.bases)} measurement {bases}, "
            f"{counted(self.shots, 'shot')} each: "
            f"{self.total:,} executions per input for standard errors of at most {self.precision:g}."
        )


@dataclass(frozen=True, eq=False, repr=False)
class AttentionCircuit:
    r"""The circuit of an attention head and what is measured on it.

    .. math:: f_m(x; \theta) = \langle 0 | E(x)^\dagger A(\theta)^\dagger P_m A(\theta) E(x) | 0 \rangle

    Attributes:
        name: Name in the catalog, or any label.
        encoding: E, the data-encoding circuit.
        ansatz: A, the trainable circuit on the same qubits.
        labels: The Pauli strings :math:`P_m` in Qiskit's order (qubit 0 last).
        sums: The observables, where they are sums of these strings; else None.
        weight_order: The trainable parameters in order; None for the order of the ansatz.
        names: What each sum is, in a string such as an outcome ``010``; None for sums without names.
    """

    name: str
    encoding: Encoding
    ansatz: QuantumCircuit
    labels: tuple[str, ...]
    sums: tuple[SparsePauliOp, ...] | None = None
    weight_order: tuple | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        n = self.encoding.num_qubits
        if self.ansatz.num_qubits != n:
            raise CircuitError(
                f"The encoding has {counted(n, 'qubit')} and the ansatz {self.ansatz.num_qubits}; they must match."
            )
        wrong = [label for label in self.labels if len(label) != n or set(label) - set("IXYZ")]
        if wrong or not self.labels:
            raise CircuitError(f"Observables must be strings of {n} letters I, X, Y, Z, at least one; got {wrong}.")

    @classmethod
    def from_circuit(
        cls,
        circuit: QuantumCircuit,
        observables: Sequence[SparsePauliOp | Pauli | str],
        input_params: Sequence[Parameter],
        weight_params: Sequence[Parameter],
    ) -> AttentionCircuit:
        r"""Return the attention circuit of any other circuit.

        .. math:: f_m(x; \theta) = \langle 0 | U(x, \theta)^\dagger O_m U(x, \theta) | 0 \rangle

        Args:
            circuit: U, in which data and weights may enter anywhere; final measurements are removed.
            observables: :math:`O_m`, on the circuit's qubits.
            input_params: The parameters that carry data, in the order of the data.
            weight_params: The trainable parameters, in order.

        Raises:
            CircuitError: For a parameter that is listed twice or not at all, no observable, or one on another number of
                qubits, and for something else than a circuit.
        """
        if not isinstance(circuit, QuantumCircuit):
            raise CircuitError(f"from_circuit takes a QuantumCircuit, got {shown(circuit)}.")
        named = Counter([*input_params, *weight_params])
        twice = sorted(each.name for each, count in named.items() if count > 1)
        missing = sorted(each.name for each in circuit.parameters if each not in named)
        if twice or missing:
            raise CircuitError(
                f"Every parameter of a circuit must be in input_params or weight_params, once; "
                f"in neither: {missing}, more than once: {twice}."
            )
        if circuit.clbits:  # transpilers drop what does not affect measurements
            circuit = circuit.remove_final_measurements(inplace=False)
        sums = tuple(SparsePauliOp(each) for each in observables)
        labels = tuple(dict.fromkeys(label for each in sums for label in each.paulis.to_labels()))
        data = Encoding("plain", QuantumCircuit(circuit.num_qubits), tuple(input_params), len(input_params))
        return cls(circuit.name, data, circuit, labels, sums, tuple(weight_params))

    def __repr__(self) -> str:
        bases = len(measurement_bases(self.labels))
        return (
            f"<AttentionCircuit {self.name}: {counted(self.num_qubits, 'qubit')}, "
            f"{counted(len(self.input_params), 'input parameter')}, "
            f"{counted(len(self.weight_params), 'weight')}, {counted(len(self.observables), 'observable')} in "
            f"{bases} measurement "
            f"{'basis' if bases == 1 else 'bases'}>"
        )

    def __str__(self) -> str:
        """Return a line that says what it is, and the drawing."""
        measured = ", ".join(self.labels[:4]) + (", …" if len(self.labels) > 4 else "")
        return f"{self!r} measuring {measured}\n{self.draw()}"

    @property
    def num_qubits(self) -> int:
        """The number of qubits, n."""
        return self.encoding.num_qubits

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """Encoding then ansatz, without measurement."""
        if self.encoding.kind == "plain":
            return self.ansatz
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
        if self.weight_order is not None:
            return self.weight_order
        return tuple(sorted(self.ansatz.parameters, key=lambda p: p.index))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is measured, in strings: the name of each output where those are named, else the Pauli strings."""
        return self.labels if self.names is None else self.names

    @cached_property
    def spread(self) -> list[float]:
        r"""The spread of each output :math:`\sum_P c_P P` over random states: :math:`\sqrt{\sum_{P \ne I} c_P^2 / D}`.

        D is the dimension of the space in which states lie. Beside a reference state outputs are entries of a unit
        vector, and their spread is :math:`D^{-1/2}`.
        """
        if self.encoding.kind in ("unary", "matrix"):
            return [self.encoding.dimension**-0.5] * len(self.observables)
        found = []
        for each in self.observables:
            weights = each.simplify()
            varying = (weights.paulis.x | weights.paulis.z).any(1)
            found.append(math.sqrt((abs(weights.coeffs[varying]) ** 2).sum() / self.encoding.dimension))
        return found

    @cached_property
    def observables(self) -> tuple[SparsePauliOp, ...]:
        """One operator per output."""
        if self.sums is not None:
            return self.sums
        return tuple(SparsePauliOp(label) for label in self.labels)

    def annotated(self) -> QuantumCircuit:
        """Return the circuit with labelled barriers between its parts, measured in its first basis."""
        circuit = QuantumCircuit(self.num_qubits, self.num_qubits, name=self.name)
        if self.encoding.kind != "plain":
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

        for one input and B measurement bases: all strings of a basis share its shots, and a string's variance per shot,
        :math:`1 - \langle P \rangle^2`, is at most 1. Where sums :math:`\sum_P c_P P` are measured, the shots are
        multiplied by the largest :math:`\sum_b (\sum_{P \in b} |c_P|)^2`. A head's gain multiplies the error of its
        outputs.

        Args:
            precision: ε, at least 1e-9 and finite.

        Raises:
            CircuitError: For another precision.
        """
        if not 1e-9 <= precision < math.inf:
            raise CircuitError(f"precision must be at least 1e-9 and finite, got {precision}.")
        grouped = measurement_bases(self.labels)
        bases = tuple(basis for basis, _ in grouped)
        shots = max(1, math.ceil(self._variance(grouped) / precision**2))
        return ShotReport(precision, len(self.observables), bases, shots)

    def _variance(self, grouped: Sequence[tuple[str, Sequence[int]]]) -> float:
        """Return the largest variance of an observable, at one shot of each basis."""
        if self.sums is None:
            return 1.0
        spreads = []
        for terms in (dict(each.simplify().to_list()) for each in self.sums):
            factors = [
                sum(abs(terms.get(self.labels[i], 0.0)) for i in each if set(self.labels[i]) != {"I"})
                for _, each in grouped
            ]
            spreads.append(sum(factor**2 for factor in factors))
        return max(spreads)

    def transpiled(self, backend: Any) -> tuple[QuantumCircuit, list[SparsePauliOp]]:
        """Return the circuit in the gates and layout of a backend, and the observables on the qubits they are then on.

        Args:
            backend: Anything with the attribute ``pass_manager``; None there keeps the circuit as it is.
        """
        if backend.pass_manager is None:
            return self.circuit, list(self.observables)
        circuit = backend.pass_manager.run(self.circuit)
        return circuit, [observable.apply_layout(circuit.layout) for observable in self.observables]

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
            # The one import in this package that points up.
            from qiskit_qattn.backends.registry import get_backend

            backend = get_backend(backend)
        circuit, observables = self.transpiled(backend)
        return EstimatorQNN(
            circuit=circuit,
            observables=observables,
            input_params=self.input_params,
            weight_params=self.weight_params,
            input_gradients=True,
            estimator=backend.estimator,
            default_precision=backend.precision_for(self) if hasattr(backend, "precision_for") else backend.precision,
        )
