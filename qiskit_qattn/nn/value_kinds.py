"""Kinds with linear queries and keys whose values are circuits of few angles or qubits, each with its control."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qiskit_qattn.library.compound import matrix_qubits, matrix_sides
from qiskit_qattn.library.encodings import data_qubits
from qiskit_qattn.nn.controls import UnitLinear
from qiskit_qattn.nn.head_kind import HeadKind, HeadShape
from qiskit_qattn.simulation.amplitude import check_finite, unit_vectors


class BottleneckValues(nn.Module):
    r"""QASA's capacity-matched control: a map of rank R with a tanh in the place of its circuit.

    .. math:: v = W_o \tanh(V^\top U^\top x + b)

    with U of m × R, V of R × m, b of m and :math:`W_o` of h × m numbers: 40 for m = 8 and R = 2 without
    :math:`W_o`, where the circuit has 36 weights.

    Args:
        num_heads: H.
        size: m, the length of the vectors, bounded by tanh already.
        num_outputs: h.
        rank: R.
        spread: Standard deviation of the initial values.

    Raises:
        EncodingError: (when called) for vectors that hold NaN or infinity.

    Source: Chen, Kuo, arXiv 2504.05336v4, the classical bottleneck, with the rank of the authors' code.
    """

    def __init__(self, num_heads: int, size: int, num_outputs: int, *, rank: int = 2, spread: float) -> None:
        super().__init__()
        self.narrow = nn.Parameter(torch.randn(num_heads, size, rank) / math.sqrt(size))
        self.wide = nn.Parameter(torch.randn(num_heads, rank, size) / math.sqrt(rank))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, size))
        self.readout = nn.Parameter(torch.randn(num_heads, size, num_outputs) * spread / math.sqrt(size))

    def forward(self, features: Tensor) -> Tensor:
        """Return values ``(H, N, h)`` of vectors ``(H, N, m)``."""
        check_finite(features)
        return torch.tanh(features @ self.narrow @ self.wide + self.bias) @ self.readout


class BornValues(nn.Module):
    r"""Normalised squares of a linear map, the Born rule without a circuit, each with a learned gain.

    .. math:: v_k = g_k \frac{a_k^2 + b_k^2}{\sum_l (a_l^2 + b_l^2)}, \qquad (a, b) = W x

    with D numbers a, the real parts of amplitudes, and D numbers b, the imaginary ones. Outcome probabilities of a
    circuit are these with W restricted to a unitary times a real map of D rows.

    Args:
        num_heads: H.
        size: D.
        num_outputs: h, at most D: the first of them are read.
        spread: Standard deviation of the initial values.

    Raises:
        EncodingError: (when called) for vectors that hold NaN or infinity.
    """

    def __init__(self, num_heads: int, size: int, num_outputs: int, *, spread: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((num_heads, num_outputs), spread * size))

    def forward(self, features: Tensor) -> Tensor:
        """Return values ``(H, N, h)`` of vectors ``(H, N, 2 D)``."""
        squares = unit_vectors(features).square().unflatten(-1, (2, -1)).sum(-2)  # (H, N, D)
        return squares[..., : self.gain.shape[-1]] * self.gain.unsqueeze(-2)


def _pairs(shape: HeadShape) -> int:
    """Return how many pairs of a row and a column the qubits of ``compound`` have."""
    return math.prod(matrix_sides(matrix_qubits(shape.head_size)))


def _outcomes(shape: HeadShape) -> int:
    """Return how many outcomes the fewest qubits have that have one for each value."""
    return int(2 ** max(1, (shape.head_size - 1).bit_length()))


VALUE_KINDS = (
    HeadKind(
        "qasa",
        "qasa",
        measured=data_qubits,
        activation=torch.tanh,
        summary="linear q, k; v a linear map of ⟨Z⟩ of a circuit of few angles",
        control="bottleneck",
    ),
    HeadKind(
        "probabilities",
        "probabilities",
        summary="linear q, k; v outcome probabilities of an amplitude-encoded circuit",
        control="born",
    ),
    HeadKind(
        "compound",
        "compound",
        qubits=matrix_qubits,
        summary="linear q, k; v 2 × 2 minors of an orthogonal matrix, on pairs of qubits",
        control="pair-linear",
    ),
    HeadKind(
        "bottleneck",
        summary="control: qasa with a tanh of rank 2 in the place of its circuit",
        values=lambda shape: BottleneckValues(
            shape.count, data_qubits(shape.num_qubits), shape.head_size, spread=shape.spread
        ),
        num_features=lambda shape: data_qubits(shape.num_qubits),
        activation=torch.tanh,
    ),
    HeadKind(
        "born",
        summary="control: v normalised squares of a linear map",
        values=lambda shape: BornValues(shape.count, _outcomes(shape), shape.head_size, spread=shape.spread),
        num_features=lambda shape: 2 * _outcomes(shape),
    ),
    HeadKind(
        "pair-linear",
        summary="control: v a free linear map of the unit vector of compound",
        values=lambda shape: UnitLinear((shape.count,), _pairs(shape), shape.head_size, spread=shape.spread),
        num_features=_pairs,
    ),
)
