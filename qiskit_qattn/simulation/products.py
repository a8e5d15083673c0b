"""Expectations as products of real matrices: complex amplitudes are rows of real and imaginary parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.simulation.derivatives import is_traced, needs_autograd, partial_gradients

_LONG, _PART = 256, 32  # terms of a sum in float32 that is taken in parts, and of a part


def squared_product(x: Tensor, matrix: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`|X A|^{\odot 2} S`, expectations of the states that the rows of X describe, shape ``(..., B, M)``.

    Args:
        x: X, shape ``(..., B, F)``.
        matrix: A, shape ``(..., F, R)``, or ``(..., F, 2 * R)`` with its real and imaginary parts side by side.
        signs: S, shape ``(R, M)``; constant, or with leading axes where no gradient is wanted.
    """
    if torch.is_grad_enabled() and not is_traced():
        return _Product.apply(x, matrix, signs, 0)[0]
    return _summed(probabilities(x @ matrix, signs.shape[-2]), signs)


def normalised_product(x: Tensor, matrix: Tensor, signs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    r"""Return :func:`squared_product` of unit vectors :math:`x / \lVert x \rVert`, and :math:`\lVert x \rVert^2`.

    No pass over X is needed: the probabilities of one basis, the first ``size`` outcomes, sum to the squared norm.

    Args:
        x: X, shape ``(..., B, F)``.
        matrix: A, an isometry onto the first ``size`` outcomes; as for :func:`squared_product`.
        signs: S, shape ``(R, M)``.
        size: Number of outcomes of the first basis.

    Returns:
        Values, shape ``(..., B, M)``, meaningless where the norm is zero, and squared norms, ``(..., B, 1)``.
    """
    if torch.is_grad_enabled() and not is_traced():
        values, norms = _Product.apply(x, matrix, signs, size)
        return values, norms
    outcomes = probabilities(x @ matrix, signs.shape[-2])
    norms = outcomes[..., :size].sum(-1, keepdim=True)
    return _summed(outcomes, signs) / norms, norms


def effective_observables(matrix: Tensor, signs: Tensor, exact: torch.dtype = torch.float64) -> Tensor:
    r"""Return :math:`E_m = A\,\mathrm{diag}(S_m)\,A^T`, shape ``(..., M, F, F)`` in A's dtype.

    Args:
        matrix: A, shape ``(..., F, R)``, or ``(..., F, 2 * R)`` with all real parts, then all imaginary.
        signs: S, shape ``(..., R, M)``.
        exact: The dtype in which E is summed.
    """
    rows = matrix.to(exact)
    parts = rows.unflatten(-1, (-1, signs.shape[-2]))  # (..., F, 1 or 2, R)
    scaled = parts.unsqueeze(-4) * signs.to(exact).mT[..., :, None, None, :]  # (..., M, F, 1 or 2, R)
    return (scaled.flatten(-2) @ rows.mT.unsqueeze(-3)).to(matrix.dtype)


def quadratic_forms(features: Tensor, observables: Tensor) -> Tensor:
    r"""Return :math:`f_b^T E_m f_b`, shape ``(..., B, M)``.

    Args:
        features: f, shape ``(..., B, F)``.
        observables: E, shape ``(..., M, F, F)``.
    """
    stacked = observables.transpose(-3, -2).flatten(-2)  # (..., F, M * F)
    products = (features @ stacked).unflatten(-1, (-1, features.shape[-1]))  # (..., B, M, F)
    return (products @ features.unsqueeze(-1)).squeeze(-1)


def probabilities(amplitudes: Tensor, count: int) -> Tensor:
    """Return the squares of real amplitudes ``(..., R)``, or of complex ones ``(..., 2 * R)``: all Re, then all Im."""
    if amplitudes.shape[-1] == count:
        return amplitudes * amplitudes
    real, imaginary = amplitudes[..., :count], amplitudes[..., count:]
    if is_traced():
        return real * real + imaginary * imaginary  # vmap has no rule for the other
    return (real * real).addcmul_(imaginary, imaginary)


def signed_sums(outcomes: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`p^T S`, shape ``(..., B, M)``, for probabilities as columns p, ``(..., R, B)``.

    Long sums are taken in parts, since rounding errors of equal terms all have one sign: in float32, a sum of 512 of
    them is off by up to :math:`4 \cdot 10^{-6}`.
    """
    count = outcomes.shape[-2]
    whole = count - count % _PART if count > _LONG else 0
    values = (signs[..., whole:, :].mT @ outcomes[..., whole:, :]).mT
    if whole:
        parts = outcomes[..., :whole, :].unflatten(-2, (-1, _PART))  # (..., K, 32, B)
        values = values + (parts.mT @ signs[..., :whole, :].unflatten(-2, (-1, _PART))).sum(-3)
    return values


def _summed(outcomes: Tensor, signs: Tensor) -> Tensor:
    """Return :func:`signed_sums` of probabilities as rows, ``(..., B, R)``."""
    return signed_sums(outcomes.mT, signs) if signs.shape[-2] > _LONG else outcomes @ signs


def squared_moduli(columns: Tensor) -> Tensor:
    """Return the squared moduli of complex columns ``(..., R, B)`` as rows ``(..., B, R)``."""
    return torch.view_as_real(columns).square().sum(-1).mT


class _Product(torch.autograd.Function):
    r"""The product :math:`|X A|^{\odot 2} S`, divided by squared norms where ``size`` is not 0.

    Autograd would keep every intermediate and take three passes over the largest tensor instead of one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, signs: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        amplitudes = x @ matrix  # (..., B, R or 2 * R)
        outcomes = probabilities(amplitudes, signs.shape[-2])
        values, sums, norms, ctx.size = _summed(outcomes, signs), None, None, size
        if size:
            norms = outcomes[..., :size].sum(-1, keepdim=True)
            values, sums = values / norms, values  # the caller may change the values in place
            ctx.mark_non_differentiable(norms)
        ctx.save_for_backward(x, matrix, signs, amplitudes, sums, norms)
        return values, norms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, signs, amplitudes, sums, norms = ctx.saved_tensors
        if needs_autograd(grads[0]):
            steps, needed = lambda x, matrix: _differentiable(x, matrix, signs, ctx.size), ctx.needs_input_grad[:2]
            return *partial_gradients(steps, (x, matrix), needed, grads[0]), None, None
        grad = grads[0] if norms is None else grads[0] / norms
        slope = grad @ (2 * signs).mT  # (..., B, R)
        if norms is not None:
            slope[..., : ctx.size] -= 2 * (grad * sums).sum(-1, keepdim=True) / norms
        parts = amplitudes.unflatten(-1, (-1, slope.shape[-1]))  # (..., B, 1 or 2, R)
        slope = (parts * slope.unsqueeze(-2)).flatten(-2)
        of_x = slope @ matrix.mT if ctx.needs_input_grad[0] else None
        of_matrix = x.mT @ slope if ctx.needs_input_grad[1] else None
        return gradient_of(x, of_x), gradient_of(matrix, of_matrix), None, None


def gradient_of(tensor: Tensor, grad: Tensor | None) -> Tensor | None:
    """Return a gradient in the dtype of its tensor, summed over the axes along which that was broadcast."""
    if grad is not None and grad.dtype != tensor.dtype:
        grad = grad.to(tensor.dtype)
    if grad is not None and grad.shape != tensor.shape:  # the check saves 15 µs of a call
        grad = grad.sum_to_size(tensor.shape)
    return grad


def _differentiable(x: Tensor, matrix: Tensor, signs: Tensor, size: int) -> Tensor:
    """Return the values of :class:`_Product` in torch's own operations."""
    outcomes = (x @ matrix).unflatten(-1, (-1, signs.shape[-2])).square().sum(-2)
    values = outcomes @ signs
    return values / outcomes[..., :size].sum(-1, keepdim=True) if size else values


def as_real(matrix: Tensor, *, from_real: bool, last: bool, real: bool = False) -> Tensor:
    """Return a complex matrix A as the real one that takes rows x to rows of Ax.

    Complex rows are stored as [Re, Im, Re, Im, …]; those that leave the ``last`` matrix as all Re, then all Im.

    Args:
        matrix: A, shape ``(..., out, in)``.
        from_real: Whether x is real.
        last: Whether this is the last matrix before amplitudes are squared.
        real: Whether Ax is known to be real; then the last matrix leaves imaginary parts out.
    """
    rows = matrix.mT  # (..., in, out)
    if real and last and not rows.is_complex():
        return rows
    rows = rows.to(torch.promote_types(rows.dtype, torch.complex64))
    if not from_real:
        rows = torch.stack([rows, 1j * rows], -2).flatten(-3, -2)  # (..., 2 * in, out)
    if not last:
        return torch.view_as_real(rows).flatten(-2)
    return rows.real.contiguous() if real else torch.cat([rows.real, rows.imag], -1)


def find_zero_parts(matrix: Tensor, *, phases: bool) -> tuple[bool, bool]:
    """Find out which parts of the amplitudes are zero, so that R of the 2 R columns of a last matrix are enough.

    Args:
        matrix: Shape ``(..., F, 2 * R)``, all Re, then all Im.
        phases: Whether features are cosines, then sines.

    Returns:
        Whether one part is zero throughout, and whether that is so because cosines give real parts and sines imaginary
        ones; otherwise all amplitudes are real.
    """
    real, imaginary = matrix.chunk(2, -1)  # (..., F, R)
    if float(imaginary.abs().max()) < 1e-6:
        return True, False
    if not phases:
        return False, False
    count = matrix.shape[-2] // 2
    rest = torch.cat([imaginary[..., :count, :], real[..., count:, :]])
    split = float(rest.abs().max()) < 1e-6
    return split, split


def side_by_side(matrix: Tensor) -> Tensor:
    """Return a matrix whose upper rows give real and lower rows imaginary parts as all Re, then all Im columns.

    Shapes: ``(..., F, R)`` to ``(..., F, 2 * R)``.
    """
    real, imaginary = matrix.chunk(2, -2)  # (..., F / 2, R)
    zeros = torch.zeros_like(real)
    return torch.cat([torch.cat([real, zeros], -1), torch.cat([zeros, imaginary], -1)], -2)


def rotate(state: Tensor, phases: Tensor) -> Tensor:
    """Multiply amplitudes, given as [Re, Im, …], by e^{iφ}."""
    if is_traced():  # compilers and formats of graphs have no complex numbers
        real, imag = state.unflatten(-1, (-1, 2)).unbind(-1)
        c, s = phases.cos().to(state.dtype), phases.sin().to(state.dtype)
        return torch.stack([c * real - s * imag, s * real + c * imag], -1).flatten(-2)
    turn = torch.polar(torch.ones_like(phases), phases).to(
        torch.complex128 if state.dtype == torch.float64 else torch.complex64
    )
    return torch.view_as_real(torch.view_as_complex(state.unflatten(-1, (-1, 2))) * turn).flatten(-2)
