r"""How, for circuits of many qubits: fused blocks of gates are applied to the batch of state vectors.

:mod:`~qiskit_qattn.simulation.gate_fusion` makes a circuit a few unitaries on four qubits each and data-dependent
phases. Qubits that nothing has entangled yet are separate states :math:`|\psi_1\rangle \otimes |\psi_2\rangle`, which
are multiplied out where a block acts on both. A block is one product with a view of the batch, and qubits stay in
the order that the last block left.

The backward pass undoes the steps one by one, :math:`|\psi_{k-1}\rangle = U_k^\dagger |\psi_k\rangle`, so that its
memory does not grow with the depth (the adjoint method: Jones and Gacon, arXiv 2009.02823):

.. math:: \lambda_{k-1} = U_k^\dagger \lambda_k, \qquad \frac{\partial L}{\partial U_k} = \lambda_k \psi_{k-1}^\dagger
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.simulation.adjoint import apply_block
from qiskit_qattn.simulation.block_schedule import Apply, Instruction, Join, Reorder, Schedule, Shuffle
from qiskit_qattn.simulation.block_steps import (
    FixedBlock,
    StatePhases,
    apply,
    as_real,
    as_rows,
    block_of,
    join,
    permutation_of,
    reorder,
)
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.derivatives import is_traced, needs_autograd, partial_gradients
from qiskit_qattn.simulation.elementary import Permutation
from qiskit_qattn.simulation.gate_fusion import WIDTH, Cluster, Phases, fuse
from qiskit_qattn.simulation.gatewise import Gatewise
from qiskit_qattn.simulation.operators import Block, Permute
from qiskit_qattn.simulation.plan import MAX_FLOAT32_PHASES, Plan
from qiskit_qattn.simulation.products import signed_sums
from qiskit_qattn.simulation.readout import MeasurementBases

_CACHED = 2**18  # amplitudes of the rows that are computed together: 2 MiB in float32, which caches hold


class Blockwise(ConstantModule):
    """Expectations and state vectors of a batch, from fused blocks of gates.

    Args:
        plan: What is computed.
        width: Qubits of a block at most; a larger matrix is a block by itself.

    Attributes:
        num_phases: How many times data-dependent phases act.
    """

    signs: Tensor

    def __init__(self, plan: Plan, width: int = WIDTH) -> None:
        super().__init__()
        self.amplitude_input, self.num_qubits = plan.input_kind == "amplitude", plan.num_qubits
        steps, place = fuse(plan.operations, plan.num_qubits, plan.input_params, width)
        of_data = [step for step in steps if isinstance(step, Phases) and step.of_data]
        self.num_phases, self.float64 = len(of_data), len(of_data) > MAX_FLOAT32_PHASES
        self.takes_data = self.amplitude_input or bool(of_data)
        schedule = Schedule(plan.num_qubits, whole=self.amplitude_input)
        self.unitaries, self.phases, self.permutations = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for step in steps:
            if isinstance(step, Cluster):
                layout = schedule.apply(step.qubits, len(self.unitaries))
                self.unitaries.append(block_of(step, layout, plan.weight_params))
            elif isinstance(step, Permutation):
                layout = schedule.shuffle(step.qubits, len(self.permutations))
                self.permutations.append(permutation_of(step, layout))
            else:
                for state, part in schedule.separate(step):
                    layout = schedule.rotate(state, len(self.phases))
                    self.phases.append(StatePhases(part, layout, plan))
        self.last = schedule.join(range(plan.num_qubits))
        self.instructions = tuple(schedule.instructions)
        layout = schedule.layouts[self.last]
        self.order = tuple(layout.index(place[q]) for q in reversed(range(plan.num_qubits)))  # Qiskit's, in the layout
        self.measure = MeasurementBases(plan.readout, plan.outcomes)
        self.num_states = 1 if self.amplitude_input else plan.num_qubits
        if not self.amplitude_input:
            self.add_constant("ground", np.array([[1.0], [0.0]]))  # |0⟩

    def expectations(self, inputs: Tensor, weights: Tensor, signs: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``, in the dtype of the signs.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``.
            signs: S, shape ``(..., R, M)``.
        """
        asked, dtype = signs.dtype, torch.float64 if self.float64 else signs.dtype
        matrices, signs = self._matrices(weights, dtype), signs.to(dtype)
        heads = math.prod(torch.broadcast_shapes(inputs.shape[:-2], weights.shape[:-1]))
        rows = max(1, (_CACHED >> self.num_qubits) // max(1, heads))
        if self.measure.trivial:  # outcomes are basis states, whose signs may change places in their stead
            signs = reorder(signs, tuple(np.argsort(self.order).tolist()))
        found = []
        for part in inputs.split(rows, -2) if self.takes_data else [inputs]:  # without data one column serves all rows
            states = self._states(part, weights, matrices, dtype)
            if not self.measure.trivial:
                states = self.measure(reorder(states, self.order))
            found.append(_read(states, signs))
        values = (torch.cat(found, -2) if found[1:] else found[0]).to(asked)
        return values.expand(*values.shape[:-2], inputs.shape[-2], -1)

    def amplitudes(self, inputs: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the amplitudes of the outcomes, shape ``(..., R, B)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``.
            dtype: Real dtype of the amplitudes, unless float64 is needed.
        """
        dtype = torch.float64 if self.float64 else dtype
        states = self.measure(reorder(self._states(inputs, weights, self._matrices(weights, dtype), dtype), self.order))
        states = states.to(torch.promote_types(dtype, torch.complex64))
        return states.expand(*states.shape[:-1], inputs.shape[-2])

    def _matrices(self, weights: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Return the unitaries of all blocks, real or complex, in the dtype of the states."""
        found = [
            apply_block(block, None, weights)
            if isinstance(block, Block)
            else cast(FixedBlock, block).constant("matrix")
            for block in self.unitaries
        ]
        return [m.to(torch.promote_types(dtype, torch.complex64) if m.is_complex() else dtype) for m in found]

    def _states(self, inputs: Tensor, weights: Tensor, matrices: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Return state vectors in the order of the last layout, shape ``(..., 2**n, B or 1)``, real or complex."""
        if self.amplitude_input:
            states = [Gatewise.unit_rows(inputs, dtype).mT]
        else:
            states = [self.constant("ground").to(dtype)] * self.num_states
        angles = [cast(StatePhases, phases).angles(inputs, weights) for phases in self.phases]
        sizes = len(matrices), len(angles)
        if not torch.is_grad_enabled() or is_traced():
            return self.run(*sizes, *matrices, *angles, *states)
        return _Adjoint.apply(self, *sizes, *matrices, *angles, *states)

    def run(self, num_matrices: int, num_angles: int, *tensors: Tensor) -> Tensor:
        """Return the amplitudes for matrices, angles of phases and initial states, in torch's own operations."""
        states = list(tensors[num_matrices + num_angles :])
        for step in self.instructions:
            self._do(step, states, tensors[:num_matrices], tensors[num_matrices:])
        return states[self.last]

    def _do(
        self, step: Instruction, states: list[Tensor], matrices: Sequence[Tensor], angles: Sequence[Tensor]
    ) -> None:
        """Carry out one instruction on the list of states."""
        if isinstance(step, Join):
            states[step.left] = join(states[step.left], states[step.right])
        elif isinstance(step, Reorder):
            states[step.state] = reorder(states[step.state], step.order)
        elif isinstance(step, Apply):
            states[step.state] = apply(matrices[step.matrix], states[step.state], step.before)
        elif isinstance(step, Shuffle):
            states[step.state] = self.permutations[step.permutation](states[step.state])
        else:
            phases = cast(StatePhases, self.phases[step.phases])
            states[step.state] = states[step.state] * phases.turns(angles[step.phases], states[step.state].dtype)


class _Adjoint(torch.autograd.Function):
    """The amplitudes as a function of matrices, angles of phases and initial states."""

    @staticmethod
    def forward(ctx: Any, program: Blockwise, num_matrices: int, num_angles: int, *tensors: Tensor) -> Tensor:
        matrices, angles = tensors[:num_matrices], tensors[num_matrices : num_matrices + num_angles]
        states = list(tensors[num_matrices + num_angles :])
        kept: list[tuple[Tensor, ...] | None] = []  # states that the step after them cannot be undone for
        for step in program.instructions:
            if isinstance(step, Join):
                kept.append((states[step.left], states[step.right]))
                program._do(step, states, matrices, angles)
                continue
            before = states[step.state]
            program._do(step, states, matrices, angles)
            after = states[step.state]
            same = after.shape == before.shape and after.dtype == before.dtype
            kept.append(None if same or isinstance(step, Reorder) else (before,))
        ctx.program, ctx.sizes, ctx.kept = program, (num_matrices, num_angles), kept
        ctx.save_for_backward(*tensors, states[program.last])
        return states[program.last]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        program, (num_matrices, num_angles) = ctx.program, ctx.sizes
        *tensors, last = ctx.saved_tensors
        if needs_autograd(grads[0]):
            needed = ctx.needs_input_grad[3:]
            return (
                None,
                None,
                None,
                *partial_gradients(lambda *t: program.run(num_matrices, num_angles, *t), tensors, needed, grads[0]),
            )
        found: list[Tensor | None] = [None] * len(tensors)
        states: list[Tensor] = [last] * program.num_states
        slopes: list[Tensor] = [grads[0]] * program.num_states
        for step, kept in zip(reversed(program.instructions), reversed(ctx.kept), strict=True):
            if isinstance(step, Join):
                left, right = kept
                slope = slopes[step.left].unflatten(-2, (left.shape[-2], right.shape[-2]))
                slopes[step.left] = _gathered((slope * right.conj().unsqueeze(-3)).sum(-2), left)
                slopes[step.right] = _gathered((slope * left.conj().unsqueeze(-2)).sum(-3), right)
                states[step.left], states[step.right] = left, right
            elif isinstance(step, Reorder):
                undo = tuple(int(i) for i in np.argsort(step.order))
                states[step.state] = reorder(states[step.state], undo)
                slopes[step.state] = reorder(slopes[step.state], undo)
            elif isinstance(step, Apply):
                matrix, slope = tensors[step.matrix], slopes[step.state]
                before = kept[0] if kept is not None else apply(matrix.mH, states[step.state], step.before)
                if ctx.needs_input_grad[3 + step.matrix]:
                    found[step.matrix] = _matrix_slope(slope, before, matrix, step.before)
                slopes[step.state] = _gathered(apply(matrix.mH, slope, step.before), before)
                states[step.state] = before
            elif isinstance(step, Shuffle):
                image = cast(Permute, program.permutations[step.permutation]).image
                states[step.state] = states[step.state].index_select(-2, image)
                slopes[step.state] = slopes[step.state].index_select(-2, image)
            else:
                phases, place = cast(StatePhases, program.phases[step.phases]), num_matrices + step.phases
                after, slope, angles = states[step.state], slopes[step.state], tensors[num_matrices + step.phases]
                if ctx.needs_input_grad[3 + place]:
                    found[place] = phases.slopes((slope * after.conj()).imag, angles)
                back = phases.turns(angles, after.dtype).conj()
                before = kept[0] if kept is not None else after * back
                slopes[step.state] = _gathered(slope * back, before)
                states[step.state] = before
        first = num_matrices + num_angles
        for i in range(program.num_states):
            if ctx.needs_input_grad[3 + first + i]:
                found[first + i] = slopes[i]
        return None, None, None, *found


def _matrix_slope(slope: Tensor, state: Tensor, matrix: Tensor, before: int) -> Tensor:
    """Return the gradient of a matrix that was applied to a state."""
    if not matrix.is_complex() and slope.is_complex():
        slope, state = as_real(slope), as_real(state.to(slope.dtype))
    rows, columns = (as_rows(part.to(slope.dtype), before, matrix.shape[-1]) for part in (slope, state))
    columns, rows = torch.broadcast_tensors(columns, rows) if columns.shape != rows.shape else (columns, rows)
    return (rows @ columns.mH).sum(-3).sum_to_size(matrix.shape)


def _read(states: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`|a|^{\odot 2} S`, shape ``(..., B, M)``, for amplitudes as columns, ``(..., R, B)``."""
    moduli = torch.view_as_real(states).square().sum(-1) if states.is_complex() else states.square()
    return signed_sums(moduli, signs)


def _gathered(slope: Tensor, state: Tensor) -> Tensor:
    """Return a gradient in the shape and dtype of its state, which may be real or serve several columns."""
    return (slope if state.is_complex() else slope.real if slope.is_complex() else slope).sum_to_size(state.shape)
