"""Aer noise models as files, in which nothing is taken for noise that is none."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Instruction, Reset
from qiskit.circuit.library import PauliGate, UnitaryGate, get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError

from qiskit_qattn.errors import ConfigError, counted, missing_dependency
from qiskit_qattn.untrusted import as_type, one_line, read_json, shown

SUFFIX = ".json"  # of a file with a noise model
TOLERANCE = 1e-6  # of sums that must be 1
_MOST_BYTES = 2**26  # of a file; those of the largest devices have 6 MB
_MOST_QUBITS = 5  # of one error
_MOST_TERMS = 4**_MOST_QUBITS  # of an error, and Kraus operators of a channel
_MOST_LABEL = 10**6  # of a qubit
_STANDARD = get_standard_gate_name_mapping()


class _GateError(TypedDict):
    operations: list[str]
    probabilities: list[float]
    instructions: list[list[dict[str, Any]]]


class _ReadoutError(TypedDict):
    probabilities: list[list[float]]


def save_noise(model: Any, path: str | Path) -> None:
    """Write an Aer ``NoiseModel`` to a file that ``noise=<file>.json`` of a backend string names.

    The file contains ``NoiseModel.to_dict(serializable=True)`` and the model's basis gates, to which circuits will be
    decomposed. A noise model has no coupling map: circuits are not routed, and gates without an error are perfect.

    Args:
        model: The noise model.
        path: A file whose name ends in ``.json``.

    Raises:
        ConfigError: For another ending, or a file that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ConfigError(f"A noise model is saved as <file>{SUFFIX}, got {str(path)!r}.")
    text = json.dumps({"basis_gates": model.basis_gates, **model.to_dict(serializable=True)})
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"The noise model cannot be written to {str(path)!r}: {error.strerror}.") from error


def load_noise(path: str | Path, *, readout: bool = True) -> Any:
    """Return the Aer ``NoiseModel`` of a file that :func:`save_noise` wrote.

    Every error must be a channel: Kraus operators with Σ K†K = 1, unitary matrices, and probabilities from 0 to 1 with
    sum 1, each to 10⁻⁶, on as many qubits as its gate has. Rows of readout errors are probabilities in the same way.

    Args:
        path: The file.
        readout: Whether to keep its readout errors.

    Raises:
        ConfigError: For a file that cannot be read, or contains no noise model; the message names the entry.
        MissingDependencyError: Without Aer.
    """
    noise = aer_noise()
    where = ""
    try:
        saved = read_json(path, dict[str, Any], most=_MOST_BYTES)
        gates = as_type(saved.get("basis_gates"), list[str] | None, "basis_gates")
        model = noise.NoiseModel(basis_gates=gates)
        for index, entry in enumerate(as_type(saved["errors"], list[dict[str, Any]], "errors")):
            where = f"errors[{index}]: "
            if entry["type"] == "qerror":
                _add_gate_error(model, entry)
            elif entry["type"] != "roerror":
                raise ValueError(f"unknown type {shown(entry['type'])} of an error")
            else:
                _add_readout_error(model, entry, readout)
    except OSError as error:
        raise ConfigError(f"The noise model {str(path)!r} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, QiskitError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(str(error))[:300]
        raise ConfigError(
            f"{str(path)!r} is not a noise model ({where}{reason}); expected a file that save_noise wrote."
        ) from error
    return model


def aer_noise() -> Any:
    """Return Aer's module of noise.

    Raises:
        MissingDependencyError: Without Aer.
    """
    try:
        from qiskit_aer import noise
    except ImportError as error:
        raise missing_dependency("qiskit-aer", "aer") from error
    return noise


def _add_gate_error(model: Any, entry: dict[str, Any]) -> None:
    found: _GateError = as_type(entry, _GateError)
    probabilities, operations = np.array(found["probabilities"], dtype=float), found["operations"]
    if not (len(probabilities) == len(found["instructions"]) and 0 < len(probabilities) <= _MOST_TERMS):
        raise ValueError(
            f"{len(probabilities)} probabilities of {len(found['instructions'])} lists of instructions; expected as "
            f"many, 1 to {_MOST_TERMS}"
        )
    _check_distribution(probabilities, "probabilities")
    circuits = [_circuit(items, f"instructions[{i}]") for i, items in enumerate(found["instructions"])]
    size = circuits[0].num_qubits
    for index, circuit in enumerate(circuits):
        if circuit.num_qubits != size:
            raise ValueError(
                f"instructions[{index}] has {counted(circuit.num_qubits, 'qubit')}, and those before have {size}"
            )
    for name in operations:
        gate = _STANDARD.get(name)
        if gate is not None and gate.num_qubits != size:
            raise ValueError(f"an error on {counted(size, 'qubit')} of the gate {name!r}, which has {gate.num_qubits}")
    error = aer_noise().QuantumError(list(zip(circuits, probabilities.tolist(), strict=True)))
    where = _gate_qubits(entry, size)
    if where is None:
        model.add_all_qubit_quantum_error(error, operations, warnings=False)
    for qubits in where or ():
        model.add_quantum_error(error, operations, qubits, warnings=False)


def _add_readout_error(model: Any, entry: dict[str, Any], readout: bool) -> None:
    rows = as_type(entry, _ReadoutError)["probabilities"]
    size = len(rows).bit_length() - 1
    if not (1 <= size <= _MOST_QUBITS and all(len(row) == len(rows) == 2**size for row in rows)):
        raise ValueError(
            f"probabilities are {len(rows)} rows of {sorted({len(row) for row in rows})}; expected 2ⁿ rows of 2ⁿ, n "
            f"from 1 to {_MOST_QUBITS}"
        )
    for index, row in enumerate(rows):
        _check_distribution(np.array(row), f"probabilities[{index}]")
    where = _gate_qubits(entry, size)
    if where is None and size != 1:
        raise ValueError(f"a readout error of all qubits is on 1 qubit, not on {size}")
    if not readout:
        return
    if where is None:
        model.add_all_qubit_readout_error(rows, warnings=False)
    for qubits in where or ():
        model.add_readout_error(rows, qubits, warnings=False)


def _gate_qubits(entry: dict[str, Any], size: int) -> list[list[int]] | None:
    """Return the lists of qubits on which an error of some size acts, or None for all."""
    if "gate_qubits" not in entry:
        return None
    found: list[list[int]] = as_type(entry["gate_qubits"], list[list[int]], "gate_qubits")
    for index, qubits in enumerate(found):
        _check_qubits(qubits, f"gate_qubits[{index}]", _MOST_LABEL)
        if len(qubits) != size:
            raise ValueError(f"gate_qubits[{index}] has {counted(len(qubits), 'qubit')}, but the error is on {size}")
    return found


def _check_qubits(qubits: Sequence[int], where: str, most: int) -> None:
    if not qubits or len(set(qubits)) < len(qubits) or not all(0 <= qubit < most for qubit in qubits):
        raise ValueError(f"{where} is {shown(qubits)}; expected different numbers from 0 to {most - 1}")


def _check_distribution(values: np.ndarray, where: str) -> None:
    low, high, total = values.min(), values.max(), values.sum()
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE and abs(total - 1) <= TOLERANCE):
        raise ValueError(f"{where} are from {low:.7g} to {high:.7g} with sum {total:.7g}; expected 0 to 1 with sum 1")


