"""Value maps of the classical controls: the rivals a quantum head must beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qiskit_qattn.simulation.amplitude import check_finite, unit_vectors


class LinearValues(nn.Module):
    r"""The classical value map: :math:`v = W x`, whose product the attention's input projection already did."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the features themselves."""
        return features


class QuadraticValues(nn.Module):
    r"""Quadratic forms of the unit vector, what an amplitude-encoded circuit computes, without the circuit.

    .. math:: v_m = \hat x^\top A_m \hat x, \qquad A_m = \sum_{r=1}^{R} c_{mr}\, u_{mr} u_{mr}^\top

    Args:
        num_heads: H.
        size: D, the length of the vectors.
        num_outputs: M.
        rank: R, the rank of each symmetric matrix :math:`A_m`.

    Raises:
        EncodingError: (when called) for vectors that hold NaN or infinity.
    """

    def __init__(self, num_heads: int, size: int, num_outputs: int, *, rank: int = 2) -> None:
        super().__init__()
        self.rank = rank
        self.factor = nn.Parameter(torch.randn(num_heads, size, num_outputs * rank))
        signs = torch.ones(num_outputs, rank)
        signs[:, 1::2] = -1  # start traceless, like Pauli strings
        self.coefficient = nn.Parameter((signs / math.sqrt(2 * rank)).repeat(num_heads, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return values ``(H, N, M)`` of vectors ``(H, N, D)``."""
        projected = unit_vectors(features) @ self.factor  # (H, N, M * R)
        squares = (projected * projected).unflatten(-1, (-1, self.rank))  # (H, N, M, R)
        return (squares * self.coefficient[:, None]).sum(-1)


class FourierValues(nn.Module):
    r"""Random Fourier features with a learned readout, the dequantisation control.

    .. math:: v = W \sqrt{2 / F}\, \cos(\Omega x + b)

    with Ω and b drawn once and kept: entries of Ω from :math:`N(0, 1/d)`, of b uniformly from [0, 2π].

    Args:
        num_heads: H.
        width: d, the length of the tokens.
        num_outputs: M.
        num_features: F; None takes d, which gives the readout as many parameters as a linear value map.

    Source: Rahimi and Recht, NIPS 2007, algorithm 1.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, num_heads: int, width: int, num_outputs: int, *, num_features: int | None = None) -> None:
        super().__init__()
        count = width if num_features is None else num_features
        self.register_buffer("frequency", torch.randn(num_heads, width, count) / math.sqrt(width))
        self.register_buffer("phase", 2 * math.pi * torch.rand(num_heads, 1, count))
        self.readout = nn.Parameter(torch.randn(num_heads, count, num_outputs) * 0.02 * math.sqrt(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return values ``(H, N, M)`` of tokens ``(N, d)``."""
        check_finite(tokens)
        features = torch.cos(tokens @ self.frequency + self.phase)  # (H, N, F)
        return features @ self.readout * math.sqrt(2 / features.shape[-1])
