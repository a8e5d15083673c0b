"""Blocks of data-independent steps as torch modules that act on matrices or batches of columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from qiskit.circuit import ParameterExpression
from torch import Tensor, nn

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.gates import Fixed, Rotation
from qiskit_qattn.simulation.program import LocalStep, PermuteStep, PhaseStep, Step

_GROUP = 5  # qubits whose Kronecker product is formed at once: 32×32 matrices
_GENERATORS = {
    "X": -1j * np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1], [1, 0]], dtype=complex),
    "Z": -1j * np.diag([1.0, -1.0]).astype(complex),
}


class Block(nn.Module):
    r"""Apply the steps of one block, :math:`X \mapsto W(\theta) X`, to columns X.

    Args:
        steps: The steps in the order they act.
        weight_params: The parameters θ, in the order in which their values will be given.
        num_qubits: n.
    """

    def __init__(self, steps: Sequence[Step], weight_params: Sequence[Any], num_qubits: int) -> None:
        super().__init__()
        self.num_qubits = num_qubits
        self.constant = not any(_has_parameters(step) for step in steps)
        locals_ = [step for step in steps if isinstance(step, LocalStep)]
        self.local = _LocalGates(locals_, weight_params, num_qubits) if locals_ else None
        self.operations = nn.ModuleList()
        for step in steps:
            if isinstance(step, PhaseStep):
                self.operations.append(_Phase(step, weight_params))
            elif isinstance(step, PermuteStep):
                self.operations.append(_Permute(step))
            else:
                self.operations.append(_Local(locals_.index(step), num_qubits))

    def forward(self, columns: Tensor, weights: Tensor) -> Tensor:
        """Return W(θ) X, shape ``(..., 2**n, C)``, for X of that shape and weights of shape ``(..., P)``."""
        matrices = self.local(weights) if self.local is not None else []
        for operation in self.operations:
            columns = operation(columns, weights, matrices)
        return columns


class _LocalGates(ConstantModule):
    """All one-qubit gates of a block at once, as Kronecker products over groups of qubits."""

    index: Tensor

    def __init__(self, steps: Sequence[LocalStep], weight_params: Sequence[Any], num_qubits: int) -> None:
        super().__init__()
        rotations = [g for step in steps for chain in step.chains for g in chain if isinstance(g, Rotation)]
        fixed = [np.eye(2, dtype=complex)] + [
            g.matrix for s in steps for c in s.chains for g in c if isinstance(g, Fixed)
        ]
        self.angles = AngleMap([r.angle for r in rotations], weight_params) if rotations else None
        longest = max(1, max(len(chain) for step in steps for chain in step.chains))
        index = np.full((longest, len(steps), num_qubits), len(rotations))  # the identity follows the rotations
        next_rotation, next_fixed = 0, len(rotations) + 1
        for s, step in enumerate(steps):
            for q, chain in enumerate(step.chains):
                for depth, gate in enumerate(chain):
                    if isinstance(gate, Rotation):
                        index[depth, s, num_qubits - 1 - q], next_rotation = next_rotation, next_rotation + 1
                    else:
                        index[depth, s, num_qubits - 1 - q], next_fixed = next_fixed, next_fixed + 1
        self.groups = _groups(num_qubits)
        self.longest, self.num_steps, self.num_qubits = longest, len(steps), num_qubits
        self.add_constant("index", index.reshape(-1))
        self.add_constant("fixed", np.stack(fixed), double=True)  # (F, 2, 2)
        if rotations:
            generators = np.stack([_GENERATORS[r.axis] for r in rotations])  # (K, 2, 2)
            self.add_constant("generators", generators, double=True)

    def forward(self, weights: Tensor) -> list[list[Tensor]]:
        """Return, for each step, one matrix ``(..., 2**g, 2**g)`` a group of g qubits, most significant first."""
        gates = self.complex_constant("fixed")
        if self.angles is not None:
            half = (self.angles(weights) / 2)[..., None, None]  # (..., K, 1, 1)
            identity, generators = gates[0], self.complex_constant("generators")
            rotations = torch.cos(half) * identity + torch.sin(half) * generators  # (..., K, 2, 2)
            gates = torch.cat([rotations, gates.expand(*rotations.shape[:-3], *gates.shape)], -3)
        shape = (*gates.shape[:-3], self.longest, self.num_steps, self.num_qubits, 2, 2)
        chains = gates.index_select(-3, self.index).reshape(shape)
        product = chains[..., 0, :, :, :, :]  # (..., steps, n, 2, 2)
        for depth in range(1, self.longest):
            product = chains[..., depth, :, :, :, :] @ product
        groups = [_kronecker(product[..., start:stop, :, :]) for start, stop in self.groups]
        return [[group[..., step, :, :] for group in groups] for step in range(self.num_steps)]


class _Local(nn.Module):
    """One layer of one-qubit gates."""

    def __init__(self, step: int, num_qubits: int) -> None:
        super().__init__()
        self.step, self.groups, self.num_qubits = step, _groups(num_qubits), num_qubits

    def forward(self, columns: Tensor, weights: Tensor, matrices: list[list[Tensor]]) -> Tensor:
        size, count = columns.shape[-2:]
        for (start, stop), matrix in zip(self.groups, matrices[self.step], strict=True):
            matrix = matrix.to(columns.dtype)
            if len(self.groups) == 1:
                return matrix @ columns
            # qubits above the group, the group, qubits below it and the columns
            split = columns.reshape(*columns.shape[:-2], 2**start, 2 ** (stop - start), -1)
            columns = matrix.unsqueeze(-3) @ split
            columns = columns.reshape(*columns.shape[:-3], size, count)
        return columns


class _Phase(nn.Module):
    """A diagonal step."""

    def __init__(self, step: PhaseStep, weight_params: Sequence[Any]) -> None:
        super().__init__()
        self.phases = AngleMap(step.angles, weight_params, combine=step.coefficients)

    def forward(self, columns: Tensor, weights: Tensor, matrices: list[list[Tensor]]) -> Tensor:
        phases = self.phases(weights)[..., None]  # (..., 2**n, 1)
        return torch.complex(torch.cos(phases), torch.sin(phases)).to(columns.dtype) * columns


class _Permute(ConstantModule):
    """A permutation of basis states."""

    source: Tensor

    def __init__(self, step: PermuteStep) -> None:
        super().__init__()
        self.add_constant("source", step.source)

    def forward(self, columns: Tensor, weights: Tensor, matrices: list[list[Tensor]]) -> Tensor:
        return columns.index_select(-2, self.source)


def _has_parameters(step: Step) -> bool:
    """Tell whether a step depends on weights."""
    if isinstance(step, LocalStep):
        angles = [gate.angle for chain in step.chains for gate in chain if isinstance(gate, Rotation)]
    else:
        angles = list(step.angles) if isinstance(step, PhaseStep) else []
    return any(isinstance(angle, ParameterExpression) for angle in angles)


def _groups(num_qubits: int) -> list[tuple[int, int]]:
    """Split the qubits, most significant first, into few ranges of nearly equal length."""
    count = -(-num_qubits // _GROUP)
    edges = [round(i * num_qubits / count) for i in range(count + 1)]
    return list(pairwise(edges))


def _kronecker(factors: Tensor) -> Tensor:
    """Return the Kronecker product over axis −3 of ``(..., g, 2, 2)``, pairwise: log₂ g multiplications."""
    matrices = list(factors.unbind(-3))
    while len(matrices) > 1:
        pairs = []
        for a, b in zip(matrices[0::2], matrices[1::2], strict=False):
            product = a[..., :, None, :, None] * b[..., None, :, None, :]
            pairs.append(product.reshape(*product.shape[:-4], *(a.shape[-2] * b.shape[-2],) * 2))
        matrices = pairs + matrices[len(pairs) * 2 :]
    return matrices[0]
