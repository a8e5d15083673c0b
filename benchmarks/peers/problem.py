"""What each library computes: values, and gradients to inputs and weights, of one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from networks import NUM_LAYERS


@dataclass(frozen=True)
class Problem:
    """The user's circuit with its data, all float32.

    Attributes:
        num_qubits: n.
        inputs: Shape ``(B, n)``.
        weights: Shape ``(NUM_LAYERS * n,)``.
        slope: The gradient at the output, ``(B, n)``.
    """

    num_qubits: int
    inputs: np.ndarray
    weights: np.ndarray
    slope: np.ndarray

    @classmethod
    def random(cls, num_qubits: int, batch: int) -> Problem:
        rng = np.random.default_rng(0)
        shapes = ((batch, num_qubits), (NUM_LAYERS * num_qubits,), (batch, num_qubits))
        return cls(num_qubits, *(rng.normal(size=shape).astype(np.float32) for shape in shapes))


Pass = Callable[[], tuple[Any, Any, Any]]  # one pass: values, gradient to inputs, gradient to weights
