"""Inference: what is linear before a circuit's measurement becomes part of the attention's input projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.nn.heads import FusedHead
from qiskit_qattn.simulation.amplitude import within_range
from qiskit_qattn.simulation.realform import probabilities

_FEW_ROWS = 256  # below, a call costs more than the work in it


@dataclass(frozen=True)
class FoldedProjection:
    r"""One linear map from tokens to queries, keys and the amplitudes of amplitude-encoded heads.

    Encoding :math:`W x` and applying the unitary U is linear up to a norm, :math:`A x` with :math:`A = U W`, so

    .. math:: \langle P_m \rangle = \sum_i S_{im} |A x|_i^2 \Big/ \sum_i |A x|_i^2

    Attributes:
        weights: The projection's rows, ``(·, d)``, those of queries and keys, then of each kind; of a quantum kind all
            real parts, then all imaginary. For few rows one matrix holds them all.
        biases: Shapes ``(·,)``, or None, likewise.
        sizes: How many outputs belong to queries and keys, then to each kind.
        signs: For each quantum kind, by position, S times gains of all its heads on the diagonal, with a column of ones
            for the norm: shape ``(H * R, H * (M + 1))``; twice over where both parts are squared at once.
        counts: The number of its heads.
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    sizes: list[int]
    signs: dict[int, Tensor]
    counts: dict[int, int]

    def __call__(self, x: Tensor) -> list[Tensor] | None:
        """Return queries and keys, then each kind's features, or values ``(B, T, H, M)`` where the kind is quantum.

        None where a vector is zero, not finite or extreme, which takes more care than is had here.
        """
        outputs = [F.linear(x, *parts) for parts in zip(self.weights, self.biases, strict=True)]
        if len(outputs) < len(self.sizes):
            outputs = list(outputs[0].split_with_sizes(self.sizes, -1))
        for position, signs in self.signs.items():
            sums = probabilities(outputs[position], len(signs)) @ signs
            sums = sums.view(*x.shape[:-1], self.counts[position], -1)  # (B, T, H, M + 1)
            values, norms = sums.split_with_sizes((sums.shape[-1] - 1, 1), -1)
            if not within_range(norms):
                return None
            outputs[position] = values.div_(norms)
        return outputs


@dataclass(frozen=True)
class FusedLayer:
    """What of one layer's attention does not depend on data.

    Attributes:
        heads: What :func:`~qiskit_qattn.nn.heads.fuse_heads` gave, by kind.
        projection: The folded projection, where there is one.
    """

    heads: Mapping[str, FusedHead] = field(default_factory=dict)
    projection: FoldedProjection | None = None


def fold(
    weight: Tensor, bias: Tensor | None, sizes: Sequence[int], heads: Mapping[int, FusedHead], rows: int
) -> FoldedProjection | None:
    """Fold the matrices of amplitude-encoded heads into the projection that feeds them, where that saves work.

    Args:
        weight: The projection, shape ``(sum(sizes), d)``.
        bias: Shape ``(sum(sizes),)``, or None.
        sizes: How many outputs belong to queries and keys, then to each kind.
        heads: What the circuits of the quantum kinds were fused to, by position in ``sizes``; without gradients.
        rows: How many tokens will be projected at once.
    """
    if not heads or torch.is_autocast_enabled(weight.device.type) or torch.compiler.is_compiling():
        return None
    parts = [list(w.split(list(sizes))) for w in ((weight,) if bias is None else (weight, bias[:, None]))]
    width, signs, counts = weight.shape[1], {}, {}
    for position, head in heads.items():
        matrix, scaled = head.matrices[0], head.signs
        assert scaled is not None
        if matrix.dtype != weight.dtype:
            return None
        count, size, outputs = matrix.shape  # H, 2**n, R or 2 * R
        if rows > _FEW_ROWS and width * outputs > size * (width + outputs):
            return None
        outcomes = scaled.shape[-2]
        for part in parts:  # (H * 2**n, d) → (H * R or 2 * H * R, d)
            product = matrix.mT @ part[position].unflatten(0, (count, size))  # (H, R or 2 * R, d)
            part[position] = product.unflatten(1, (-1, outcomes)).transpose(0, 1).flatten(0, 2)
        ones = (torch.arange(outcomes, device=scaled.device) < size).to(scaled.dtype)  # the first basis sums to ‖x‖²
        columns = torch.cat([scaled, ones[:, None].expand(count, -1, 1)], -1)  # (H, R, M + 1)
        diagonal = torch.block_diag(*columns)
        if rows <= _FEW_ROWS and outputs > outcomes:  # one square of all parts: fewer calls, more work
            diagonal = torch.cat([diagonal, diagonal])
        signs[position], counts[position] = diagonal, count
    sizes = [len(part) for part in parts[0]]
    if rows <= _FEW_ROWS:
        parts = [[torch.cat(part)] for part in parts]
    biases = [None if bias is None else part[:, 0] for part in parts[-1]]
    return FoldedProjection(parts[0], biases, sizes, signs, counts)
