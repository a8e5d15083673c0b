"""Noise by name: the ``noise=…`` options of backend strings, as Aer noise models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qiskit.transpiler import generate_preset_pass_manager

from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, missing_dependency, unknown_name
from qiskit_qattn.simulation.density_matrix import NoisyEngine

NOISE_OPTIONS = {
    "noise": "depolarizing, amplitude_damping, phase_damping, thermal, or fake_<device>",
    "p1": "depolarizing: probability after a one-qubit gate",
    "p2": "depolarizing: probability after a two-qubit gate",
    "gamma": "amplitude_damping, phase_damping: probability after each gate, on each of its qubits",
    "t1": "thermal: relaxation time in µs",
    "t2": "thermal: dephasing time in µs, at most twice t1",
    "time1": "thermal: duration of a one-qubit gate in ns (default 50)",
    "time2": "thermal: duration of a two-qubit gate in ns (default 300)",
    "readout": "probability that a measured bit flips; off leaves a device's readout error out",
}
ONE_QUBIT_GATES = ["rx", "ry", "rz", "h", "x", "sx", "p"]
TWO_QUBIT_GATES = ["cx"]


def build_noise(spec: BackendSpec) -> NoisyEngine:
    """Return the noisy engine a backend string asks for.

    Raises:
        UnknownNameError: For a noise that is not known.
        ConfigError: For a parameter that is missing, malformed or out of its range.
        MissingDependencyError: Without Aer, or without IBM's fake devices where one is named.
    """
    name = spec.options["noise"]
    _aer_noise()
    if name.startswith("fake_"):
        return _fake_device(spec, name)
    if name not in _KINDS:
        raise unknown_name("noise", name, [*_KINDS, "fake_manila", "fake_torino"])
    model = _aer_noise().NoiseModel(basis_gates=ONE_QUBIT_GATES + TWO_QUBIT_GATES)
    one, two = _KINDS[name](spec)
    if one is not None:
        model.add_all_qubit_quantum_error(one, ONE_QUBIT_GATES)
    if two is not None:
        model.add_all_qubit_quantum_error(two, TWO_QUBIT_GATES)
    if spec.options.get("readout", "off") != "off":
        p = number(spec, "readout", 0.0, 1.0)
        model.add_all_qubit_readout_error([[1 - p, p], [p, 1 - p]])
    return NoisyEngine(model, _pass_manager())


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


def _pass_manager() -> Any:
    """Decompose to the gates that carry noise, and change nothing else."""
    return generate_preset_pass_manager(0, basis_gates=ONE_QUBIT_GATES + TWO_QUBIT_GATES)


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


_KINDS: dict[str, Callable[[BackendSpec], tuple[Any, Any]]] = {
    "depolarizing": _depolarizing,
    "amplitude_damping": _amplitude_damping,
    "phase_damping": _phase_damping,
    "thermal": _thermal,
}


def _fake_device(spec: BackendSpec, name: str) -> NoisyEngine:
    """Return the engine for a snapshot of one of IBM's devices, transpiled to its gates and layout."""
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise missing_dependency("qiskit-ibm-runtime", "ibm") from error
    found = [(getattr(kind, "backend_name", None), kind) for kind in vars(fake_provider).values()]
    devices = {label: kind for label, kind in found if isinstance(kind, type) and label}
    if name not in devices:
        raise unknown_name("fake device", name, devices)
    device = devices[name]()
    model = _aer_noise().NoiseModel.from_backend(device)
    pass_manager = generate_preset_pass_manager(1, backend=device, seed_transpiler=0)
    return NoisyEngine(model, pass_manager, _readout_on(spec))


def _readout_on(spec: BackendSpec) -> bool:
    """Tell whether a model's own readout error is kept; only ``readout=off`` may be given."""
    value = spec.options.get("readout")
    if value not in (None, "off"):
        raise ConfigError(f"readout={value}: a device brings its own; only readout=off can be given.")
    return value is None
