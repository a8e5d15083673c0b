"""Backends that run in this process on the engines of :mod:`qiskit_qattn.simulation`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS, Gradient, gradient_option
from qiskit_qattn.backends.mps import MAX_BOND, MPSEstimator, mps_program
from qiskit_qattn.backends.registry import Backend, precision_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.program import MAX_QUBITS
from qiskit_qattn.simulation.statevector import StatevectorProgram

if TYPE_CHECKING:
    from torch import nn

    from qiskit_qattn.library.attention_circuit import AttentionCircuit

SAMPLING_OPTIONS = {
    "shots": "samples a measurement basis; exact values without it",
    "seed": "seed of the sampling",
    **GRADIENT_OPTIONS,
}
METHODS = ("auto", "dense", "mps")
STATEVECTOR_OPTIONS = SAMPLING_OPTIONS | {
    "method": "dense: all amplitudes, up to 16 qubits; mps: matrix product states, up to 30; auto takes what fits",
    "max_bond": "mps: largest bond dimension (default 64)",
}


def statevector(spec: BackendSpec) -> Backend:
    """Return the exact engine; with ``shots``, sampled in the circuits' measurement bases.

    Exact values of circuits of 17 to 30 qubits come from matrix product states, as ``method=mps`` asks for all.

    Raises:
        ConfigError: For a target, a value that is no positive integer, or ``max_bond`` without ``method=mps``.
        UnknownNameError: For an unknown option or method.
        MissingDependencyError: For ``method=mps`` without Aer.
    """
    spec.check_options(STATEVECTOR_OPTIONS)
    _no_target(spec)
    method = spec.options.get("method", "auto")
    if method not in METHODS:
        raise unknown_name(f"method of backend {spec.name!r}", method, METHODS)
    max_bond = spec.integer("max_bond", minimum=1)
    if max_bond is not None and method != "mps":
        raise ConfigError(f"Backend option max_bond={max_bond} needs method=mps, got method={method}.")
    shots, precision, seed = _sampling(spec)
    if method == "mps":
        bond = MAX_BOND if max_bond is None else max_bond
        mps = MPSEstimator(max_bond=bond, default_precision=precision, seed=seed)
        gradient = gradient_option(spec, seed)  # values come as PUBs, exact ones too
        return Backend(str(spec), mps, precision=precision, shots=shots, gradient=gradient)
    program = _exact_program if method == "dense" else _exact_or_mps
    return Backend(
        str(spec),
        TorchEstimator(default_precision=precision, seed=seed),
        precision=precision,
        shots=shots,
        differentiable=shots is None,
        gradient=_gradient(spec, shots, seed),
        program=program if shots is None else None,
    )


def density_matrix(spec: BackendSpec) -> Backend:
    """Return the noisy engine, with the noise of an Aer ``NoiseModel``.

    Raises:
        ConfigError: For a target, or a value out of its range.
        UnknownNameError: For an unknown option or noise.
        MissingDependencyError: Where the noise needs Aer or IBM's fake devices and they are not installed.
    """
    from qiskit_qattn.backends.noise import NOISE_OPTIONS, build_noise

    spec.check_options(SAMPLING_OPTIONS | NOISE_OPTIONS)
    _no_target(spec)
    shots, precision, seed = _sampling(spec)
    engine = build_noise(spec) if "noise" in spec.options else NoisyEngine()

    def program(circuit: AttentionCircuit) -> nn.Module:
        return engine(
            circuit.circuit,
            circuit.observables,
            input_params=circuit.input_params,
            weight_params=circuit.weight_params,
        )

    return Backend(
        str(spec),
        TorchEstimator(engine, default_precision=precision, seed=seed),
        precision=precision,
        shots=shots,
        differentiable=shots is None,
        gradient=_gradient(spec, shots, seed),
        program=program if shots is None else None,
    )


def _exact_or_mps(circuit: AttentionCircuit) -> nn.Module:
    """Return the exact program, or beyond its number of qubits one of matrix product states."""
    if circuit.num_qubits <= MAX_QUBITS:
        return _exact_program(circuit)
    return mps_program(
        circuit.circuit, circuit.observables, input_params=circuit.input_params, weight_params=circuit.weight_params
    )


def _exact_program(circuit: AttentionCircuit) -> nn.Module:
    """Return the exact program; amplitude-encoded circuits take the vector itself."""
    if circuit.encoding.kind == "amplitude":
        return StatevectorProgram(
            circuit.ansatz, circuit.observables, weight_params=circuit.weight_params, input_kind="amplitude"
        )
    return StatevectorProgram(
        circuit.circuit, circuit.observables, input_params=circuit.input_params, weight_params=circuit.weight_params
    )


def _no_target(spec: BackendSpec) -> None:
    if spec.target is not None:
        raise ConfigError(f"Backend {spec.name!r} takes no target, got {spec.target!r}.")


def _sampling(spec: BackendSpec) -> tuple[int | None, float, int | None]:
    """Return shots, the precision they give, and the seed."""
    shots, seed = spec.integer("shots", minimum=1), spec.integer("seed", minimum=0)
    return shots, 0.0 if shots is None else precision_of(shots), seed


def _gradient(spec: BackendSpec, shots: int | None, seed: int | None) -> Gradient:
    """Return the gradient rule of sampled values."""
    for key in GRADIENT_OPTIONS:
        if shots is None and key in spec.options:
            raise ConfigError(
                f"Backend {spec.name!r} without shots returns exact values, whose gradients are exact too: leave "
                f"{key} out, or give shots."
            )
    return gradient_option(spec, seed)
