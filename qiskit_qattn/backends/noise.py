"""Noise of the ``noise=…`` options of backend strings, as Aer noise models: by name, of a device, or from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Instruction, Reset
from qiskit.circuit.library import PauliGate, UnitaryGate, get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError

from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, missing_dependency, unknown_name
from qiskit_qattn.simulation.decomposition import preset_pass_manager
from qiskit_qattn.simulation.density_matrix import NoisyEngine

SUFFIX = ".json"  # of a file with a noise model
ONE_QUBIT_GATES = ["rx", "ry", "rz", "h", "x", "sx", "p"]
TWO_QUBIT_GATES = ["cx"]


@dataclass(frozen=True)
class Kind:
    """A noise by name.

    Attributes:
        options: The options that set its strength.
        errors: From a backend string to the errors after one- and two-qubit gates, or None.
    """

    options: tuple[str, ...]
    errors: Callable[[BackendSpec], tuple[Any, Any] | None]


def build_noise(spec: BackendSpec) -> NoisyEngine:
    """Return the noise a backend string asks for: a model, and a pass manager for its gates and layout.

    Without ``noise`` the engine has no model. Its readout error is left out where the string says ``readout=off``.

    Raises:
        UnknownNameError: For a noise that is not known.
        ConfigError: For a parameter that is missing, malformed, out of its range or of another noise.
        MissingDependencyError: Without Aer, or without IBM's fake devices where one is named.
    """
    name = spec.options.get("noise")
    if name is None:
        _check_used(spec, ())
        return NoisyEngine()
    if name.startswith("fake_"):
        _check_used(spec, ("readout",))
        return _fake_device(name, _readout_on(spec))
    if name.endswith(SUFFIX):
        _check_used(spec, ("readout",))
        model = load_noise(Path(name), readout=_readout_on(spec))
        return NoisyEngine(model, preset_pass_manager(0, basis_gates=model.basis_gates))
    if name not in _KINDS:
        raise unknown_name("noise", name, [*_KINDS, "fake_manila", "fake_torino", f"<file>{SUFFIX}"])
    _check_used(spec, (*_KINDS[name].options, "readout"))
    return _named(spec, _KINDS[name])


def number(spec: BackendSpec, key: str, least: float, most: float, default: float | None = None) -> float:
    """Return a numeric option.

    Raises:
        ConfigError: If it is missing and has no default, is no number, or lies outside ``[least, most]``.
    """
    text = spec.options.get(key)
    if text is None and default is not None:
        return default
    if text is None:
        raise ConfigError(f"noise={spec.options['noise']} needs {key}: {NOISE_OPTIONS[key]}.")
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"Backend option {key} must be a number, got {text!r}.") from None
    if not least <= value <= most:
        raise ConfigError(f"Backend option {key} must lie between {least:g} and {most:g}, got {text}.")
    return value


def _aer_noise() -> Any:
    try:
        from qiskit_aer import noise
    except ImportError as error:
        raise missing_dependency("qiskit-aer", "aer") from error
    return noise


def _depolarizing(spec: BackendSpec) -> tuple[Any, Any]:
    error = _aer_noise().depolarizing_error
    return error(number(spec, "p1", 0, 1), 1), error(number(spec, "p2", 0, 1), 2)


def _amplitude_damping(spec: BackendSpec) -> tuple[Any, Any]:
    error = _aer_noise().amplitude_damping_error(number(spec, "gamma", 0, 1))
    return error, error.tensor(error)


def _phase_damping(spec: BackendSpec) -> tuple[Any, Any]:
    error = _aer_noise().phase_damping_error(number(spec, "gamma", 0, 1))
    return error, error.tensor(error)


def _thermal(spec: BackendSpec) -> tuple[Any, Any]:
    t1 = number(spec, "t1", 1e-3, 1e9)
    t2 = number(spec, "t2", 1e-3, 2 * t1)
    durations = [number(spec, key, 0, 1e9, default) / 1000 for key, default in (("time1", 50.0), ("time2", 300.0))]
    one, each = (_aer_noise().thermal_relaxation_error(t1, t2, duration) for duration in durations)
    return one, each.tensor(each)


def _readout(spec: BackendSpec) -> None:
    number(spec, "readout", 0, 1)  # it is required


_KINDS = {
    "depolarizing": Kind(("p1", "p2"), _depolarizing),
    "amplitude_damping": Kind(("gamma",), _amplitude_damping),
    "phase_damping": Kind(("gamma",), _phase_damping),
    "thermal": Kind(("t1", "t2", "time1", "time2"), _thermal),
    "readout": Kind((), _readout),
}
NOISE_OPTIONS = {
    "noise": f"{', '.join(_KINDS)}, fake_<device>, or a file of save_noise, <file>{SUFFIX}",
    "p1": "depolarizing: probability after a one-qubit gate",
    "p2": "depolarizing: probability after a two-qubit gate",
    "gamma": "amplitude_damping, phase_damping: probability after each gate, on each of its qubits",
    "t1": "thermal: relaxation time in µs",
    "t2": "thermal: dephasing time in µs, at most twice t1",
    "time1": "thermal: duration of a one-qubit gate in ns (default 50)",
    "time2": "thermal: duration of a two-qubit gate in ns (default 300)",
    "readout": "probability that a measured bit flips; off leaves out the readout error of a device or file",
}


def _check_used(spec: BackendSpec, used: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for an option of another noise than the one that is asked for."""
    for key in spec.options:
        if key in NOISE_OPTIONS and key not in ("noise", *used):
            given = f"noise={spec.options['noise']}" if "noise" in spec.options else "no noise"
            kinds = [f"noise={name}" for name, kind in _KINDS.items() if key in kind.options]
            raise ConfigError(
                f"Backend option {key} has no effect with {given}; it is for {', '.join(kinds) or 'every noise'}."
            )


