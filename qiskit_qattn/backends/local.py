"""Backends that run in this process on the engines of :mod:`qiskit_qattn.simulation`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.statevector import StatevectorProgram

if TYPE_CHECKING:
    from torch import nn

    from qiskit_qattn.library.attention_circuit import AttentionCircuit

SAMPLING_OPTIONS = {
    "shots": "samples a measurement basis; exact values without it",
    "seed": "seed of the sampling",
}


def statevector(spec: BackendSpec) -> Backend:
    """Return the exact engine; with ``shots``, sampled in the circuits' measurement bases.

    Raises:
        ConfigError: For a target, or a value that is no positive integer.
        UnknownNameError: For an unknown option.
    """
    spec.check_options(SAMPLING_OPTIONS)
    _no_target(spec)
    shots, precision, seed = _sampling(spec)
    return Backend(
        str(spec),
        TorchEstimator(default_precision=precision, seed=seed),
        precision=precision,
        shots=shots,
        differentiable=shots is None,
        program=_exact_program if shots is None else None,
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
        program=program if shots is None else None,
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
    return shots, 0.0 if shots is None else 1 / math.sqrt(shots), seed
