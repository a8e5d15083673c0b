"""Noise models as files: JSON, which runs no code when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Instruction, Reset
from qiskit.circuit.library import PauliGate, UnitaryGate, get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError

from qiskit_qattn.errors import ConfigError, missing_dependency

SUFFIX = ".json"


def save_noise(model: Any, path: str | Path) -> None:
    """Write an Aer ``NoiseModel`` to a file that ``noise=<file>.json`` of a backend string names.

    The file holds what ``NoiseModel.to_dict(serializable=True)`` gives, and the model's basis gates, to which circuits
    will be decomposed. A noise model knows no coupling map: circuits keep their qubits, and what has no error of its
    own is perfect.

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

    Args:
        path: The file.
        readout: Whether to keep its readout errors.

    Raises:
        ConfigError: For a file that cannot be read, or holds no noise model.
        MissingDependencyError: Without Aer.
    """
    try:
        from qiskit_aer import noise
    except ImportError as error:
        raise missing_dependency("qiskit-aer", "aer") from error
    try:
        saved = json.loads(Path(path).read_text("utf-8"))
        model = noise.NoiseModel(basis_gates=saved.get("basis_gates"))
        for entry in saved["errors"]:
            if entry["type"] == "qerror":
                _add_gate_error(model, entry)
            elif entry["type"] != "roerror":
                raise ValueError(f"unknown type {entry['type']!r} of an error")
            elif readout:
                _add_readout_error(model, entry)
    except OSError as error:
        raise ConfigError(f"The noise model {str(path)!r} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, QiskitError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{str(path)!r} holds no noise model ({reason}); expected a file that save_noise wrote."
        ) from error
    return model


def _add_gate_error(model: Any, entry: dict[str, Any]) -> None:
    from qiskit_aer.noise import QuantumError

    circuits = [_circuit(instructions) for instructions in entry["instructions"]]
    error = QuantumError(list(zip(circuits, entry["probabilities"], strict=True)))
    if "gate_qubits" not in entry:
        model.add_all_qubit_quantum_error(error, entry["operations"], warnings=False)
    for qubits in entry.get("gate_qubits", ()):
        model.add_quantum_error(error, entry["operations"], qubits, warnings=False)


def _add_readout_error(model: Any, entry: dict[str, Any]) -> None:
    if "gate_qubits" not in entry:
        model.add_all_qubit_readout_error(entry["probabilities"], warnings=False)
    for qubits in entry.get("gate_qubits", ()):
        model.add_readout_error(entry["probabilities"], qubits, warnings=False)


def _circuit(instructions: list[dict[str, Any]]) -> QuantumCircuit:
    """Return what an error does, once it happens."""
    circuit = QuantumCircuit(1 + max(qubit for item in instructions for qubit in item["qubits"]))
    for item in instructions:
        circuit.append(_instruction(item["name"], len(item["qubits"]), item.get("params", [])), item["qubits"])
    return circuit


def _instruction(name: str, num_qubits: int, params: list[Any]) -> Instruction:
    if name == "reset":
        return Reset()
    if name == "kraus":
        return Instruction("kraus", num_qubits, 0, [_matrix(matrix) for matrix in params])
    if name == "unitary":
        return UnitaryGate(_matrix(params[0]))
    if name == "pauli":
        return PauliGate(params[0])
    gate = get_standard_gate_name_mapping().get(name)
    if gate is None:
        raise ValueError(f"unknown gate {name!r}")
    return type(gate)(*params)


def _matrix(rows: Any) -> np.ndarray:
    """Return a matrix whose entries are pairs of a real and an imaginary part."""
    pairs = np.array(rows, dtype=float)
    return pairs[..., 0] + 1j * pairs[..., 1]
