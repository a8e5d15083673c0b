"""Real vectors as quantum amplitudes: directly, and as the angles of the encoding circuit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.errors import EncodingError
from qiskit_qattn.library.encodings import walsh_gray_matrix
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.derivatives import is_traced, may_read
from qiskit_qattn.simulation.precision import without_autocast
from qiskit_qattn.simulation.products import normalised_product

LARGEST, SMALLEST = 1e30, 1e-30  # squared norms well within the range of float32
_FEW = 16  # numbers that Python compares faster than torch finds their extremes


def unit_vectors(x: Tensor) -> Tensor:
    r"""Normalise vectors: :math:`\hat x = x / \lVert x \rVert`, and :math:`\hat x = e_0` (gradient zero) for x = 0.

    Args:
        x: Real vectors, shape ``(..., D)``.

    Returns:
        Unit vectors of the same shape.

    Raises:
        EncodingError: For NaN or infinity, as :func:`check_finite`.
    """
    if not may_read(x):
        return _normalised(_scaled(x))
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
    if within_range(squared_norms := norms.detach().square()):
        return x / norms
    check_finite(x)
    kept = in_range(squared_norms)
    plain = torch.where(kept, x, 1.0)
    return torch.where(kept, _normalised(plain), _normalised(_scaled(x)))


def expectations_of_vectors(x: Tensor, matrix: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`|\hat x A|^{\odot 2} S`, scaling first those vectors that are zero or extreme.

    Where values cannot be read, all vectors are scaled.

    Args:
        x: Real vectors, shape ``(..., B, D)``.
        matrix: A, as for :func:`~qiskit_qattn.simulation.products.normalised_product`.
        signs: S, shape ``(R, M)``.

    Raises:
        EncodingError: For NaN or infinity, as :func:`check_finite`.
    """
    if not may_read(x):
        return normalised_product(_scaled(x), matrix, signs, x.shape[-1])[0]
    values, squared_norms = normalised_product(x, matrix, signs, x.shape[-1])
    if within_range(squared_norms):
        return values
    check_finite(x)
    kept = in_range(squared_norms.detach())  # a vector's values do not depend on the others
    values, _ = normalised_product(torch.where(kept, x, 1.0), matrix, signs, x.shape[-1])
    return torch.where(kept, values, normalised_product(_scaled(x), matrix, signs, x.shape[-1])[0])


def check_finite(x: Tensor, *, wait: bool = False) -> None:
    """Raise :class:`EncodingError` for NaN or infinity on a CPU.

    On a GPU, and inside ``torch.compile`` and ``torch.func``, nothing is checked: the values of such a vector are NaN,
    which is found where a loss is read or a token drawn.

    Args:
        x: What is encoded.
        wait: Check on a GPU too, and wait for it: before a device is paid.
    """
    if not (may_read(x) or (wait and not x.is_meta and not is_traced())):
        return
    if bool(torch.isfinite(x.detach().sum())):
        return
    if not bool(torch.isfinite(x).all()):  # a sum may overflow by itself
        raise EncodingError(
            f"Cannot encode a vector that holds NaN or infinity (input of shape {tuple(x.shape)}); "
            f"encodings need finite real numbers."
        )


def within_range(squared_norms: Tensor) -> bool:
    """Return whether vectors can be normalised directly: none is zero, NaN or extreme."""
    if squared_norms.numel() == 0 or squared_norms.is_meta:
        return True
    if squared_norms.numel() <= _FEW:
        return all(SMALLEST < value < LARGEST for value in squared_norms.flatten().tolist())
    low, high = torch.aminmax(squared_norms.detach())
    return low.item() > SMALLEST and high.item() < LARGEST


def in_range(squared_norms: Tensor) -> Tensor:
    """Return which vectors can be normalised directly."""
    return (squared_norms > SMALLEST) & (squared_norms < LARGEST)


def _scaled(x: Tensor) -> Tensor:
    """Scale vectors of any finite size so that the largest entry is ±1; e₀, without a gradient, for zero."""
    first = torch.eye(1, x.shape[-1], dtype=x.dtype, device=x.device)[0]  # (D,)
    vectors = torch.where(x.detach().any(-1, keepdim=True), x, first)
    return vectors / torch.linalg.vector_norm(vectors.detach(), torch.inf, -1, keepdim=True)


def _normalised(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def amplitude_angles(x: Tensor) -> Tensor:
    r"""Return the RY angles with which the amplitude-encoding circuit prepares :math:`x / \lVert x \rVert`.

    A binary tree over the entries: each node's angle is :math:`2\,\mathrm{atan2}(b, a)` with a, b the norms of its
    two halves, signed entries at the leaves; then, level by level, the Walsh–Gray map from the angles of a uniformly
    controlled rotation to those of plain RY gates. Differentiable; where both halves vanish the angle is 0 and so is
    its gradient.

    Args:
        x: Real vectors, shape ``(..., 2**n)``.

    Returns:
        Angles in radians, shape ``(..., 2**n - 1)``, in the order of ``amplitude_encoding(n).params``.

    Raises:
        EncodingError: For NaN, infinity or a length that is no power of two (at least 2).

    Source: Möttönen et al., Quant. Inf. Comp. 5, 467 (2005), arXiv quant-ph/0407010, equations (3) to (8).
    """
    size = x.shape[-1]
    if size < 2 or size & (size - 1):
        raise EncodingError(f"Amplitude encoding takes vectors of length 2^n, at least 2; got length {size}.")
    maps = [_walsh_gray(k).T for k in range(size.bit_length() - 1)]
    return _tree_angles(x, [torch.as_tensor(each, dtype=x.dtype, device=x.device) for each in maps])


class AmplitudeAngles(ConstantModule):
    """:func:`amplitude_angles` of vectors of one length, with the maps as constants on the module's device.

    Args:
        num_qubits: n.
    """

    def __init__(self, num_qubits: int) -> None:
        super().__init__()
        self.names = [f"map_{k}" for k in range(num_qubits)]
        for k, name in enumerate(self.names):
            self.add_constant(name, _walsh_gray(k).T)

    def forward(self, x: Tensor) -> Tensor:
        """Return angles, shape ``(..., 2**n - 1)``, of vectors ``(..., 2**n)``, in float32 at least."""
        self.leave_meta(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return _tree_angles(x, [getattr(self, name).to(x.dtype) for name in self.names])


def _tree_angles(x: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Return the angles, given the Walsh–Gray map of each level, shape ``(2**k, 2**k)``."""
    values, levels = unit_vectors(x), []
    for walsh in reversed(maps):
        left, right = values[..., 0::2], values[..., 1::2]  # halves that differ in one qubit
        empty = (left == 0) & (right == 0)
        safe = torch.where(empty, 1.0, left)  # atan2 and the norm have no gradient at (0, 0)
        level = torch.where(empty, 0.0, 2 * torch.atan2(right, safe))  # (..., 2^k)
        with without_autocast(x.device):
            levels.append(level @ walsh)
        values = torch.where(empty, 0.0, torch.sqrt(safe**2 + right**2))
    return torch.cat(levels[::-1], -1)  # (..., 2^n − 1)


@lru_cache
def _walsh_gray(num_controls: int) -> np.ndarray:
    return walsh_gray_matrix(num_controls)
