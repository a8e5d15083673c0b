"""Which executor is cheapest for a circuit: a matrix for all data, effective observables, or gates on each batch.

The choice counts multiplications and compares them by a table of what operations cost, :data:`COSTS`.
``python -m benchmarks.engine_costs`` measures the same table on a machine, and :func:`use` takes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation.operators import qubit_groups
from qiskit_qattn.simulation.program import LocalStep, MatrixStep, PermuteStep, Program
from qiskit_qattn.simulation.trigonometric import MAX_QUBITS

LARGEST = 2**22  # numbers in a matrix from data to amplitudes, and in constant matrices: 32 MiB


@dataclass(frozen=True)
class Costs:
    """What operations cost, in multiplications of one large product; the defaults were measured on two cores.

    Attributes:
        dense_qubits: Up to how many qubits unitaries are formed whatever the data; above, blocks of gates are faster
            on the batch: at 9 and 10 qubits twice as fast at batch 256.
        gate: A multiplication in gates that are applied one by one.
        phase: A pass over the amplitudes, for phases or a permutation, in multiplications in gates.
        effective: A multiplication between features and effective observables: with half as many nothing is gained,
            with an eighth 1.5 times the speed.
        columns: How many times fewer columns than amplitudes a matrix on many qubits must have to be formed; with all
            columns, gates win at 9 and 10 qubits.

    Raises:
        ConfigError: For numbers that are not positive, or more than 12 ``dense_qubits``, whose matrices take 128 MiB.
    """

    dense_qubits: int = 8
    gate: float = 2.5
    phase: float = 8.0
    effective: float = 4.0
    columns: float = 8.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be a positive number, got {value}.")
        if self.dense_qubits > _MOST_DENSE:
            raise ConfigError(f"dense_qubits must be at most {_MOST_DENSE}, got {self.dense_qubits}.")


_MOST_DENSE = 12
COSTS = Costs()


def use(costs: Costs) -> None:
    """Choose by another table for all circuits that are built from now on in this process."""
    global COSTS
    COSTS = costs


def forms_matrix(program: Program, features: int, outcomes: int, amplitude: bool) -> bool:
    """Return whether a circuit's data-independent part is worth one matrix, at least for large batches.

    Args:
        program: The circuit.
        features: F, the columns that the first matrix acts on.
        outcomes: R, the outcomes of all measurement bases that are needed.
        amplitude: Whether data enters as amplitudes.
    """
    if program.num_qubits <= COSTS.dense_qubits:
        return True
    single = not amplitude and len(program.phases) <= 1
    return single and _are_few(features, program) and 2 * features * outcomes <= LARGEST


def keeps_matrix(program: Program, features: int) -> bool:
    """Return whether, without gradients, the matrix is formed for few rows too, and cached for later calls.

    Args:
        program: The circuit.
        features: F, the columns that the first matrix acts on.
    """
    return program.num_qubits <= COSTS.dense_qubits or _are_few(features, program)


def fewest_rows(program: Program, features: int, outcomes: int) -> int:
    """Return from how many rows on, in a pass with gradients, forming matrices is cheaper than gates on the batch.

    Args:
        program: The circuit.
        features: F, the columns that the first matrix acts on.
        outcomes: R, the outcomes of all measurement bases that are needed.
    """
    if program.num_qubits <= MAX_QUBITS:  # a handful of calls form it
        return 0
    real = _is_real(program)
    size, last = 2**program.num_qubits, max(len(program.blocks) - 1, 1)
    each = [COSTS.gate * _column(block, program.num_qubits) for block in program.blocks]
    first = 1 if program.phases else 0
    build = (features * each[first] + 2 * size * sum(each[first + 1 :])) / (4 if real else 1)
    row = sum(
        (features if k == first else 2 * size) * 2 * (outcomes if k == last else size) for k in range(first, last + 1)
    )
    gain = sum(each) - (row / 2 if real else row)
    return math.ceil(build / gain) if gain > 0 else 2**62


def fewest_effective_rows(program: Program, features: int, outcomes: int, observables: int) -> int | None:
    """Return from how many rows on observables cost less between features than after amplitudes; None for never.

    A row then takes M F² multiplications instead of up to 2 F R, and forming the observables 2 M F² R once.

    Args:
        program: The circuit.
        features: F, the columns that the first matrix acts on.
        outcomes: R, the outcomes of all measurement bases that are needed.
        observables: M.
    """
    single = len(program.phases) <= 1 and program.num_qubits > MAX_QUBITS
    return observables * features if single and COSTS.effective * observables * features <= outcomes else None


def _are_few(features: int, program: Program) -> bool:
    return COSTS.columns * features <= 2**program.num_qubits


def _is_real(program: Program) -> bool:
    """Return whether all gates between data-dependent phases are real."""
    return all(
        isinstance(step, PermuteStep) or (isinstance(step, LocalStep | MatrixStep) and step.is_real)
        for steps in program.blocks
        for step in steps
    )


def _column(steps: tuple, num_qubits: int) -> float:
    """Return the real multiplications of a block's steps on one column of complex amplitudes."""
    size = 2**num_qubits
    local = 4 * size * sum(2 ** (stop - start) for start, stop in qubit_groups(num_qubits))
    total = 0
    for step in steps:
        if isinstance(step, LocalStep):
            total += local
        else:
            total += 4 * size * len(step.matrix) if isinstance(step, MatrixStep) else COSTS.phase * size
    return total
