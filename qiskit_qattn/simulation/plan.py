"""What is computed: a circuit, its observables and the order of its parameters as data that every executor reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info.operators.base_operator import BaseOperator

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation import cost
from qiskit_qattn.simulation.cutting import in_use
from qiskit_qattn.simulation.elementary import ParityRotation, Rotation, UnitaryOperation
from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.program import MAX_QUBITS as LISTED_QUBITS
from qiskit_qattn.simulation.program import Program, build_program, depends_on
from qiskit_qattn.simulation.readout import Readout, as_pauli_sum, build_readout

InputKind = Literal["parameters", "amplitude"]

MAX_QUBITS = 20  # 8 MiB of amplitudes a row in float32, and as many signs an observable
MAX_FLOAT32_PHASES = 4  # with more data-dependent phases, rounding errors of float32 add up past 1e-6


@dataclass(frozen=True, eq=False)
class UniquePhases:
    r"""The first data-dependent phases φ of the 2ⁿ amplitudes, with equal and opposite ones stored once.

    Attributes:
        coefficients: The phases u that are left, as combinations of angles, shape ``(U, K)``.
        sign: s, shape ``(2**n,)``, with :math:`\varphi_i = s_i u_{k(i)}`.
        position: k, likewise.
    """

    coefficients: np.ndarray
    sign: np.ndarray
    position: np.ndarray

    def features_to_amplitudes(self) -> np.ndarray:
        r"""Return what takes ``[cos u, sin u]`` to :math:`e^{i\varphi} = \cos u + i s \sin u`, ``(2**n, 2 * U)``."""
        count, rows = len(self.coefficients), np.arange(len(self.sign))
        matrix = np.zeros((len(self.sign), 2 * count), dtype=complex)
        matrix[rows, self.position] = 1.0
        matrix[rows, count + self.position] = 1j * self.sign
        return matrix


@dataclass(frozen=True, eq=False)
class Plan:
    r"""The expectations of a circuit, and how they are best computed.

    .. math:: \langle O_m \rangle = \sum_r |\langle r | V U(x, \theta) | \psi_0 \rangle|^2\, S_{rm}

    Attributes:
        num_qubits: n.
        operations: U as elementary operations.
        program: U as blocks of all qubits and data-dependent phases; None where there are too many amplitudes for it.
        readout: The measurement bases V.
        outcomes: Which outcomes r of all bases are computed, shape ``(R,)``.
        signs: S, shape ``(R, M)``.
        input_kind: ``amplitude`` where the initial state ψ₀ is the normalised input; otherwise it is |0…0⟩.
        num_inputs: Length of the input's last axis.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: θ, in the order of the weights' last axis.
        mixed: Whether some angle depends on data and weights.
        phase_params: What data-dependent angles are functions of: x, and θ where some angle depends on both.
        uses_all: Whether inputs and weights both occur, so that values have the leading axes of both.
        unique_phases: The first data-dependent phases; None where there are none.
        num_features: F, the length of a row that the first unitary acts on.
        float64: Whether amplitudes are held in float64 whatever the module's dtype.
        dense: Whether unitaries are formed; otherwise gates are applied to the batch.
        adjoint: Whether 2ⁿ × 2ⁿ matrices are small enough for the adjoint method.
        fewest_rows: The fewest rows for which unitaries are formed in a pass with gradients.
        always_dense: Whether they are formed for fewer rows too in a pass without gradients.
        effective_rows: The fewest rows for which effective observables take fewer multiplications; None for none.
    """

    num_qubits: int
    operations: tuple[UnitaryOperation, ...]
    program: Program | None
    readout: Readout
    outcomes: np.ndarray
    signs: np.ndarray
    input_kind: InputKind
    num_inputs: int
    input_params: tuple[Any, ...]
    weight_params: tuple[Any, ...]
    mixed: bool
    phase_params: tuple[Any, ...]
    uses_all: bool
    unique_phases: UniquePhases | None = None
    num_features: int = 1
    float64: bool = False
    dense: bool = False
    adjoint: bool = False
    fewest_rows: int = 2**62
    always_dense: bool = False
    effective_rows: int | None = None


def make_plan(
    circuit: QuantumCircuit,
    observables: Sequence[BaseOperator],
    *,
    input_params: Sequence[Any] = (),
    weight_params: Sequence[Any] = (),
    input_kind: InputKind = "parameters",
    all_outcomes: bool = False,
) -> Plan:
    """Return the plan of a circuit; arguments as for :class:`~qiskit_qattn.simulation.statevector.StatevectorProgram`.

    Raises:
        CircuitError: For circuits, parameters or observables that cannot be simulated.
    """
    known = {*input_params, *weight_params}
    unbound = sorted(p.name for p in circuit.parameters if p not in known)
    if unbound:
        raise CircuitError(f"Circuit parameters {unbound} are neither input_params nor weight_params.")
    if input_kind == "parameters" and not all_outcomes:  # circuits in a device's layout have idle qubits
        circuit, observables = in_use(circuit, list(map(as_pauli_sum, observables)))
    num_qubits, amplitude = circuit.num_qubits, input_kind == "amplitude"
    if num_qubits > MAX_QUBITS:
        raise CircuitError(
            f"The exact engine stores all 2^n amplitudes and takes at most {MAX_QUBITS} qubits, got {num_qubits}."
        )
    operations = tuple(flatten(circuit))
    readout = build_readout(observables)
    if readout.num_qubits != num_qubits:
        raise CircuitError(
            f"The circuit has {num_qubits} qubits, the observables {readout.num_qubits}; they must match."
        )
    outcomes, signs = np.arange(len(readout.signs)), readout.signs
    if not all_outcomes:
        outcomes, signs = readout.needed_outcomes()
    data, weights = set(input_params), set(weight_params)
    every = [op.angle for op in operations if isinstance(op, Rotation | ParityRotation)]
    angles = [angle for angle in every if depends_on(angle, data)]
    mixed = any(depends_on(angle, weights) for angle in angles)
    plan = Plan(
        num_qubits=num_qubits,
        operations=operations,
        program=None,
        readout=readout,
        outcomes=outcomes,
        signs=signs,
        input_kind=input_kind,
        num_inputs=2**num_qubits if amplitude else len(input_params),
        input_params=tuple(input_params),
        weight_params=tuple(weight_params),
        mixed=mixed,
        phase_params=(*input_params, *weight_params) if mixed else tuple(input_params),
        uses_all=(amplitude or bool(angles)) and any(depends_on(angle, weights) for angle in every),
    )
    return plan if num_qubits > LISTED_QUBITS else _with_unitaries(plan, len(observables))


def _with_unitaries(plan: Plan, observables: int) -> Plan:
    """Return the plan of a circuit of fewer qubits, for which unitaries may be formed."""
    program = build_program(plan.operations, plan.num_qubits, plan.input_params)
    amplitude, outcomes = plan.input_kind == "amplitude", len(plan.outcomes)
    unique = _unique_phases(program.phases[0].coefficients) if program.phases else None
    features = 2**plan.num_qubits if amplitude else 1 if unique is None else 2 * len(unique.coefficients)
    plan = replace(
        plan,
        program=program,
        unique_phases=unique,
        num_features=features,
        float64=len(program.phases) > MAX_FLOAT32_PHASES,
        adjoint=plan.num_qubits <= cost.COSTS.dense_qubits,
    )
    if not cost.forms_matrix(program, features, outcomes, amplitude):
        return plan
    return replace(
        plan,
        dense=True,
        fewest_rows=cost.fewest_rows(program, features, outcomes),
        always_dense=cost.keeps_matrix(program, features),
        effective_rows=cost.fewest_effective_rows(program, features, outcomes, observables),
    )


def _unique_phases(coefficients: np.ndarray) -> UniquePhases:
    """Keep one of each pair of equal or opposite phases, for phases as combinations of angles, ``(2**n, K)``."""
    leading = np.array([row[np.flatnonzero(row)[0]] if row.any() else 1.0 for row in coefficients])
    sign = np.sign(leading)
    unique, position = np.unique(coefficients * sign[:, None], axis=0, return_inverse=True)
    return UniquePhases(unique, sign, position.reshape(-1))
