"""Circuits of up to 30 qubits: Aer's matrix product states as a primitive."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ControlledGate
from qiskit.primitives import BackendEstimatorV2, DataBin, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import Pauli, SparsePauliOp
from qiskit.quantum_info.operators.base_operator import BaseOperator
from qiskit.transpiler import CouplingMap

from qiskit_qattn.backends.mps_log import measured_angles
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError, counted, missing_dependency
from qiskit_qattn.forks import ForkLock
from qiskit_qattn.simulation.cache import ResultPool, circuit_content
from qiskit_qattn.simulation.cutting import in_use
from qiskit_qattn.simulation.decomposition import device_circuit, from_zero, preset_pass_manager, transpiled
from qiskit_qattn.simulation.estimator import LocalEstimator, operator_of_terms
from qiskit_qattn.simulation.gates import is_parametric, standard_name

MAX_BOND = 64  # six layers of neighbouring CX gates, or three closed rings of them, are exact
WARN_ABOVE = 1e-3
AER_LOCK = ForkLock()  # Aer keeps the bond dimension in a variable of the process: one run at a time
MAX_QUBITS = 30
_RANK_TWO = ["cx", "cy", "cz", "cp", "rxx", "ryy", "rzz", "rzx"]  # sums of two products; other gates of four
_ONE_QUBIT = ["rx", "ry", "rz", "p", "u", "h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg"]
_BASIS = [*_ONE_QUBIT, *_RANK_TWO, "swap"]


class TruncationWarning(UserWarning):
    """Values whose truncation error is above 1e-3."""


class MPSEstimator(LocalEstimator):
    r"""A ``BaseEstimatorV2`` over Aer's matrix product states: one Aer run per PUB, for all its parameter sets.

    Circuits are put on a line of qubits, and every gate between neighbours keeps the χ largest Schmidt values of the
    bond between them. With :math:`\varepsilon_k` the sum of squares that gate k discards, the error reported is

    .. math:: \tau = \sin^2 \min\Big(\tfrac\pi2, \sum_k \arcsin \sqrt{\varepsilon_k}\Big) \ge 1 - |\langle
        \psi | \psi_\chi \rangle|^2, \qquad |\langle O \rangle_\chi - \langle O \rangle| \le 2 \|O\| \sqrt\tau

    since angles between states at most add up. (Aer's Schmidt values are themselves approximate once much was
    discarded; τ is then near 1.) Where the gates cannot make a bond wider than χ nothing is discarded and τ is 0.
    Otherwise the circuits run a second time, in a child process, to measure it.

    Each result's metadata holds ``truncation_error``, τ of each parameter set, and ``max_bond``, χ. With precision
    ε > 0 values are means over :math:`\lceil 1/\varepsilon^2 \rceil` samples of each measurement basis.

    Args:
        max_bond: χ, the largest bond dimension, at least 1.
        default_precision: Precision where a run gives none; 0 asks for exact values.
        seed: Seed of the sampling. Successive runs continue one stream of random numbers.

    Attributes:
        truncation_error: The largest τ of all runs so far.

    Raises:
        ConfigError: For a bond dimension below 1.
        MissingDependencyError: Without Aer.
        CircuitError: (from a job) for more than 30 qubits, a circuit that measures or resets, or values that are not
            finite.
        BackendError: (from a job) if Aer fails.

    Source: Vidal, PRL 91, 147902 (2003), arXiv quant-ph/0301063; for the sum of angles, Nielsen and Chuang, section
    9.2.2.
    """

    def __init__(self, *, max_bond: int = MAX_BOND, default_precision: float = 0.0, seed: int | None = None) -> None:
        super().__init__(default_precision=default_precision, seed=seed)
        if max_bond < 1:
            raise ConfigError(f"max_bond must be at least 1, got {max_bond}.")
        mps_simulator(max_bond)
        self.max_bond = max_bond
        self.truncation_error = 0.0
        self._lines = ResultPool[QuantumCircuit]()

    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        return [self._run_pub(pub) for pub in pubs]

    def _run_pub(self, pub: EstimatorPub) -> PubResult:
        terms = [tuple(sorted(observable.items())) for observable in pub.observables.ravel().tolist()]
        unique = list(dict.fromkeys(terms))
        part, operators = in_use(pub.circuit, [operator_of_terms(observable) for observable in unique])
        content = circuit_content(part)
        circuit = None if content is None else self._lines.take(content)
        circuit = on_a_line(part) if circuit is None else circuit
        if content is not None:
            self._lines.give(content, circuit)  # it is never changed
        given, params = list(pub.circuit.parameters), list(circuit.parameters)
        shape = pub.parameter_values.shape
        values = pub.parameter_values.as_array(given).reshape(math.prod(shape), len(given))  # (N, P)
        values = values[:, [given.index(param) for param in params]]
        used = values if params else values[:1]  # without parameters one evaluation serves all
        if not np.isfinite(values).all():  # Aer would never return
            raise CircuitError(f"Parameter values must be finite, got {values[~np.isfinite(values)][0]}.")
        errors = np.broadcast_to(self._truncation(circuit, used), len(values)).reshape(shape)
        table = spread = np.zeros((len(used), len(operators)))
        if len(used) and pub.precision == 0:
            table = self._exact(circuit, operators, used)
        elif len(used):
            table, spread = self._sampled(circuit, operators, used, pub.precision)
        rows = np.arange(len(values)).reshape(shape) if params else np.zeros(shape, dtype=int)
        columns = np.array([unique.index(term) for term in terms], dtype=int).reshape(pub.observables.shape)
        rows, columns = np.broadcast_arrays(rows, columns)
        metadata: dict[str, Any] = {
            "target_precision": pub.precision,
            "circuit_metadata": pub.circuit.metadata,
            "truncation_error": errors,
            "max_bond": self.max_bond,
        }
        if pub.precision > 0:
            metadata["shots"] = math.ceil(1 / pub.precision**2)
        return PubResult(
            DataBin(evs=table[rows, columns], stds=spread[rows, columns], shape=pub.shape), metadata=metadata
        )

    def _truncation(self, circuit: QuantumCircuit, values: np.ndarray) -> np.ndarray:
        """Return τ of each parameter set, and warn if one is large."""
        if bond_bound(circuit) <= self.max_bond or not len(values):
            return np.zeros(len(values))
        angles = measured_angles(circuit, values, self.max_bond)
        errors = np.sin(np.minimum(np.pi / 2, angles)) ** 2
        worst = float(errors.max())
        self.truncation_error = max(self.truncation_error, worst)
        if worst > WARN_ABOVE:
            warnings.warn(
                f"Truncation error {worst:.2g} at max_bond {self.max_bond}: expectations may be off by up "
                f"to {2 * math.sqrt(worst):.2g} times the observable's norm. Raise max_bond.",
                TruncationWarning,
                stacklevel=2,
            )
        return errors

    def _exact(self, circuit: QuantumCircuit, operators: Sequence[SparsePauliOp], values: np.ndarray) -> np.ndarray:
        """Return expectations, shape ``(N, M)``."""
        labels = list(dict.fromkeys(label for operator in operators for label in operator.paulis.to_labels()))
        coefficients = np.zeros((len(labels), len(operators)))  # (L, M)
        for m, operator in enumerate(operators):
            np.add.at(coefficients[:, m], [labels.index(p) for p in operator.paulis.to_labels()], operator.coeffs.real)
        where = range(circuit.num_qubits) if circuit.layout is None else circuit.layout.final_index_layout()
        observed = circuit.copy()
        for label in labels:  # on all qubits in order: Aer is wrong, or crashes, where they are permuted and some idle
            placed = Pauli(label).apply_layout(list(where), circuit.num_qubits)
            observed.save_expectation_value(placed, range(circuit.num_qubits), label=label)
        circuits, binds = [observed], {p: values[:, k].tolist() for k, p in enumerate(circuit.parameters)}
        if not aer_binds(circuit):
            circuits, binds = [observed.assign_parameters(row) for row in values], {}
        with AER_LOCK:
            result = mps_simulator(self.max_bond).run(circuits, parameter_binds=[binds] if binds else None, shots=1)
            found = result.result()
        if not found.success:
            raise BackendError(f"Aer could not run the circuit: {found.status}")
        rows = (found.data(i) for i in range(len(values)))
        return np.array([[row[label] for label in labels] for row in rows]) @ coefficients

    def _sampled(
        self, circuit: QuantumCircuit, operators: Sequence[SparsePauliOp], values: np.ndarray, precision: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return sampled means and their standard errors, each of shape ``(N, M)``."""
        seed = int(self._rng.integers(2**31))
        estimator = BackendEstimatorV2(backend=mps_simulator(self.max_bond), options={"seed_simulator": seed})
        column = [[operator.apply_layout(circuit.layout)] for operator in operators]
        pub = (circuit, column, {tuple(circuit.parameters): values} if circuit.num_parameters else None)
        with AER_LOCK:
            data = estimator.run([pub], precision=precision).result()[0].data
        return data.evs.T, data.stds.T


