"""Complex amplitudes in real matrix products: what grows with the batch is stored as [Re, Im, Re, Im, …]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def squared_product(x: Tensor, matrix: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`(X R)^{\odot 2} S`, shape ``(..., B, M)``.

    Args:
        x: X, shape ``(..., B, F)``.
        matrix: R, shape ``(..., F, G)``.
        signs: S, shape ``(G, M)``; constant, or with leading axes where no gradient is wanted.
    """
    if torch.compiler.is_compiling():
        return (x @ matrix).square() @ signs
    if torch.is_grad_enabled():
        return _SquaredProduct.apply(x, matrix, signs)
    return (x @ matrix).square_() @ signs


def ratio(values: Tensor) -> Tensor:
    """Return all columns but the last divided by the last."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Ratio.apply(values)
    return values[..., :-1] / values[..., -1:]


class _SquaredProduct(torch.autograd.Function):
    r"""The product :math:`Y = (X R)^{\odot 2} S`.

    Autograd would keep the squares as well and form :math:`2 A \odot \bar P` in three passes over the largest tensor.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, signs: Tensor) -> Tensor:
        amplitudes = x @ matrix  # (..., B, G)
        ctx.save_for_backward(x, matrix, signs, amplitudes)
        return (amplitudes * amplitudes) @ signs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, matrix, signs, amplitudes = ctx.saved_tensors
        slope = grads[0] @ (2 * signs).T  # (..., B, G)
        if torch.is_grad_enabled():  # a second derivative is wanted: let autograd see where amplitudes come from
            slope = slope * (x @ matrix)
        else:
            slope *= amplitudes
        of_x = slope @ matrix.transpose(-1, -2) if ctx.needs_input_grad[0] else None
        of_matrix = x.transpose(-1, -2) @ slope if ctx.needs_input_grad[1] else None
        return (
            None if of_x is None else of_x.sum_to_size(x.shape),
            None if of_matrix is None else of_matrix.sum_to_size(matrix.shape),
            None,
        )


class _Ratio(torch.autograd.Function):
    """The quotient of columns by the last one; autograd would fill two tensors with zeros for the slices."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        quotient = values[..., :-1] / values[..., -1:]
        ctx.save_for_backward(values, quotient)
        return quotient

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        values, quotient = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            quotient = values[..., :-1] / values[..., -1:]
        scaled = grads[0] / values[..., -1:]
        return torch.cat([scaled, -(scaled * quotient).sum(-1, keepdim=True)], -1)


def fold_phases(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Keep one of each pair of opposite phases: :math:`e^{i\phi} = \cos u + i s \sin u` with φ = s u.

    Args:
        coefficients: Phases of the 2ⁿ amplitudes as combinations of angles, shape ``(2**n, K)``.

    Returns:
        The combinations u, shape ``(U, K)``, and the complex matrix that takes ``[cos u, sin u]`` to the amplitudes.
    """
    leading = np.array([row[np.flatnonzero(row)[0]] if row.any() else 1.0 for row in coefficients])
    sign = np.sign(leading)
    unique, position = np.unique(coefficients * sign[:, None], axis=0, return_inverse=True)
    fold = np.zeros((len(coefficients), 2 * len(unique)), dtype=complex)
    rows = np.arange(len(coefficients))
    fold[rows, position.reshape(-1)] = 1.0
    fold[rows, len(unique) + position.reshape(-1)] = 1j * sign
    return unique, fold


def as_real(matrix: Tensor, *, from_real: bool, to_real: bool) -> Tensor:
    """Return a complex matrix A as the real one that takes rows x, or [Re x₀, Im x₀, …], to [Re (Ax)₀, Im (Ax)₀, …]."""
    rows = matrix.mT  # (..., in, out)
    if to_real and from_real:
        return rows.real.contiguous()
    if from_real:
        return torch.view_as_real(rows).flatten(-2)
    return torch.view_as_real(torch.stack([rows, 1j * rows], -2)).flatten(-2).flatten(-3, -2)


def rotate(state: Tensor, phases: Tensor) -> Tensor:
    """Multiply amplitudes, given as [Re, Im, …], by e^{iφ}."""
    turn = torch.polar(torch.ones_like(phases), phases).to(
        torch.complex128 if state.dtype == torch.float64 else torch.complex64
    )
    return torch.view_as_real(torch.view_as_complex(state.unflatten(-1, (-1, 2))) * turn).flatten(-2)
