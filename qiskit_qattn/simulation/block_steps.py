"""The steps of fused blocks as torch modules, and how matrices act on some of the qubits of a batch of states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.block_schedule import Layout
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.elementary import Permutation, Unitary, moved
from qiskit_qattn.simulation.gate_fusion import Cluster, Phases
from qiskit_qattn.simulation.gatewise import inputs_and_weights
from qiskit_qattn.simulation.operators import Block, Permute
from qiskit_qattn.simulation.plan import Plan
from qiskit_qattn.simulation.program import MatrixStep, PermuteStep, build_program, permuted


class StatePhases(ConstantModule):
    r"""Diagonal rotations of a state by the phases :math:`\Phi_i = -\tfrac12 \sum_k s_{ik} \theta_k`.

    Signs are products, :math:`s_{ik} = s'_{hk} s''_{lk}` of the halves h and l of the bits of i, so that they take the
    memory of a few columns of :math:`2^{n/2}` numbers and not of the state.

    Args:
        phases: The rotations, all on qubits of the state.
        layout: The state's qubits.
        plan: What is computed.
    """

    high: Tensor
    low: Tensor
    qubit: Tensor
    rest: Tensor

    def __init__(self, phases: Phases, layout: Layout, plan: Plan) -> None:
        super().__init__()
        self.of_data, self.mixed = phases.of_data, plan.mixed
        self.map = AngleMap(phases.angles, plan.phase_params if phases.of_data else plan.weight_params)
        width = len(layout)
        axes = [tuple(layout.index(q) for q in qubits) for qubits in phases.sets]
        masks = np.array([sum(1 << (width - 1 - axis) for axis in own) for own in axes])
        lower = width // 2
        self.add_constant("high", _parities(width - lower, masks >> lower))  # (2**h, K)
        self.add_constant("low", _parities(lower, masks & ((1 << lower) - 1)).T[..., None])  # (K, 2**l, 1)
        single = np.array([len(own) == 1 for own in axes])
        self.alone, self.together = bool(single.any()), not single.all()
        self.add_constant(
            "qubit", np.array([[0.5 * (own == (axis,)) for own in axes] for axis in range(width)])
        )  # (k, K)
        self.add_constant("rest", np.flatnonzero(~single))

    def angles(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return θ as columns, shape ``(..., K, B)``, or ``(..., K, 1)`` where they depend on no data."""
        if not self.of_data:
            return self.map(weights).unsqueeze(-1)
        return self.map(inputs_and_weights(inputs, weights) if self.mixed else inputs).mT

    def turns(self, angles: Tensor, dtype: torch.dtype) -> Tensor:
        r"""Return :math:`e^{i \Phi}` for angles of shape ``(..., K, B)``, shape ``(..., 2**k, B)``.

        Rotations of single qubits are a product state of phases, which takes a cosine and a sine for each qubit only.
        Both halves of its qubits are multiplied out before they are rounded to the dtype.
        """
        dtype = torch.promote_types(dtype, torch.complex64)
        found: Tensor | None = None
        if self.alone:
            half = self.qubit.to(angles.dtype) @ angles  # (..., k, B)
            pairs = _unit(torch.stack([-half, half], -2)).unbind(-3)  # k of (..., 2, B)
            cut = (len(pairs) + 1) // 2
            found = reduce(join, [reduce(join, part).to(dtype) for part in (pairs[:cut], pairs[cut:]) if part])
        if self.together:
            others = _unit(self._phases(angles)).to(dtype)
            found = others if found is None else found * others
        assert found is not None
        return found

    def _phases(self, angles: Tensor) -> Tensor:
        """Return Φ of the rotations of several qubits, shape ``(..., 2**k, B)``."""
        high, low = (c.index_select(d, self.rest).to(angles.dtype) for c, d in ((self.high, 1), (self.low, 0)))
        terms = low * (-0.5 * angles.index_select(-2, self.rest)).unsqueeze(-2)  # (..., K, 2**l, B)
        return (high @ terms.flatten(-2)).unflatten(-1, terms.shape[-2:]).flatten(-3, -2)

    def slopes(self, slope: Tensor, angles: Tensor) -> Tensor:
        """Return the gradient of the angles for that of the phases, ``(..., 2**k, B)``."""
        low = self.low.to(slope.dtype)
        split = slope.unflatten(-2, (-1, low.shape[-2])).flatten(-2)  # (..., 2**h, 2**l * B)
        terms = (self.high.to(slope.dtype).mT @ split).unflatten(-1, (low.shape[-2], -1))  # (..., K, 2**l, B)
        return -0.5 * (low * terms).sum(-2).sum_to_size(angles.shape).to(angles.dtype)