def mps_program(
    circuit: QuantumCircuit,
    observables: Sequence[BaseOperator],
    *,
    input_params: Sequence[Any],
    weight_params: Sequence[Any],
) -> PubProgram:
    """Return a circuit's exact values by matrix product states, with gradients by parameter shift.

    Args:
        circuit: A circuit of at most 30 qubits.
        observables: Operators on its qubits.
        input_params: Parameters that carry data.
        weight_params: Trainable parameters.

    Raises:
        CircuitError: For more qubits, or a gate without a shift rule.
        MissingDependencyError: Without Aer.
    """
    check_width(circuit)
    return PubProgram(
        circuit,
        observables,
        input_params=input_params,
        weight_params=weight_params,
        estimator=MPSEstimator(),
        precision=0.0,
    )


def mps_summary(circuit: QuantumCircuit) -> str:
    """Return in a phrase how :func:`mps_program` will compute.

    Raises:
        CircuitError: For more than 30 qubits, or a circuit that measures or resets.
    """
    bound = bond_bound(on_a_line(unroll(circuit)[0]))
    if bound <= MAX_BOND:
        cost = f"bonds of at most {bound}, so nothing is truncated"
    else:
        cost = f"bonds cut at {MAX_BOND}, the error in program.estimator.truncation_error"
    return f"{counted(circuit.num_qubits, 'qubit')}, matrix product states with {cost}, parameter shift"


