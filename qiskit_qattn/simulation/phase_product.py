"""Expectations of circuits that data enters through one layer of phases: one pass forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.simulation import loops
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.derivatives import partial_gradients, torch_must_differentiate
from qiskit_qattn.simulation.realform import gradient_of, side_by_side
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix


def phase_product(
    data: Tensor,
    angles: AngleMap,
    source: Tensor,
    signs: Tensor,
    block: TrigonometricMatrix | None = None,
    *,
    apart: bool = False,
) -> Tensor:
    r"""Return :math:`|f A|^{\odot 2} S` with features :math:`f = [\cos\varphi, \sin\varphi]`, shape ``(..., B, M)``.

    The phases φ are computed in float64, and rounded with their cosines and sines. What grows with the batch is held
    with the batch last, so that each pass runs over contiguous memory. The backward pass is written out: at a thousand
    rows autograd's bookkeeping would take longer than the arithmetic.

    Args:
        data: x, shape ``(..., B, num_params)``.
        angles: The map from x to φ, ``(..., B, U)``.
        source: A, shape ``(..., 2 * U, R)``, or ``(..., 2 * U, 2 * R)``: all real parts, then all imaginary. With a
            ``block`` the weights from which it forms A.
        signs: S, shape ``(R, M)``, in the dtype of the result; constant, or with leading axes where no gradient is
            wanted.
        block: What forms A, if it is to be formed here.
        apart: Whether cosines give amplitudes their real parts and sines their imaginary ones; A is then of shape
            ``(..., 2 * U, R)``, and no product is spent on the zeros.
    """
    columns = source if block is None else block.phases.columns(source)
    return _PhaseProduct.apply(angles.columns(data), angles, columns, signs, block, apart)


class _PhaseProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        columns: Tensor,
        angles: AngleMap,
        source: Tensor,
        signs: Tensor,
        block: TrigonometricMatrix | None,
        apart: bool,
    ) -> Tensor:
        ctx.angles, ctx.block, ctx.apart = angles, block, apart
        ctx.loops = loops.suit(columns, angles, source, signs, block, apart)
        evaluate = loops.evaluate if ctx.loops else _evaluate
        values, tensors, ctx.trace = evaluate(columns, angles, source, signs, block, apart)
        ctx.save_for_backward(columns, source, signs, *tensors)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        columns, source, signs, *tensors = ctx.saved_tensors
        wants_columns, wants_source = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        if torch_must_differentiate(grads[0]):
            of_columns, of_source = partial_gradients(
                lambda x, a: _differentiable(x, ctx.angles, a, signs, ctx.block, ctx.apart),
                (columns, source),
                (wants_columns, wants_source),
                grads[0],
            )
            return of_columns, None, of_source, None, None, None
        slopes = loops.slopes if ctx.loops else _slopes
        of_columns, of_source = slopes(
            grads[0], ctx.angles, signs, tensors, ctx.trace, ctx.block, ctx.apart, wants_columns, wants_source
        )
        return gradient_of(columns, of_columns), None, gradient_of(source, of_source), None, None, None


def _evaluate(
    columns: Tensor, angles: AngleMap, source: Tensor, signs: Tensor, block: TrigonometricMatrix | None, apart: bool
) -> tuple[Tensor, tuple[Tensor, ...], Any]:
    """Return values, tensors to save, and what else :func:`_slopes` needs."""
    matrix, steps = (source, None) if block is None else block.form(source)
    matrix, (turns, offset) = matrix.to(signs.dtype), angles.affine
    phases = turns.mT @ columns.to(turns.dtype).mT  # (..., U, B)
    if offset is not None:
        phases += offset.unsqueeze(-1)
    features = torch.stack([torch.cos(phases), torch.sin(phases)], -3).to(signs.dtype)  # (..., 2, U, B)
    if apart:
        amplitudes = matrix.unflatten(-2, (2, -1)).mT @ features  # (..., 2, R, B)
    else:
        amplitudes = (matrix.mT @ features.flatten(-3, -2)).unflatten(-2, (-1, signs.shape[-2]))
    outcomes, *imaginary = amplitudes.square().unbind(-3)
    for part in imaginary:
        outcomes += part
    return (signs.mT @ outcomes).mT.clone(memory_format=torch.contiguous_format), (matrix, features, amplitudes), steps


def _slopes(
    grad: Tensor,
    angles: AngleMap,
    signs: Tensor,
    tensors: Sequence[Tensor],
    steps: Any,
    block: TrigonometricMatrix | None,
    apart: bool,
    wants_columns: bool,
    wants_source: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of columns and source, with the leading axes of the values, for that of the values."""
    matrix, features, amplitudes = tensors
    of_columns = of_source = None
    slope = amplitudes * ((2 * signs) @ grad.mT).unsqueeze(-3)  # (..., 1 or 2, R, B)
    if not apart:
        slope = slope.flatten(-3, -2)
    if wants_source:
        of_source = (features if apart else features.flatten(-3, -2)) @ slope.mT
        if apart:
            of_source = of_source.flatten(-3, -2)
        if block is not None:
            of_source = block.slope(of_source.sum_to_size(matrix.shape), steps)
    if wants_columns:
        of_features = matrix.unflatten(-2, (2, -1)) @ slope if apart else (matrix @ slope).unflatten(-2, (2, -1))
        (cosines, sines), (of_cosines, of_sines) = features.unbind(-3), of_features.unbind(-3)  # (..., U, B)
        of_phases = (cosines * of_sines).addcmul_(sines, of_cosines, value=-1)
        of_columns = (angles.affine[0].to(signs.dtype) @ of_phases).mT
    return of_columns, of_source


def _differentiable(
    columns: Tensor, angles: AngleMap, source: Tensor, signs: Tensor, block: TrigonometricMatrix | None, apart: bool
) -> Tensor:
    matrix = source if block is None else block.form(source)[0].to(signs.dtype)
    if apart:
        matrix = side_by_side(matrix)
    phases = angles.combine(columns)  # (..., B, U)
    features = torch.cat([torch.cos(phases), torch.sin(phases)], -1).to(signs.dtype)
    return (features @ matrix).unflatten(-1, (-1, len(signs))).square().sum(-2) @ signs
