"""The classical twin of an amplitude-encoded circuit: the quadratic forms that it computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.amplitude import unit_vectors
from qiskit_qattn.simulation.constants import ConstantModule

CLASSICAL = "classical (quadratic form)"
MAX_QUBITS = 8  # 32,896 coefficients per observable


class QuadraticForm(ConstantModule):
    r"""Expectations of an amplitude-encoded circuit without running it on the data.

    .. math:: y_m = \hat x^\top A_m \hat x, \quad A_m = \operatorname{Re} U^\dagger(\theta) P_m U(\theta)

    The exact engine gives :math:`f(\hat x) = y` at basis vectors and at sums of two, and by polarisation
    :math:`A_{ii} = f(e_i)`, :math:`A_{ij} = f\big((e_i + e_j) / \sqrt 2\big) - (A_{ii} + A_{jj}) / 2`. The data enter
    only the form. Differentiable in both.

    Args:
        circuit: An amplitude-encoded circuit of at most 8 qubits.

    Raises:
        ConfigError: For another.
    """

    def __init__(self, circuit: AttentionCircuit) -> None:
        super().__init__()
        kind, size = circuit.encoding.kind, circuit.num_qubits
        if kind != "amplitude" or size > MAX_QUBITS:
            raise ConfigError(
                f"The chain ends with classical, but the {circuit.name} head, {kind}-encoded on {size} qubits, has no "
                f"classical twin: it needs amplitude encoding and at most {MAX_QUBITS} qubits. End the chain with "
                f"statevector, the exact engine, instead."
            )
        program = get_backend("statevector?method=dense").program
        assert program is not None
        self.program = program(circuit)
        self.add_constant("pairs", np.stack(np.triu_indices(2**size, 1)))
        self.dimension = 2**size

    pairs: Tensor

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Vectors, shape ``(..., B, 2**n)``.
            weights: Circuit angles in radians, shape ``(..., P)``.
        """
        self.leave_meta(weights)
        i, j = self.pairs
        basis = torch.eye(self.dimension, dtype=inputs.dtype, device=inputs.device)
        points = torch.cat([basis, basis[i] + basis[j]])  # the engine normalises them
        values = self.program(points, weights)  # (..., D (D + 1) / 2, M)
        diagonal, sums = values[..., : self.dimension, :], values[..., self.dimension :, :]
        above = 2 * sums - diagonal[..., i, :] - diagonal[..., j, :]  # A_ij + A_ji
        x = unit_vectors(inputs)
        products = torch.cat([x * x, x[..., i] * x[..., j]], -1)  # (..., B, D (D + 1) / 2)
        return products.to(values) @ torch.cat([diagonal, above], -2)
