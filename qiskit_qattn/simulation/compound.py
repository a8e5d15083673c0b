r"""States with two 1s exactly: the second-order compound of a rotation of n × n, without the 2ⁿ amplitudes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.compound import matrix_sides, pair_amplitude, pair_of
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.library.unary import pyramid
from qiskit_qattn.simulation.amplitude import AmplitudeAngles, unit_vectors
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.dense import Fused
from qiskit_qattn.simulation.precision import without_autocast
from qiskit_qattn.simulation.statevector import StatevectorProgram
from qiskit_qattn.simulation.unary import Rotations, UnaryAngles, rbs_layers, unary_angles


class CompoundProgram(StatevectorProgram):
    r"""Amplitudes of a pyramid of RBS on a matrix-encoded vector: minors of an orthogonal matrix V.

    .. math:: y_{ij} = \sum_{kl} \big( V_{ik} V_{jl} - V_{il} V_{jk} \big) \hat X_{kl}

    over rows k and columns l of the matrix X: the second-order compound of V, whose entries are its 2 × 2 minors. On
    neighbours RBS turn two 1s as they turn each of two fermions; on other qubits they do not.

    Args:
        circuit: An attention circuit of :func:`~qiskit_qattn.library.compound.matrix_encoding` and
            :func:`~qiskit_qattn.library.unary.pyramid_ansatz` that reads amplitudes of pairs.

    Raises:
        CircuitError: For another ansatz, or other observables.
    """

    def __init__(self, circuit: AttentionCircuit) -> None:
        ConstantModule.__init__(self)
        self.num_qubits, self.num_inputs = circuit.num_qubits, circuit.encoding.num_features
        self.num_weights, self.num_outputs = len(circuit.weight_params), len(circuit.observables)
        self.rotations = Rotations(self.num_qubits, rbs_layers(circuit, (pyramid,)))
        self.unitaries = self.effective = None
        names = circuit.names or ()
        if circuit.observables != tuple(map(pair_amplitude, names)):
            raise CircuitError(
                f"The exact engine reads amplitudes of pairs of matrix encodings only; {circuit.name!r} has other "
                f"observables."
            )
        rows, columns = matrix_sides(self.num_qubits)
        entries = [(row, rows + column) for row in range(rows) for column in range(columns)]
        self.add_constant("entries", np.array(entries).T)  # (2, k m)
        self.add_constant("pairs", np.array([pair_of(name) for name in names]).T)  # (2, M)
        self.add_constant("signs", np.ones(self.num_outputs))

    entries: Tensor
    pairs: Tensor

    def forward(
        self, inputs: Tensor, weights: Tensor, fused: Fused | None = None, signs: Tensor | None = None
    ) -> Tensor:
        """Return amplitudes, shape ``(..., B, M)``.

        Args:
            inputs: Matrices of any norm, row by row, shape ``(..., B, k m)``.
            weights: Angles in radians, shape ``(..., P)``; leading axes broadcast with the inputs'.
            fused: What :meth:`fused` gave for these weights, if it was called already.
            signs: What :meth:`scaled_signs` gave, to scale each amplitude.

        Raises:
            EncodingError: For NaN or infinity.
        """
        self.leave_meta(weights)
        with without_autocast(inputs.device):
            (matrix,) = fused or self.fused(weights)
            values = unit_vectors(inputs).to(matrix.dtype) @ matrix
            return values if signs is None else values * signs

    def states(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the amplitudes of the state without a 1 and of all pairs in order, ``(..., B, n (n - 1) / 2 + 1)``."""
        pairs = list(itertools.combinations(range(self.num_qubits), 2))
        matrix = self._minors(weights, torch.tensor(pairs, device=weights.device).T)
        values = unit_vectors(inputs).to(matrix.dtype) @ matrix
        return torch.cat([torch.ones_like(values[..., :1]), values], -1) * 0.5**0.5

    def fused(self, weights: Tensor) -> Fused:
        """Return the minors that take entries of X to what is read, shape ``(..., k m, M)``."""
        self.leave_meta(weights)
        with without_autocast(weights.device):
            return (self._minors(weights, self.pairs).to(self.signs.dtype),)

    def _minors(self, weights: Tensor, pairs: Tensor) -> Tensor:
        rotation = self.rotations(weights)  # the transpose of V, (..., n, n)
        row, column = (rotation[..., line, :] for line in self.entries)  # each (..., k m, n)
        i, j = pairs
        return row[..., i] * column[..., j] - column[..., i] * row[..., j]

    def scaled_signs(self, scale: Tensor) -> Tensor:
        """Return what makes a call give amplitudes times ``scale``, of shape ``(..., M)``."""
        return scale.unsqueeze(-2)

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        return f"{self.num_qubits} qubits, 2 × 2 minors of an orthogonal matrix of {self.num_weights} rotations"


