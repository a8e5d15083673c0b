"""Backends that run in this process on the engines of :mod:`qiskit_qattn.simulation`."""

from __future__ import annotations

import math

from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation.estimator import TorchEstimator

STATEVECTOR_OPTIONS = {
    "shots": "samples a measurement basis; exact values without it",
    "seed": "seed of the sampling",
}


def statevector(spec: BackendSpec) -> Backend:
    """Return the exact engine; with ``shots``, sampled in the circuits' measurement bases.

    Raises:
        ConfigError: For a target, or a value that is no positive integer.
        UnknownNameError: For an unknown option.
    """
    spec.check_options(STATEVECTOR_OPTIONS)
    if spec.target is not None:
        raise ConfigError(f"Backend 'statevector' takes no target, got {spec.target!r}.")
    shots, seed = spec.integer("shots", minimum=1), spec.integer("seed", minimum=0)
    precision = 0.0 if shots is None else 1 / math.sqrt(shots)
    estimator = TorchEstimator(default_precision=precision, seed=seed)
    return Backend(str(spec), estimator, precision=precision, shots=shots, differentiable=shots is None)