def _named(spec: BackendSpec, kind: Kind) -> NoisyEngine:
    """Return the engine of a noise by name; circuits are decomposed to the gates that carry it, and not otherwise."""
    gates = ONE_QUBIT_GATES + TWO_QUBIT_GATES
    model = _aer_noise().NoiseModel(basis_gates=gates)
    errors = kind.errors(spec)
    if errors is not None:
        model.add_all_qubit_quantum_error(errors[0], ONE_QUBIT_GATES)
        model.add_all_qubit_quantum_error(errors[1], TWO_QUBIT_GATES)
    if spec.options.get("readout", "off") != "off":
        p = number(spec, "readout", 0, 1)
        model.add_all_qubit_readout_error([[1 - p, p], [p, 1 - p]])
    return NoisyEngine(model, preset_pass_manager(0, basis_gates=gates))


def _fake_device(name: str, readout: bool) -> NoisyEngine:
    """Return the engine for a snapshot of one of IBM's devices, transpiled to its gates and layout."""
    device = fake_device(name)
    model = _aer_noise().NoiseModel.from_backend(device, readout_error=readout)
    return NoisyEngine(model, preset_pass_manager(1, backend=device, seed_transpiler=0))


def _readout_on(spec: BackendSpec) -> bool:
    """Tell whether a model's own readout error is kept; only ``readout=off`` may be given."""
    value = spec.options.get("readout")
    if value not in (None, "off"):
        raise ConfigError(f"readout={value}: noise={spec.options['noise']} has its own; only readout=off can be given.")
    return value is None


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

    Args:
        path: The file.
        readout: Whether to keep its readout errors.

    Raises:
        ConfigError: For a file that cannot be read, or contains no noise model.
        MissingDependencyError: Without Aer.
    """
    noise = _aer_noise()
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
            f"{str(path)!r} is not a noise model ({reason}); expected a file that save_noise wrote."
        ) from error
    return model


def _add_gate_error(model: Any, entry: dict[str, Any]) -> None:
    circuits = [_circuit(instructions) for instructions in entry["instructions"]]
    error = _aer_noise().QuantumError(list(zip(circuits, entry["probabilities"], strict=True)))
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
    """Return the circuit that an error applies."""
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


def fake_device(name: str) -> Any:
    """Return the snapshot that Qiskit Runtime ships under a name such as ``fake_manila``.

    Raises:
        UnknownNameError: For a name that it does not have.
        MissingDependencyError: Without qiskit-ibm-runtime.
    """
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise missing_dependency("qiskit-ibm-runtime", "ibm") from error
    found = [(getattr(kind, "backend_name", None), kind) for kind in vars(fake_provider).values()]
    devices = {label: kind for label, kind in found if isinstance(kind, type) and label}
    if name not in devices:
        raise unknown_name("fake device", name, devices)
    return devices[name]()
