"""What the tests of the adapter share: the small PUB at one precision, and its exact values."""

from __future__ import annotations

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.ibm.runtime import EstimatorSettings
from qiskit_qattn.backends.registry import precision_of

from .ibm_client import Pub

SHOTS = 1000
PRECISION = precision_of(SHOTS)
RAW = EstimatorSettings(resilience=0)


def at_precision(pub: Pub) -> list[EstimatorPub]:
    return [EstimatorPub.coerce(pub, PRECISION)]


def exact(pub: EstimatorPub) -> np.ndarray:
    """Return ZZ, XX and ZI of RY and CX."""
    angles = pub.parameter_values.as_array()[..., 0]
    return np.array([np.ones_like(angles), np.sin(angles), np.cos(angles)])
