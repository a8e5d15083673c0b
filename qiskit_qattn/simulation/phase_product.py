"""Expectations of circuits that data enters through one layer of phases, in one autograd function.

An optimisation of the dense executor: the plain path takes cosines, sines, two matrix products and a square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qiskit_qattn.simulation import cpu
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.derivatives import needs_autograd, partial_gradients
from qiskit_qattn.simulation.products import gradient_of, side_by_side, signed_sums
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix

_NARROW = 512  # multiplications per row, forward; below, torch's passes over memory take longer than its products
_LITTLE = 3e6  # multiplications in all; measured: below, loops are faster than torch's calls whatever the width


def phase_product(
    data: Tensor,
    angles: AngleMap,
    source: Tensor,
    signs: Tensor,
    block: TrigonometricMatrix | None = None,
    *,
    split: bool = False,
) -> Tensor:
    r"""Return :math:`|f A|^{\odot 2} S` with features :math:`f = [\cos\varphi, \sin\varphi]`, shape ``(..., B, M)``.

    The phases φ are computed in the precision of their map, and rounded with their cosines and sines. What grows with
    the batch is held with the batch last, so that each pass runs over contiguous memory. The backward pass is written
    out: at a thousand rows autograd's bookkeeping would take longer than the arithmetic.

    Args:
        data: x, shape ``(..., B, num_params)``.
        angles: The map from x to φ, ``(..., B, U)``.
        source: A, shape ``(..., 2 * U, R)``, or ``(..., 2 * U, 2 * R)``: all real parts, then all imaginary. With a
            ``block`` the weights from which it forms A.
        signs: S, shape ``(R, M)``, in the dtype of the result; constant, or with leading axes where no gradient is
            wanted.
        block: What forms A, if it is to be formed here.
        split: Whether cosines give the real parts of amplitudes and sines the imaginary ones; A is then of shape
            ``(..., 2 * U, R)``, and no product is spent on the zeros.
    """
    product = PhaseProduct(angles, block, split)
    columns = source if block is None else block.phases.columns(source)
    return _Function.apply(angles.columns(data), columns, signs, product)


class PhaseProduct(NamedTuple):
    """What is fixed in a phase product; as for :func:`phase_product`."""

    angles: AngleMap
    block: TrigonometricMatrix | None
    split: bool


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: Tensor, source: Tensor, signs: Tensor, product: PhaseProduct) -> Tensor:
        ctx.product = product
        ctx.loops = _loops() if loops_are_faster(product, columns, source, signs) else None
        evaluate = _evaluate if ctx.loops is None else ctx.loops.evaluate
        values, tensors, ctx.trace = evaluate(product, columns, source, signs)
        ctx.save_for_backward(columns, source, signs, *tensors)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        columns, source, signs, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if needs_autograd(grads[0]):
            values = partial(_differentiable, ctx.product, signs=signs)
            return *partial_gradients(values, (columns, source), needed, grads[0]), None, None
        gradients = _gradients if ctx.loops is None else ctx.loops.gradients
        of_columns, of_source = gradients(ctx.product, grads[0], signs, tensors, ctx.trace, needed)
        return gradient_of(columns, of_columns), gradient_of(source, of_source), None, None


def loops_are_faster(product: PhaseProduct, columns: Tensor, source: Tensor, signs: Tensor) -> bool:
    """Return whether compiled loops are faster than torch's calls: few qubits, in float32, on a CPU."""
    angles, block, split = product
    if signs.dtype != torch.float32 or torch.float32 in (angles.forming, block and block.forming):
        return False
    if block is None:
        heads, width, forming = source.shape[:-2], source.shape[-1], 0
    else:  # the matrix is formed in float64
        heads, width, forming = source.shape[:-1], block.shapes[-1][-1], 2 * block.num_multiplications
    row = (1 if split else 2) * angles.num_angles * width
    count = max(math.prod(heads), math.prod(columns.shape[:-2]))
    if row > _NARROW and count * (columns.shape[-2] * row + forming) > _LITTLE:
        return False
    return cpu.takes(columns) and cpu.takes(source)


@cache
def _loops() -> ModuleType:
    from qiskit_qattn.simulation.cpu import phase_product as loops

    return loops


def _evaluate(
    product: PhaseProduct, columns: Tensor, source: Tensor, signs: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Any]:
    """Return values, tensors to save, and what else :func:`_gradients` needs."""
    angles, block, split = product
    matrix, steps = (source, None) if block is None else block.form(source)
    matrix, (turns, offset) = matrix.to(signs.dtype), angles.affine
    phases = turns.mT @ angles.rounded(columns).mT  # (..., U, B)
    if offset is not None:
        phases += offset.unsqueeze(-1)
    features = torch.stack([torch.cos(phases), torch.sin(phases)], -3).to(signs.dtype)  # (..., 2, U, B)
    if split:
        amplitudes = matrix.unflatten(-2, (2, -1)).mT @ features  # (..., 2, R, B)
    else:
        amplitudes = (matrix.mT @ features.flatten(-3, -2)).unflatten(-2, (-1, signs.shape[-2]))
    outcomes, *imaginary = amplitudes.square().unbind(-3)
    for part in imaginary:
        outcomes += part
    values = signed_sums(outcomes, signs).clone(memory_format=torch.contiguous_format)
    return values, (matrix, features, amplitudes), steps


def _gradients(
    product: PhaseProduct, grad: Tensor, signs: Tensor, tensors: Sequence[Tensor], steps: Any, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of columns and source, with the leading axes of the values, from that of the values."""
    (angles, block, split), (matrix, features, amplitudes) = product, tensors
    of_columns = of_source = None
    of_amplitudes = amplitudes * ((2 * signs) @ grad.mT).unsqueeze(-3)  # (..., 1 or 2, R, B)
    if not split:
        of_amplitudes = of_amplitudes.flatten(-3, -2)
    if needed[1]:
        of_source = (features if split else features.flatten(-3, -2)) @ of_amplitudes.mT
        if split:
            of_source = of_source.flatten(-3, -2)
        if block is not None:
            of_source = block.gradient(of_source.sum_to_size(matrix.shape), steps)
    if needed[0]:
        rows = matrix.unflatten(-2, (2, -1)) if split else matrix
        of_features = rows @ of_amplitudes
        of_features = of_features if split else of_features.unflatten(-2, (2, -1))
        (cosines, sines), (of_cosines, of_sines) = features.unbind(-3), of_features.unbind(-3)  # (..., U, B)
        of_phases = (cosines * of_sines).addcmul_(sines, of_cosines, value=-1)
        of_columns = (angles.affine[0].to(signs.dtype) @ of_phases).mT
    return of_columns, of_source


def _differentiable(product: PhaseProduct, columns: Tensor, source: Tensor, *, signs: Tensor) -> Tensor:
    """Return the values by the plain path."""
    angles, block, split = product
    matrix = source if block is None else block.form(source)[0].to(signs.dtype)
    if split:
        matrix = side_by_side(matrix)
    phases = angles.combine(columns)  # (..., B, U)
    features = torch.cat([torch.cos(phases), torch.sin(phases)], -1).to(signs.dtype)
    return (features @ matrix).unflatten(-1, (-1, len(signs))).square().sum(-2) @ signs
