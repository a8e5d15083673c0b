"""Real vectors as quantum amplitudes: directly, and as the angles of the encoding circuit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.errors import EncodingError
from qiskit_qattn.library.encodings import walsh_gray_matrix
from qiskit_qattn.simulation.derivatives import is_traced
from qiskit_qattn.simulation.products import normalised_product, squared_product

LARGEST, SMALLEST = 1e30, 1e-30  # squared norms well within the range of float32
_FEW = 16  # numbers that Python compares faster than torch finds their extremes


def unit_vectors(x: Tensor) -> Tensor:
    r"""Normalise vectors: :math:`\hat x = x / \lVert x \rVert`, and :math:`\hat x = e_0` (gradient zero) for x = 0.

    Args:
        x: Real vectors, shape ``(..., D)``.

    Returns:
        Unit vectors of the same shape.

    Raises:
        EncodingError: For NaN or infinity (not checked inside ``torch.compile`` and ``torch.func``).
    """
    if is_traced():
        return _unit_vectors_scaled(x)
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
    if within_range(squared_norms := norms.detach().square()):
        return x / norms
    check_finite(x)
    kept = in_range(squared_norms)
    plain = torch.where(kept, x, 1.0)
    return torch.where(kept, plain / torch.linalg.vector_norm(plain, dim=-1, keepdim=True), _unit_vectors_scaled(x))


def expectations_of_vectors(x: Tensor, matrix: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`|\hat x A|^{\odot 2} S`, normalising first those vectors that are zero or extreme.

    Args:
        x: Real vectors, shape ``(..., B, D)``.
        matrix: A, as for :func:`~qiskit_qattn.simulation.products.normalised_product`.
        signs: S, shape ``(R, M)``.

    Raises:
        EncodingError: For NaN or infinity (not checked inside ``torch.compile`` and ``torch.func``).
    """
    if is_traced():  # which allows no branch on values
        return squared_product(unit_vectors(x), matrix, signs)
    values, squared_norms = normalised_product(x, matrix, signs, x.shape[-1])
    if within_range(squared_norms):
        return values
    check_finite(x)
    kept = in_range(squared_norms.detach())  # a vector's values do not depend on the others
    values, _ = normalised_product(torch.where(kept, x, 1.0), matrix, signs, x.shape[-1])
    return torch.where(kept, values, squared_product(_unit_vectors_scaled(x), matrix, signs))


def check_finite(x: Tensor) -> None:
    """Raise :class:`EncodingError` for NaN or infinity, except inside ``torch.compile`` and ``torch.func``."""
    if is_traced() or x.is_meta or bool(torch.isfinite(x.detach().sum())):
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


def _unit_vectors_scaled(x: Tensor) -> Tensor:
    """Normalise vectors of any finite size, zero included."""
    largest = x.detach().abs().amax(-1, keepdim=True)  # (..., 1)
    zero = largest == 0
    scaled = x / torch.where(zero, 1.0, largest)
    norms = torch.where(zero, 1.0, torch.linalg.vector_norm(scaled, dim=-1, keepdim=True))
    first = torch.zeros_like(x)
    first[..., 0] = 1.0
    return torch.where(zero, first, scaled / norms)


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

    Source: Möttönen et al., Quant. Inf. Comp. 5, 467 (2005), equations (3) to (8).
    """
    size = x.shape[-1]
    if size < 2 or size & (size - 1):
        raise EncodingError(f"Amplitude encoding takes vectors of length 2^n, at least 2; got length {size}.")
    values, levels = unit_vectors(x), []
    while values.shape[-1] > 1:
        left, right = values[..., 0::2], values[..., 1::2]  # halves that differ in one qubit
        empty = (left == 0) & (right == 0)
        safe = torch.where(empty, 1.0, left)  # atan2 and the norm have no gradient at (0, 0)
        level = torch.where(empty, 0.0, 2 * torch.atan2(right, safe))  # (..., 2^k)
        walsh = _walsh_gray(level.shape[-1].bit_length() - 1)
        levels.append(level @ torch.as_tensor(walsh.T, dtype=x.dtype, device=x.device))
        values = torch.where(empty, 0.0, torch.sqrt(safe**2 + right**2))
    return torch.cat(levels[::-1], -1)  # (..., 2^n − 1)


@lru_cache
def _walsh_gray(num_controls: int) -> np.ndarray:
    return walsh_gray_matrix(num_controls)