def matrix_angles(x: Tensor) -> Tensor:
    r"""Return the angles with which the matrix encoding loads :math:`\hat X = X / \lVert X \rVert`.

    The first k are those of :func:`~qiskit_qattn.simulation.unary.unary_angles` for the norms of the rows. The last row
    has m − 1 for its direction. The rotations :math:`L` of a row also turn all rows before, so row i loads

    .. math:: \big( L_k \cdots L_{i+1} \big)^\top \hat X_i / \lVert \hat X_i \rVert

    Differentiable; a row of zeros is loaded with the norm 0.

    Args:
        x: Matrices of k rows and m = k or k + 1 columns, row by row, shape ``(..., k m)``.

    Returns:
        Angles in radians, shape ``(..., k m)``, in the order of ``matrix_encoding(n).params``.

    Raises:
        EncodingError: For NaN or infinity.
    """
    rows = math.isqrt(x.shape[-1])
    columns = x.shape[-1] // rows
    unit = unit_vectors(x)
    if columns == 1:
        return unary_angles(unit)
    matrix = unit.unflatten(-1, (rows, columns))
    squares = matrix.square().sum(-1)
    empty = squares == 0  # a root has no gradient at 0
    norms = torch.where(empty, 0.0, torch.where(empty, 1.0, squares).sqrt())  # (..., k)
    later = torch.eye(columns, dtype=unit.dtype, device=unit.device).expand(*x.shape[:-1], -1, -1)
    found: list[Tensor] = []
    for row in matrix.unbind(-2)[::-1]:
        angles = unary_angles((row.unsqueeze(-2) @ later).squeeze(-2))[..., 1:]  # (..., m - 1)
        found.insert(0, angles)
        if len(found) < rows:
            later = later @ _chain(angles)
    return torch.cat([unary_angles(norms), *found], -1)


def _chain(angles: Tensor) -> Tensor:
    """Return the matrices, ``(..., m, m)``, of chains of RBS on neighbours with angles ``(..., m - 1)``."""
    identity = torch.eye(angles.shape[-1] + 1, dtype=angles.dtype, device=angles.device)
    columns = list(identity.expand(*angles.shape[:-1], -1, -1).unbind(-1))
    # Each gate acts on the left of those before: from the last to the first, on the right of those after.
    for q, angle in reversed(list(enumerate(angles.unsqueeze(-2).unbind(-1)))):
        cos, sin = angle.cos(), angle.sin()  # (..., 1)
        columns[q], columns[q + 1] = (
            cos * columns[q] + sin * columns[q + 1],
            cos * columns[q + 1] - sin * columns[q],
        )
    return torch.stack(columns, -1)


class MatrixAngles(nn.Module):
    """:func:`matrix_angles` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Return angles, shape ``(..., k m)``, of matrices of that shape."""
        return matrix_angles(x)


def angles_of_vectors(encoding: Encoding) -> nn.Module | None:
    """Return what makes a circuit's angles of the vectors that it encodes; None for encodings that take angles."""
    if encoding.kind == "amplitude":
        return AmplitudeAngles(encoding.num_qubits)
    return {"unary": UnaryAngles, "matrix": MatrixAngles}[encoding.kind]() if encoding.takes_vectors else None
