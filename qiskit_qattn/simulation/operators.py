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
from qiskit_qattn.simulation.elementary import Rotation
from qiskit_qattn.simulation.program import LocalStep, MatrixStep, PermuteStep, PhaseStep, Step

_GROUP = 5  # qubits per Kronecker product: 32×32 matrices
_GENERATORS = {
    "X": -1j * np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1], [1, 0]], dtype=complex),
    "Z": -1j * np.diag([1.0, -1.0]).astype(complex),
}
Matrices = list[Tensor]  # one per group of qubits, the most significant first


class Block(ConstantModule):
    r"""Apply the steps of one block, :math:`X \mapsto W(\theta) X`, to columns X.

    Args:
        steps: The steps in the order they act.
        weight_params: The parameters θ, in the order in which their values will be given.
        num_qubits: n.
    """

    def __init__(self, steps: Sequence[Step], weight_params: Sequence[Any], num_qubits: int) -> None:
        super().__init__()
        self.num_qubits = num_qubits
        self.fixed = not any(_has_parameters(step) for step in steps)
        locals_ = [step for step in steps if isinstance(step, LocalStep)]
        self.gates = LocalGates(locals_, num_qubits) if locals_ else None
        rotations = self.gates.rotations if self.gates is not None else ()
        self.angles = AngleMap([rotation.angle for rotation in rotations], weight_params) if rotations else None
        if self.angles is not None:
            self.angles.needs_float64 = True  # as the gates
        self.operations = nn.ModuleList()
        for step in steps:
            if isinstance(step, PhaseStep):
                self.operations.append(Phase(step, weight_params))
            elif isinstance(step, PermuteStep):
                self.operations.append(Permute(step))
            elif isinstance(step, MatrixStep):
                self.operations.append(Matrix(step))
            else:
                self.operations.append(Local(locals_.index(step), num_qubits))

    def forward(self, columns: Tensor, weights: Tensor) -> Tensor:
        """Return W(θ) X, shape ``(..., 2**n, C)``, for X of that shape and weights of shape ``(..., P)``."""
        return self.run(columns, *self.angles_of(weights))

    def angles_of(self, weights: Tensor) -> list[Tensor]:
        """Return the angles of all rotations, shape ``(..., K)``, then the phases of each diagonal step."""
        first = self.angles(weights) if self.angles is not None else weights[..., :0].to(self.forming)
        return [first, *(op.phases(weights) for op in self.operations if isinstance(op, Phase))]

    def run(self, columns: Tensor | None, angles: Tensor, *phases: Tensor) -> Tensor:
        """Return W X for given angles and phases; None stands for the identity."""
        matrices = self.gates(self.gates.chains(angles)[-1]) if self.gates is not None else []
        following = iter(phases)
        if columns is None and not starts_with_matrix(self):
            columns = self.identity(angles.device)
        for operation in self.operations:
            if isinstance(operation, Phase):
                columns = operation(columns, next(following))
            elif isinstance(operation, Local):
                columns = operation(columns, matrices[operation.step])
            else:
                columns = operation(columns)
        assert columns is not None
        return columns

    def identity(self, device: torch.device) -> Tensor:
        """Return the unit matrix of the block's size."""
        return torch.eye(2**self.num_qubits, dtype=self.forming, device=device)