def _circuit(items: list[dict[str, Any]], where: str) -> QuantumCircuit:
    """Return the circuit that an error applies."""
    if not items:
        raise ValueError(f"{where} is empty; the identity is an instruction too, id")
    placed = []
    for index, item in enumerate(items):
        this = f"{where}[{index}]"
        qubits: list[int] = as_type(item["qubits"], list[int], f"{this}.qubits")
        _check_qubits(qubits, f"{this}.qubits", _MOST_QUBITS)
        params = as_type(item.get("params", []), list[Any], f"{this}.params")
        try:
            placed.append((_instruction(as_type(item["name"], str, "name"), len(qubits), params), qubits))
        except (ValueError, TypeError, QiskitError) as error:
            raise ValueError(f"{this}: {error}") from error
    circuit = QuantumCircuit(1 + max(qubit for _, qubits in placed for qubit in qubits))
    for instruction, qubits in placed:
        circuit.append(instruction, qubits)
    return circuit


def _instruction(name: str, num_qubits: int, params: list[Any]) -> Instruction:
    """Return an instruction on a number of qubits that keeps probabilities: Σ K†K = 1."""
    if name in ("kraus", "unitary"):
        if not 1 <= len(params) <= (1 if name == "unitary" else 4**num_qubits):
            raise ValueError(f"{name} has {len(params)} matrices")
        matrices = np.array([_matrix(matrix, 2**num_qubits, f"{name}[{i}]") for i, matrix in enumerate(params)])
        deviation = np.abs(np.einsum("kji,kjl->il", matrices.conj(), matrices) - np.eye(2**num_qubits)).max()
        if not deviation <= TOLERANCE:
            kind = "unitary" if name == "unitary" else "trace preserving"
            raise ValueError(f"{name} is not {kind}: an entry of Σ K†K − 1 is {deviation:.3g}")
        return UnitaryGate(matrices[0]) if name == "unitary" else Instruction("kraus", num_qubits, 0, list(matrices))
    if name == "pauli":
        [label] = as_type(params, list[str], "params")
        if len(label) != num_qubits or set(label) - set("IXYZ"):
            raise ValueError(f"pauli is {shown(label)} on {counted(num_qubits, 'qubit')}")
        return PauliGate(label)
    gate = Reset() if name == "reset" else _STANDARD.get(name)
    if not isinstance(gate, Gate | Reset):
        raise ValueError(f"unknown gate {shown(name)}")
    angles = as_type(params, list[float], "params")
    if gate.num_qubits != num_qubits or len(gate.params) != len(angles) or not all(map(math.isfinite, angles)):
        raise ValueError(
            f"{name} on {counted(num_qubits, 'qubit')} with parameters {shown(params)}; it has "
            f"{counted(gate.num_qubits, 'qubit')} and "
            f"{counted(len(gate.params), 'parameter')}"
        )
    return type(gate)(*angles)


def _matrix(rows: Any, size: int, where: str) -> np.ndarray:
    """Return a square matrix whose entries are pairs of a real and an imaginary part."""
    pairs = np.array(as_type(rows, list[list[list[float]]], where), dtype=float)
    if pairs.shape != (size, size, 2):
        raise ValueError(f"{where} has the shape {pairs.shape}; expected {size} rows of {size} pairs of numbers")
    return pairs[..., 0] + 1j * pairs[..., 1]
