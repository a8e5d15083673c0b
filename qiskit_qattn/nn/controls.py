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


class UnitLinear(nn.Module):
    r"""Free linear maps of the unit vector: what circuits that keep the number of 1s compute, without the constraint.

    .. math:: q = A_q \hat x, \quad k = A_k \hat x, \quad v = A_v \hat x \qquad \text{or} \qquad v = A \hat x

    Args:
        heads: The leading axes: H, or 3 and H for q, k and v.
        size: F, the length of the vectors.
        num_outputs: h.
        spread: Standard deviation of the initial values.

    Raises:
        EncodingError: (when called) for vectors that hold NaN or infinity.
    """

    def __init__(self, heads: tuple[int, ...], size: int, num_outputs: int, *, spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*heads, size, num_outputs) * spread)  # the transposes of A

    def forward(self, features: Tensor) -> Tensor:
        """Return values, shape ``(*heads, N, h)``, of vectors ``(H, N, F)``, or ``(*heads, N, F)``."""
        return unit_vectors(features) @ self.weight


class TensorTrainValues(nn.Module):
    r"""Fourier series of n angles whose coefficients are a tensor train (matrix product) of bond dimension D.

    .. math:: v_m = a(u_1)^\top A^{(2)}(u_2) \cdots A^{(n)}(u_n)\, r_m, \qquad
              A^{(i)}(u) = A^{(i)}_0 + \cos(u) A^{(i)}_1 + \sin(u) A^{(i)}_2

    with :math:`A^{(i)}_s` of D × D, and :math:`a(u)` alike of D numbers. A circuit that encodes each angle in one
    rotation computes such a series of :math:`3^n` coefficients (arXiv 2008.08605); where its observables, taken back
    through the ansatz, have little operator entanglement, a small D gives the same.

    Args:
        num_heads: H.
        num_angles: n.
        num_outputs: M.
        bond: D.
        spread: Standard deviation of the initial values.

    Source: Oseledets, SIAM J. Sci. Comput. 33, 2295 (2011), doi 10.1137/090752286, equation (1.3).
    """

    def __init__(self, num_heads: int, num_angles: int, num_outputs: int, *, bond: int = 4, spread: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(num_heads, 3, bond) / math.sqrt(2))
        cores = torch.randn(num_heads, num_angles - 1, 3, bond, bond) / math.sqrt(2 * bond)
        cores[:, :, 0] = torch.eye(bond) / math.sqrt(2)  # with this, products of any length keep their spread
        self.cores = nn.Parameter(cores)
        self.readout = nn.Parameter(torch.randn(num_heads, bond, num_outputs) * spread / math.sqrt(bond))

    def forward(self, angles: Tensor) -> Tensor:
        """Return values ``(H, N, M)`` of angles in radians ``(H, N, n)``."""
        check_finite(angles)
        terms = torch.stack([torch.ones_like(angles), angles.cos(), angles.sin()], -1)  # (H, N, n, 3)
        state = terms[:, :, 0] @ self.first  # (H, N, D)
        for i, core in enumerate(self.cores.unbind(1), 1):
            products = terms[:, :, i, :, None] * state.unsqueeze(-2)  # (H, N, 3, D)
            state = products.flatten(-2) @ core.flatten(1, 2)
        return state @ self.readout