class LocalGates(ConstantModule):
    """The one-qubit gates of all layers of a block at once, and their products over few qubits, in float64.

    Those are small everywhere; rounded as 2 × 2 matrices, gates would miss unit norms by 10⁻⁷ each. Qubits are counted
    from the most significant. ``slots`` says, for each rotation, its position among all (depth in its chain, layer,
    qubit); other positions are fixed gates or the identity.
    """

    index: Tensor
    slots: Tensor
    needs_float64 = True

    def __init__(self, steps: Sequence[LocalStep], num_qubits: int) -> None:
        super().__init__()
        longest = max(1, max(len(chain) for step in steps for chain in step.chains))
        self.shape: tuple[int, ...] = (longest, len(steps), num_qubits)
        self.ranges = qubit_groups(num_qubits)
        rotations: list[Rotation] = []
        fixed: list[np.ndarray] = [np.eye(2, dtype=complex)]
        index: np.ndarray = np.zeros(self.shape, dtype=int)  # −1 − k: rotation k; else a fixed gate, 0 the identity
        for s, step in enumerate(steps):
            for q, chain in enumerate(step.chains):
                for depth, gate in enumerate(chain):
                    position = (depth, s, num_qubits - 1 - q)
                    if isinstance(gate, Rotation):
                        rotations.append(gate)
                        index[position] = -len(rotations)
                    else:
                        fixed.append(gate.matrix)
                        index[position] = len(fixed) - 1
        self.rotations = tuple(rotations)
        generators = np.zeros((*self.shape, 2, 2), dtype=complex)
        slots = np.zeros(len(rotations), dtype=int)
        for depth, step_number, qubit in np.argwhere(index < 0):
            k = -1 - index[depth, step_number, qubit]
            generators[depth, step_number, qubit] = _GENERATORS[rotations[k].axis]
            slots[k] = np.ravel_multi_index((depth, step_number, qubit), self.shape)
        index = np.where(index < 0, -1 - index, len(rotations) + index)  # rotations first, then fixed gates
        for width in {stop - start for start, stop in self.ranges}:
            self.add_constant(f"tracer_{width}", _tracer(width), double=True)
        self.add_constant("index", index.reshape(-1))
        self.add_constant("slots", slots)
        self.add_constant("fixed", np.stack(fixed), double=True)  # (F, 2, 2)
        self.add_constant("generators", generators, double=True)  # (depth, S, n, 2, 2)
        self.add_constant("axes", generators.reshape(-1, 2, 2)[slots], double=True)  # (K, 2, 2)

    def chains(self, angles: Tensor) -> list[Tensor]:
        """Return products of the first 1, 2, … gates of every chain, each of shape ``(..., S, n, 2, 2)``."""
        gates = self.constant("fixed")
        if self.rotations:
            half = (angles * 0.5)[..., None, None]  # (..., K, 1, 1)
            rotations = torch.cos(half) * gates[0] + torch.sin(half) * self.constant("axes")
            gates = torch.cat([rotations, gates.expand(*rotations.shape[:-3], *gates.shape)], -3)
        arranged = gates.index_select(-3, self.index).unflatten(-3, self.shape)
        products = [arranged[..., 0, :, :, :, :]]
        for depth in range(1, self.shape[0]):
            products.append(arranged[..., depth, :, :, :, :] @ products[-1])
        return products

    def forward(self, products: Tensor) -> list[Matrices]:
        """Return, for each layer, the Kronecker products over groups of qubits, each ``(..., 2**g, 2**g)``."""
        groups = [kronecker(products[..., start:stop, :, :]) for start, stop in self.ranges]
        return [[group[..., step, :, :] for group in groups] for step in range(self.shape[1])]

    def partial_traces(self, matrices: Tensor) -> Tensor:
        """Return, for each qubit, the trace over all others of ``(..., 2**n, 2**n)``, shape ``(..., n, 2, 2)``."""
        size = matrices.shape[-1]
        traces = []
        for (start, stop), tracer in zip(self.ranges, self._tracers(), strict=True):
            width = 2 ** (stop - start)
            if width < size:  # first down to the group
                split = matrices.unflatten(-1, (2**start, width, -1)).unflatten(-4, (2**start, width, -1))
                inner = split.diagonal(0, -6, -3).diagonal(0, -4, -2).sum((-2, -1))  # (..., width, width)
            else:
                inner = matrices
            traces.append(multiply(inner.flatten(-2), tracer).unflatten(-1, (stop - start, 2, 2)))
        return torch.cat(traces, -3)

    def _tracers(self) -> list[Tensor]:
        return [self.constant(f"tracer_{stop - start}") for start, stop in self.ranges]


class Local(nn.Module):
    """A layer of one-qubit gates."""

    def __init__(self, step: int, num_qubits: int) -> None:
        super().__init__()
        self.step, self.ranges = step, qubit_groups(num_qubits)

    def forward(self, columns: Tensor | None, matrices: Matrices) -> Tensor:
        """Return K X, where K is the Kronecker product of ``matrices``; None stands for the identity."""
        if columns is None:
            return matrices[0]
        size, count = columns.shape[-2:]
        if len(matrices) == 1:
            return multiply(matrices[0], columns)
        for (start, stop), matrix in zip(self.ranges, matrices, strict=True):
            # qubits above the group, the group, qubits below it and the columns
            split = columns.unflatten(-2, (2**start, 2 ** (stop - start), -1)).flatten(-2)
            columns = multiply(matrix.unsqueeze(-3), split)
            columns = columns.reshape(*columns.shape[:-3], size, count)
        return columns


