"""Noise of the ``noise=…`` options of backend strings, as Aer noise models: by name, of a device, or from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiskit_qattn.backends.noise_file import SUFFIX, aer_noise, load_noise
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import CircuitError, ConfigError, missing_dependency, unknown_name
from qiskit_qattn.simulation.decomposition import preset_pass_manager
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.noise import check_channel

ONE_QUBIT_GATES = ["rx", "ry", "rz", "h", "x", "sx", "p"]
TWO_QUBIT_GATES = ["cx"]


@dataclass(frozen=True)
class Kind:
    """A noise by name.

    Attributes:
        options: The options that set its strength.
        errors: Returns the errors after one- and two-qubit gates for a backend string, or None.
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


def _depolarizing(spec: BackendSpec) -> tuple[Any, Any]:
    error = aer_noise().depolarizing_error
    return error(number(spec, "p1", 0, 1), 1), error(number(spec, "p2", 0, 1), 2)


def _amplitude_damping(spec: BackendSpec) -> tuple[Any, Any]:
    error = aer_noise().amplitude_damping_error(number(spec, "gamma", 0, 1))
    return error, error.tensor(error)


def _phase_damping(spec: BackendSpec) -> tuple[Any, Any]:
    error = aer_noise().phase_damping_error(number(spec, "gamma", 0, 1))
    return error, error.tensor(error)


def _thermal(spec: BackendSpec) -> tuple[Any, Any]:
    t1 = number(spec, "t1", 1e-3, 1e9)
    t2 = number(spec, "t2", 1e-3, 2 * t1)
    durations = [number(spec, key, 0, 1e9, default) / 1000 for key, default in (("time1", 50.0), ("time2", 300.0))]
    one, each = (aer_noise().thermal_relaxation_error(t1, t2, duration) for duration in durations)
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
    model = aer_noise().NoiseModel(basis_gates=gates)
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
    model = aer_noise().NoiseModel.from_backend(device, readout_error=readout)
    return NoisyEngine(model, preset_pass_manager(1, backend=device, seed_transpiler=0))


def _readout_on(spec: BackendSpec) -> bool:
    """Tell whether a model's own readout error is kept; only ``readout=off`` may be given."""
    value = spec.options.get("readout")
    if value not in (None, "off"):
        raise ConfigError(f"readout={value}: noise={spec.options['noise']} has its own; only readout=off can be given.")
    return value is None


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


def noise_on(model: Any, qubits: Sequence[int]) -> Any:
    """Return the errors of an Aer ``NoiseModel`` on some qubits, as a model that counts them from 0.

    Aer reads all of a model at each run, which takes seconds for one of a hundred qubits.

    Raises:
        ConfigError: For an error that is no channel.
    """
    from qiskit_aer.noise import NoiseModel

    place = {qubit: i for i, qubit in enumerate(qubits)}
    part = NoiseModel(basis_gates=model.basis_gates)
    for name, error in model._default_quantum_errors.items():
        check_channel(error.to_quantumchannel(), name, qubits)
        part.add_all_qubit_quantum_error(error, name, warnings=False)
    for name, errors in model._local_quantum_errors.items():
        for where, error in errors.items():
            if place.keys() >= set(where):
                check_channel(error.to_quantumchannel(), name, where)
                part.add_quantum_error(error, name, [place[qubit] for qubit in where], warnings=False)
    if model._default_readout_error is not None:
        part.add_all_qubit_readout_error(model._default_readout_error, warnings=False)
    for where, error in model._local_readout_errors.items():
        if place.keys() >= set(where):
            part.add_readout_error(error, [place[qubit] for qubit in where], warnings=False)
    for each in model._custom_noise_passes:
        part._custom_noise_passes.append(_moved(each, qubits))
    return part


def _moved(noise_pass: Any, qubits: Sequence[int]) -> Any:
    """Return a noise pass for a circuit whose qubit i was ``qubits[i]`` before the circuit was cut.

    Raises:
        CircuitError: For a pass of another kind than Aer's ``LocalNoisePass``.
    """
    from qiskit_aer.noise import LocalNoisePass

    if not isinstance(noise_pass, LocalNoisePass):
        raise CircuitError(
            f"The noise model's pass {type(noise_pass).__name__} is not supported; known is LocalNoisePass."
        )

    def moved(operation: Any, where: Sequence[int]) -> Any:
        return noise_pass._func(operation, [qubits[qubit] for qubit in where])

    return LocalNoisePass(moved, noise_pass._ops, noise_pass._method)