def aer_binds(circuit: QuantumCircuit) -> bool:
    """Tell whether Aer binds a circuit's parameters right: controlled gates it gets wrong (its issue 2403)."""
    return not any(
        isinstance(item.operation, ControlledGate) and is_parametric(item.operation) for item in circuit.data
    )


@lru_cache(maxsize=8)
def mps_simulator(max_bond: int) -> Any:
    """Return Aer's simulator by matrix product states.

    Raises:
        MissingDependencyError: Without Aer.
    """
    try:
        from qiskit_aer import AerSimulator
    except ImportError as error:
        raise missing_dependency("qiskit-aer", "aer") from error
    return AerSimulator(method="matrix_product_state", matrix_product_state_max_bond_dimension=max_bond)


def check_width(circuit: QuantumCircuit) -> None:
    """Raise :class:`CircuitError` for more than 30 qubits."""
    if circuit.num_qubits > MAX_QUBITS:
        raise CircuitError(f"Matrix product states take at most {MAX_QUBITS} qubits here, got {circuit.num_qubits}.")


def on_a_line(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with gates between neighbours only, with swaps where they are needed.

    Raises:
        CircuitError: For more than 30 qubits, or a circuit that measures or resets.
    """
    check_width(circuit)
    line = transpiled(_line(circuit.num_qubits), _acting(circuit))
    foreign = sorted(set(line.count_ops()) - {*_BASIS, "barrier"})
    if foreign:
        raise CircuitError(f"Matrix product states take unitary gates only, got {foreign}.")
    return line


def _acting(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without delays and initial resets, which do nothing."""
    circuit = from_zero(device_circuit(circuit))
    target = circuit.copy_empty_like()
    for item in circuit.data:
        if standard_name(item.operation) not in ("id", "delay"):
            target.append(item)
    return target


def bond_bound(line: QuantumCircuit) -> int:
    r"""Return a bound on the widest bond that a circuit of neighbouring gates can make.

    .. math:: d_b \leftarrow \min(r\, d_b, 2 d_{b-1}, 2 d_{b+1})

    for a gate of operator Schmidt rank r across bond b: a sum of r products, between two qubits of dimension 2.
    """
    bonds = [1] * (line.num_qubits + 1)  # bond b is left of qubit b; the outer two stay 1
    widest = 1
    for item in line.data:
        if len(item.qubits) == 2 and item.name != "barrier":
            at = max(line.find_bit(qubit).index for qubit in item.qubits)
            rank = 2 if item.name in _RANK_TWO else 4
            bonds[at] = min(rank * bonds[at], 2 * bonds[at - 1], 2 * bonds[at + 1])
            widest = max(widest, bonds[at])
    return widest


@lru_cache(maxsize=MAX_QUBITS)
def _line(num_qubits: int) -> Any:
    return preset_pass_manager(1, basis_gates=_BASIS, coupling_map=CouplingMap.from_line(num_qubits), seed_transpiler=0)