class Phase(nn.Module):
    """A diagonal step."""

    def __init__(self, step: PhaseStep, weight_params: Sequence[Any]) -> None:
        super().__init__()
        self.phases = AngleMap(step.angles, weight_params, combine=step.coefficients)

    def forward(self, columns: Tensor, phases: Tensor) -> Tensor:
        """Return e^{iφ} X for phases φ of shape ``(..., 2**n)``."""
        turns = torch.polar(torch.ones_like(phases), phases).to(_complex(columns.dtype))
        return turns.unsqueeze(-1) * columns


class Permute(ConstantModule):
    """A permutation of basis states."""

    source: Tensor
    image: Tensor

    def __init__(self, step: PermuteStep) -> None:
        super().__init__()
        self.add_constant("source", step.source)
        self.add_constant("image", np.argsort(step.source))

    def forward(self, columns: Tensor) -> Tensor:
        """Return the permuted rows of X."""
        return columns.index_select(-2, self.source)


class Matrix(ConstantModule):
    """A fixed matrix on some of the qubits."""

    order: Tensor
    back: Tensor

    def __init__(self, step: MatrixStep) -> None:
        super().__init__()
        order = step.rows()
        self.add_constant("order", order)
        self.add_constant("back", np.argsort(order))
        self.add_constant("matrix", step.matrix, double=True)  # (2**k, 2**k)

    def forward(self, columns: Tensor) -> Tensor:
        """Return M X."""
        return self._apply_to(columns, self.constant("matrix"))

    def adjoint(self, columns: Tensor) -> Tensor:
        """Return M† X."""
        return self._apply_to(columns, self.constant("matrix").mH)

    def _apply_to(self, columns: Tensor, matrix: Tensor) -> Tensor:
        rows = columns.index_select(-2, self.order).unflatten(-2, (len(matrix), -1))  # (..., 2**k, 2**(n - k), C)
        found = multiply(matrix, rows.flatten(-2)).unflatten(-1, rows.shape[-2:]).flatten(-3, -2)  # (..., 2**n, C)
        return found.index_select(-2, self.back)


def multiply(matrix: Tensor, columns: Tensor) -> Tensor:
    """Return M X in the precision of X; real if both are, which takes a quarter of the multiplications."""
    dtype = _complex(columns.dtype) if matrix.is_complex() else columns.dtype
    return matrix.to(dtype) @ columns.to(dtype)


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.complex64)


def starts_with_matrix(block: Block) -> bool:
    """Return whether the first step of a block is one matrix, so that it needs no identity to act on."""
    first = next(iter(block.operations), None)
    return isinstance(first, Local) and len(first.ranges) == 1


def kronecker(factors: Tensor) -> Tensor:
    """Return the Kronecker product over axis −3 of ``(..., g, 2, 2)``; neighbours are multiplied all at once."""
    rest: list[Tensor] = []  # factors left over from odd numbers, the most significant first
    while factors.shape[-3] > 1:
        odd = factors.shape[-3] % 2
        if odd:
            rest.append(factors[..., 0, :, :])
        pairs = factors[..., odd:, :, :].unflatten(-3, (-1, 2))
        factors = _outer(pairs[..., 0, :, :], pairs[..., 1, :, :])
    product = factors[..., 0, :, :]
    for factor in reversed(rest):
        product = _outer(factor, product)
    return product


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return the Kronecker products of matrices in the last two axes."""
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1])


def _tracer(num_qubits: int) -> np.ndarray:
    """Return the matrix that takes a flat 2ⁿ×2ⁿ matrix to the traces over all qubits but one, ``(4**n, 4 * n)``."""
    columns = []
    for qubit in range(num_qubits):
        for i, j in np.ndindex(2, 2):
            unit = np.zeros((2, 2))
            unit[i, j] = 1
            left, right = np.eye(2**qubit), np.eye(2 ** (num_qubits - 1 - qubit))
            columns.append(np.kron(np.kron(left, unit), right).reshape(-1))
    return np.stack(columns, 1)


def _has_parameters(step: Step) -> bool:
    """Return whether a step depends on weights."""
    if isinstance(step, LocalStep):
        angles = [gate.angle for chain in step.chains for gate in chain if isinstance(gate, Rotation)]
    else:
        angles = list(step.angles) if isinstance(step, PhaseStep) else []
    return any(isinstance(angle, ParameterExpression) for angle in angles)


def qubit_groups(num_qubits: int) -> list[tuple[int, int]]:
    """Split the qubits, most significant first, into few ranges of nearly equal length."""
    count = -(-num_qubits // _GROUP)
    edges = [round(i * num_qubits / count) for i in range(count + 1)]
    return list(pairwise(edges))