class FixedBlock(ConstantModule):
    """The matrix of a block without parameters."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__()
        self.add_constant("matrix", matrix, double=True)  # (2**k, 2**k)


def _parities(width: int, masks: np.ndarray) -> np.ndarray:
    """Return the eigenvalues ±1 of Z on the bits of each mask, for all numbers of so many bits, ``(2**width, K)``."""
    return 1.0 - 2.0 * (np.bitwise_count(np.arange(2**width)[:, None] & masks) & 1)


def _unit(phases: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(phases), phases)


def block_of(cluster: Cluster, layout: Layout, weight_params: Sequence[Any]) -> Block | FixedBlock:
    """Return a cluster's operations as a block whose matrix acts on qubits in the order of a layout."""
    operations = [moved(op, _positions(layout)) for op in cluster.operations]
    if isinstance(operations[0], Unitary) and not operations[1:]:
        order = MatrixStep(operations[0].qubits, operations[0].matrix, len(layout)).rows().argsort()
        return FixedBlock(operations[0].matrix[np.ix_(order, order)])
    (steps,) = build_program(operations, len(layout), ()).blocks
    block = Block(steps, weight_params, len(layout))
    if not block.fixed:
        return block
    with torch.no_grad():
        return FixedBlock(block.run(None, *block.angles_of(torch.zeros(len(weight_params)))).numpy())


def permutation_of(permutation: Permutation, layout: Layout) -> Permute:
    """Return a permutation of some qubits' basis states as one of those of a layout."""
    moved_there = cast(Permutation, moved(permutation, _positions(layout)))
    return Permute(PermuteStep(np.argsort(permuted(np.arange(2 ** len(layout)), moved_there))))


def _positions(layout: Layout) -> dict[int, int]:
    """Return the bit of a state's index that each qubit is."""
    return {qubit: len(layout) - 1 - i for i, qubit in enumerate(layout)}


def join(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of two states as columns, shape ``(..., 2**(a + b), B)``."""
    return (left.unsqueeze(-2) * right.unsqueeze(-3)).flatten(-3, -2)


def reorder(state: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return a state whose qubits are in another order."""
    lead = state.dim() - 2
    axes = (*range(lead), *(lead + i for i in order), lead + len(order))
    split = state.unflatten(-2, (2,) * len(order))
    return split.permute(axes).flatten(-1 - len(order), -2)


def as_real(state: Tensor) -> Tensor:
    """Return a complex state as a real one of twice as many columns, the real part of each before the imaginary."""
    return torch.view_as_real(state.resolve_conj()).flatten(-2)


def as_rows(state: Tensor, before: int, size: int) -> Tensor:
    """Return a state with ``size`` basis states of some qubits as rows, ``(..., 2**before, size, rest * B)``."""
    return state.unflatten(-2, (2**before, size, -1)).flatten(-2)


def apply(matrix: Tensor, state: Tensor, before: int) -> Tensor:
    """Return a matrix times some of a state's qubits, after ``before`` others; a real matrix acts on both parts."""
    if not matrix.is_complex() and state.is_complex():
        return torch.view_as_complex(apply(matrix, as_real(state), before).unflatten(-1, (-1, 2)))
    split = as_rows(state.to(matrix.dtype), before, matrix.shape[-1])
    product = matrix.unsqueeze(-3) @ split if before else matrix @ split.squeeze(-3)
    lead = product.shape[: -3 if before else -2]
    return product.reshape(*lead, *state.shape[-2:])
