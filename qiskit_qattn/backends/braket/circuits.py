"""PUBs as Amazon Braket's circuits, and its results as samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.transpiler.passes import RemoveBarriers

from qiskit_qattn.backends.jobs.circuit_text import plain_names, plain_parameters
from qiskit_qattn.backends.jobs.device import Bits, Pub
from qiskit_qattn.backends.measurement import Basis, Plan, Samples
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.tiling import TILES, is_tiled
from qiskit_qattn.backends.values import LEAST_SHOTS
from qiskit_qattn.errors import BackendError, CircuitError
from qiskit_qattn.simulation.decomposition import device_circuit, from_zero
from qiskit_qattn.simulation.sampler import Outcomes, registers_of


class BraketProgram:
    r"""A PUB as Braket circuits.

    Args:
        pub: A PUB of any broadcast shape.
        gates: Qiskit's names of the gates the device takes, or None for all of Braket's.
        fold: How many gates stand for each gate on two qubits, :math:`U (U^\dagger U)^k`; odd.
        barriers: Whether barriers keep the device's compiler from undoing that.

    Raises:
        CircuitError: For a circuit that has no form in Braket's gates, such as one that resets or waits.
    """

    def __init__(
        self, pub: EstimatorPub, gates: Collection[str] | None = None, *, fold: int = 1, barriers: bool = False
    ) -> None:
        from qiskit_braket_provider import to_braket

        self.plan = Plan(pub)
        # Names of the user's may be words of OpenQASM: "pi" would be read as the number.
        circuit = from_zero(device_circuit(plain_parameters(pub.circuit))).remove_final_measurements(inplace=False)
        with warnings.catch_warnings():
            # Expectations do not depend on it.
            warnings.filterwarnings("ignore", message="Device does not support global phase")
            try:
                self.circuit = to_braket(RemoveBarriers()(circuit), basis_gates=gates, add_measurements=False)
            except QiskitError as error:
                raise CircuitError(f"Amazon Braket cannot run the circuit: {error.message}") from error
        if fold > 1:
            self.circuit = _folded(self.circuit, fold, barriers)
        self.names = plain_names(len(self.plan.parameters))
        self.num_qubits, self.measures = pub.circuit.num_qubits, measured_qubits(pub)

    def inputs(self, row: int) -> dict[str, float]:
        """Return the parameters of one row by their names in the Braket circuit."""
        return dict(zip(self.names, self.plan.points[row].tolist(), strict=True))

    def measured(self, basis: Basis) -> Any:
        """Return the circuit with all qubits measured in a basis."""
        circuit = self.circuit.copy()
        for qubit, letter in enumerate(reversed(basis.label)):
            if letter == "X":
                circuit.ry(qubit, -math.pi / 2)
            elif letter == "Y":
                circuit.rx(qubit, math.pi / 2)
        return circuit.measure(self.measures)

    def expectations(self) -> Any:
        """Return the circuit with the expectation of each Pauli string of the plan as its results."""
        from braket.circuits import Observable

        letters = {"X": Observable.X, "Y": Observable.Y, "Z": Observable.Z}
        circuit = self.circuit.copy()
        for label in self.plan.terms:
            targets = [qubit for qubit, letter in enumerate(reversed(label)) if letter != "I"]
            factors = [letters[label[-1 - qubit]]() for qubit in targets]
            circuit.expectation(factors[0] if len(factors) == 1 else Observable.TensorProduct(factors), targets)
        return circuit


def _folded(circuit: Any, factor: int, barriers: bool) -> Any:
    """Return a Braket circuit with its gates on two qubits folded.

    This is done to Braket's own circuit: of Qiskit's, qiskit-braket-provider drops the barriers.
    """
    from braket.circuits import Circuit, Gate

    folded = Circuit()
    for instruction in circuit.instructions:
        folded.add_instruction(instruction)
        where = [*instruction.control, *instruction.target]
        if isinstance(instruction.operator, Gate) and len(where) == 2:
            for _ in range(factor // 2):
                for part in (instruction.adjoint(), [instruction]):
                    if barriers:
                        folded.barrier(where)
                    folded.add(part)
    return folded


def measured_qubits(pub: EstimatorPub) -> list[int]:
    """Return the qubits that are measured: all, or those of the tiles of a circuit that has some."""
    if not is_tiled(pub):
        return list(range(pub.circuit.num_qubits))
    return sorted(qubit for tile in pub.circuit.metadata[TILES] for qubit in tile)


def program_sets(programs: list[BraketProgram], most: int, shots: int) -> list[Any]:
    """Return the executables of PUBs as program sets of at most ``most`` of them each, in order."""
    from braket.program_sets import CircuitBinding, ParameterSets, ProgramSet

    sets: list[Any] = []
    entries: list[Any] = []
    room = most
    for program in programs:
        for basis in program.plan.bases:
            circuit, start = program.measured(basis), 0
            while start < len(basis.rows):
                rows = basis.rows[start : start + room]
                if program.names:
                    columns = program.plan.points[rows].T.tolist()
                    inputs = ParameterSets(dict(zip(program.names, columns, strict=True)))
                    entries.append(CircuitBinding(circuit, input_sets=inputs))
                else:
                    entries += [circuit] * len(rows)
                start, room = start + len(rows), room - len(rows)
                if room == 0:
                    sets.append(ProgramSet(entries, shots_per_executable=shots))
                    entries, room = [], most
    return [*sets, ProgramSet(entries, shots_per_executable=shots)] if entries else sets


def in_one_basis(pub: Pub) -> EstimatorPub:
    """Return what is run for a Sampler's PUB: its circuit, all of whose qubits are measured in Z; others as they are.

    Braket measures qubits, and not into classical bits.

    Raises:
        CircuitError: For a measurement that is not at the end of the circuit.
    """
    if isinstance(pub, EstimatorPub):
        return pub
    circuit = Outcomes.of(pub.circuit).circuit
    return EstimatorPub.coerce((circuit, "Z" * circuit.num_qubits, pub.parameter_values), precision_of(pub.shots))


def bits_of(tables: Sequence[np.ndarray], pub: SamplerPub) -> Bits:
    """Return the classical registers of a PUB from what its circuit measured at each of its parameter sets.

    Args:
        tables: One of shape ``(S, n)`` for each parameter set; column i is qubit i.
        pub: The PUB.
    """
    found, least = Outcomes.of(pub.circuit), min(map(len, tables))  # a device may lose a few samples
    samples = np.stack([table[:least] for table in tables])[..., list(found.qubits)].astype(bool)
    return Bits(registers_of(pub.circuit, found.table(samples), pub.shape))


def samples_of(entry: Any, num_qubits: int, shots: int, measured: Sequence[int] | None = None) -> Samples:
    """Return how often Braket measured what in one circuit; arguments as for :func:`outcomes_of`.

    Raises:
        BackendError: As there.
    """
    table = outcomes_of(entry, num_qubits, shots, measured)
    bits, counts = np.unique(table, axis=0, return_counts=True)
    return Samples(bits, counts / counts.sum(), int(counts.sum()))


def outcomes_of(entry: Any, num_qubits: int, shots: int, measured: Sequence[int] | None = None) -> np.ndarray:
    """Return what Braket measured in one circuit, shape ``(S, num_qubits)``; column i is qubit i.

    Args:
        entry: Any of Braket's results with ``measurements`` and ``measured_qubits``.
        num_qubits: Number of qubits of the circuit; they have the numbers 0, 1, ….
        shots: How many samples were asked for.
        measured: The qubits that were measured, in increasing order, where the others are idle; None for all.

    Raises:
        BackendError: For other samples: of other qubits, no bits, too few or too many.
    """
    qubits = list(range(num_qubits)) if measured is None else list(measured)
    column = {qubit: index for index, qubit in enumerate(entry.measured_qubits)}
    table = np.asarray(entry.measurements)
    if table.ndim != 2 or table.shape[1] != len(column) or not column.keys() >= set(qubits):
        raise BackendError(
            f"A circuit of {num_qubits} qubits measured a table of shape {table.shape} of qubits {sorted(column)[:20]}."
        )
    if not LEAST_SHOTS * shots <= len(table) <= shots:
        raise BackendError(f"A circuit was measured {len(table):,} times, expected {shots:,}.")
    bits = table[:, [column[qubit] for qubit in qubits]]
    if not np.isin(bits, (0, 1)).all():
        raise BackendError(f"A circuit measured {bits.max()} on a qubit, expected 0 or 1.")
    if len(qubits) < num_qubits:
        bits, found = np.zeros((len(bits), num_qubits), dtype=bits.dtype), bits
        bits[:, qubits] = found
    return bits


def check_inputs(entry: Any, point: np.ndarray) -> None:
    """Compare the parameters that a result in a program set says it was run with, by value, since names may differ.

    Raises:
        BackendError: For other parameters; the results are not in the order of the circuits.
    """
    inputs = getattr(entry, "inputs", None)
    if inputs and not (
        len(inputs) == len(point) and np.allclose(sorted(inputs.values()), sorted(point), rtol=1e-9, atol=1e-9)
    ):
        raise BackendError(f"A circuit was run at {sorted(inputs.values())[:8]}, expected {sorted(point)[:8]}.")
