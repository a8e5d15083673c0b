r"""A block's matrix with its gradient by the adjoint method.

For a layer K = … ⊗ K_q ⊗ … of one-qubit gates, with :math:`Y = K X` and gradient G of Y,

.. math:: \frac{\partial L}{\partial \theta} = \mathrm{Re}\,\mathrm{tr}\big(N^\dagger E\big), \qquad
          N = (K^\dagger G) X^\dagger, \qquad E = V^\dagger (-\tfrac{i}{2} P) V

where V are the gates that act on the same qubit before the rotation about P. So each layer costs two matrix products
and one partial trace for all its angles; autograd goes back through every Kronecker product instead and takes three
times as long on the matrices of an attention head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.simulation.derivatives import is_traced, needs_autograd, partial_gradients
from qiskit_qattn.simulation.operators import (
    Block,
    Local,
    LocalGates,
    Matrix,
    Permute,
    Phase,
    multiply,
    starts_with_matrix,
)


def apply_block(block: Block, columns: Tensor | None, weights: Tensor) -> Tensor:
    """Return W(θ) X as :class:`Block` does, with the adjoint method for gradients where that applies.

    Args:
        block: The steps of W.
        columns: X, shape ``(..., 2**n, C)``; None stands for the identity.
        weights: θ, shape ``(..., P)``.
    """
    angles = block.angles_of(weights)
    if not torch.is_grad_enabled() or is_traced():
        return block.run(columns, *angles)
    if columns is None and not starts_with_matrix(block):
        columns = block.identity(weights.device)
    return _Adjoint.apply(block, columns, *angles)


class _Adjoint(torch.autograd.Function):
    """W X as a function of X, the rotations' angles, and the phases of the diagonal steps."""

    @staticmethod
    def forward(ctx: Any, block: Block, columns: Tensor | None, angles: Tensor, *phases: Tensor) -> Tensor:
        ctx.block = block
        ctx.save_for_backward(columns, angles, *phases)
        ctx.chains = block.gates.chains(angles) if block.gates is not None else []
        ctx.matrices = block.gates(ctx.chains[-1]) if block.gates is not None else []
        ctx.states = []  # what each step needs of the way there
        following = iter(phases)
        for operation in block.operations:
            if isinstance(operation, Local):
                ctx.states.append(columns)
                columns = operation(columns, ctx.matrices[operation.step])
            elif isinstance(operation, Phase):
                columns = operation(columns, next(following))
                ctx.states.append(columns)
            else:
                columns = operation(columns)
                ctx.states.append(None)
        assert columns is not None
        return columns

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        block, (columns, angles, *phases) = ctx.block, ctx.saved_tensors
        if needs_autograd(grads[0]):
            return None, *partial_gradients(block.run, (columns, angles, *phases), ctx.needs_input_grad[1:], grads[0])
        grad, remaining = grads[0], list(phases)
        traces: list[Tensor] = []
        of_phases: list[Tensor] = []
        for operation, state in zip(reversed(block.operations), reversed(ctx.states), strict=True):
            if isinstance(operation, Local):
                grad = operation(grad, [matrix.mH for matrix in ctx.matrices[operation.step]])
                traces.append(block.gates.partial_traces(grad if state is None else multiply(grad, state.mH)))
            elif isinstance(operation, Phase):
                slope = (grad * state.conj()).imag.sum(-1)  # (..., 2**n)
                angle = remaining.pop()
                of_phases.append(slope.sum_to_size(angle.shape))
                grad = operation(grad, -angle)
            elif isinstance(operation, Permute):
                grad = grad.index_select(-2, operation.image)
            elif isinstance(operation, Matrix):
                grad = operation.adjoint(grad)
        of_angles = None
        if traces:  # each (..., n, 2, 2)
            of_angles = _angle_gradients(block.gates, torch.stack(traces[::-1], -4), ctx.chains, angles)
        of_columns = None
        if ctx.needs_input_grad[1]:
            of_columns = (grad if columns.is_complex() else grad.real).sum_to_size(columns.shape)
        return None, of_columns, of_angles, *of_phases[::-1]


def _angle_gradients(gates: LocalGates, traces: Tensor, chains: list[Tensor], angles: Tensor) -> Tensor | None:
    """Return dL/dθ of all rotations from the partial traces of their layers, ``(..., S, n, 2, 2)``."""
    if not gates.rotations:
        return None
    generators = gates.constant("generators")  # (depth, S, n, 2, 2), twice those of the angles
    slopes = []
    if not chains[-1].is_complex():  # then generators are real as well
        traces = traces.real
    for depth in range(gates.shape[0]):
        if depth > 0:  # take the trace past the gates that act before
            before = chains[depth - 1]
            turned = before @ traces @ before.mH
        else:
            turned = traces
        slopes.append(0.5 * (turned.conj() * generators[depth]).sum((-2, -1)).real)  # (..., S, n)
    every = torch.stack(slopes, -3).flatten(-3)  # (..., depth * S * n)
    return every.index_select(-1, gates.slots).sum_to_size(angles.shape)
