"""Expectations of circuits that data enters through one layer of phases: one pass forward, one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.realform import side_by_side
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
    return _PhaseProduct.apply(angles.columns(data), *angles.affine, columns, signs, block, apart)


class _PhaseProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        columns: Tensor,
        turns: Tensor,
        offset: Tensor | None,
        source: Tensor,
        signs: Tensor,
        block: TrigonometricMatrix | None,
        apart: bool,
    ) -> Tensor:
        ctx.block, ctx.apart, ctx.steps, matrix = block, apart, None, source
        if block is not None:
            matrix, ctx.steps = block.form(source)
            matrix = matrix.to(signs.dtype)
        phases = turns.mT @ columns.to(turns.dtype).mT  # (..., U, B)
        if offset is not None:
            phases += offset.unsqueeze(-1)
        features = torch.stack([torch.cos(phases), torch.sin(phases)], -3).to(signs.dtype)  # (..., 2, U, B)
        if apart:
            matrix = matrix.unflatten(-2, (2, -1))  # (..., 2, U, R)
            amplitudes = matrix.mT @ features  # (..., 2, R, B)
        else:
            amplitudes = (matrix.mT @ features.flatten(-3, -2)).unflatten(-2, (-1, signs.shape[-2]))
        outcomes, *imaginary = amplitudes.square().unbind(-3)
        for part in imaginary:
            outcomes += part
        ctx.save_for_backward(columns, turns, offset, source, signs, matrix, features, amplitudes)
        return (signs.mT @ outcomes).mT.contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        columns, turns, offset, source, signs, matrix, features, amplitudes = ctx.saved_tensors
        wants_columns, wants_source = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        of_columns = of_source = None
        if torch.is_grad_enabled():  # a second derivative is wanted: let autograd go through the steps
            wanted = [t for t, needed in ((columns, wants_columns), (source, wants_source)) if needed]
            values = _differentiable(columns, turns, offset, source, signs, ctx.block, ctx.apart)
            found = iter(torch.autograd.grad(values, wanted, grads[0], create_graph=True))
            of_columns = next(found) if wants_columns else None
            return of_columns, None, None, next(found) if wants_source else None, None, None, None
        slope = (2 * signs) @ grads[0].mT  # (..., R, B)
        slope = amplitudes * slope.unsqueeze(-3)  # (..., 1 or 2, R, B)
        if not ctx.apart:
            slope = slope.flatten(-3, -2)
        if wants_source:
            of_source = (features if ctx.apart else features.flatten(-3, -2)) @ slope.mT
            of_source = of_source.sum_to_size(matrix.shape)
            if ctx.apart:
                of_source = of_source.flatten(-3, -2)
            if ctx.block is not None:
                of_source = ctx.block.slope(of_source, ctx.steps).to(source.dtype)
        if wants_columns:
            of_features = matrix @ slope if ctx.apart else (matrix @ slope).unflatten(-2, (2, -1))  # (..., 2, U, B)
            (cosines, sines), (of_cosines, of_sines) = features.unbind(-3), of_features.unbind(-3)
            of_phases = (cosines * of_sines).addcmul_(sines, of_cosines, value=-1)  # (..., U, B)
            of_columns = (turns.to(signs.dtype) @ of_phases).mT.to(columns.dtype).sum_to_size(columns.shape)
        return of_columns, None, None, of_source, None, None, None


def _differentiable(
    columns: Tensor,
    turns: Tensor,
    offset: Tensor | None,
    source: Tensor,
    signs: Tensor,
    block: TrigonometricMatrix | None,
    apart: bool,
) -> Tensor:
    matrix = source if block is None else block.form(source)[0].to(signs.dtype)
    if apart:
        matrix = side_by_side(matrix)
    phases = columns.to(turns.dtype) @ turns  # (..., B, U)
    if offset is not None:
        phases = phases + offset
    features = torch.cat([torch.cos(phases), torch.sin(phases)], -1).to(signs.dtype)
    return (features @ matrix).unflatten(-1, (-1, len(signs))).square().sum(-2) @ signs
