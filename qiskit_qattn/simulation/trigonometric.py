"""A block on few qubits as a product of short trigonometric sums, formed in a handful of torch calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from typing import Any

import numpy as np
import torch
from qiskit.circuit import ParameterExpression
from torch import Tensor

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.derivatives import is_traced, needs_autograd, partial_gradients
from qiskit_qattn.simulation.elementary import Angle, Rotation
from qiskit_qattn.simulation.products import as_real
from qiskit_qattn.simulation.program import LocalStep, MatrixStep, PermuteStep, Step

MAX_QUBITS = 5  # measured against Kronecker products: 3 times as fast at 2 to 4 qubits, 1 to 1.6 at 5, slower at 6
MAX_QUBITS_FEW_CALLS = 6  # where calls cost more than arithmetic; at 7 constants would take 4 MiB a sum in float32
_ZERO = 1e-15  # entries of matrices up to this are rounding
_FACTORS = 4  # rotations multiplied out together: 16 constant matrices a sum
_FACTORS_FEW_CALLS = {6: 4}  # there six, and 64 matrices, but on 6 qubits: 1 MiB a sum
_PAULIS = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}

Group = tuple[list[Angle], dict[tuple[int, ...], np.ndarray]]  # angles, and a matrix for each choice of their signs


class TrigonometricMatrix(ConstantModule):
    r"""The real matrix of a block, between what prepares its input and what measures its output.

    A rotation is :math:`e^{-i\theta P/2} = e^{-i\theta/2}\Pi_+ + e^{i\theta/2}\Pi_-` with the projectors
    :math:`\Pi_\pm = (1 \pm P)/2`. Multiplied out four at a time, or six on a GPU, with all fixed gates between them,

    .. math:: W(\theta) = \prod_g \sum_j \big( \cos\varphi_{gj}\, A_{gj} + \sin\varphi_{gj}\, B_{gj} \big)

    where each φ is half the sum of these angles with signs. So a block costs one cosine and two matrix products a
    group, where Kronecker products take tens of calls, which is what a small block's time goes into. Phases are
    computed in float64 everywhere: they are as few as the weights and cost their calls, and to reduce them for float32
    would take three more.

    Args:
        steps: The steps of the block, in the order they act.
        weight_params: θ, in the order in which their values will be given.
        start: What the block acts on, shape ``(2**n, F)``.
        end: What acts after it, shape ``(R, 2**n)``.
        from_real, last, real: As for :func:`~qiskit_qattn.simulation.products.as_real`.
        few_calls: Whether calls cost more than arithmetic, as on a GPU.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        weight_params: Sequence[Any],
        start: np.ndarray,
        end: np.ndarray,
        *,
        from_real: bool,
        last: bool,
        real: bool,
        few_calls: bool = False,
    ) -> None:
        super().__init__()
        groups = _groups(steps, start, end, _factors(len(start), few_calls))
        angles: list[Angle] = [angle for members, _ in groups for angle in members]
        plain = real and all(np.abs(m.imag).max() < 1e-15 for _, terms in groups for m in terms.values())
        rows: list[np.ndarray] = []
        self.sizes: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        done = 0
        for g, (members, terms) in enumerate(groups):
            constants = []
            for signs in (s for s in product((1, -1), repeat=len(members)) if not s or s[0] == 1):
                row = np.zeros(len(angles) + 1)  # the last column: sin φ = cos(φ − π/2)
                row[done : done + len(members)] = 0.5 * np.array(signs)
                ahead, behind = terms[signs], terms[tuple(-s for s in signs)]
                if not signs:  # no rotation: one constant
                    behind = np.zeros_like(ahead)
                rows += [row, row + np.eye(1, len(row), len(angles))[0]]
                constants += [ahead + behind, -1j * (ahead - behind)]
            options = {
                "from_real": plain or (from_real and g == 0),
                "last": plain or (last and g == len(groups) - 1),
                "real": real,
            }
            stacked = as_real(torch.from_numpy(np.stack(constants)), **options)  # (2 J, F, G)
            self.sizes.append(len(stacked))
            self.shapes.append(tuple(stacked.shape[1:]))
            self.add_constant(f"constants_{g}", stacked.flatten(1).numpy(), double=True)
            done += len(members)
        self.phases = AngleMap([*angles, -math.pi / 2], weight_params, combine=np.stack(rows))
        self.phases.needs_float64 = True

    def forward(self, weights: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrix in ``dtype``, shape ``(..., F, G)``, for weights of shape ``(..., P)``."""
        columns = self.phases.columns(weights)
        if torch.is_grad_enabled() and not is_traced():
            return _Formed.apply(columns, self, dtype)
        return self.form(columns)[0].to(dtype)

    def form(self, columns: Tensor) -> tuple[Tensor, Steps]:
        """Return the matrix in the dtype ``forming``, and what :meth:`gradient` needs of the way there.

        Args:
            columns: What ``phases.columns`` gives for the weights.
        """
        phases = self.phases.combine(columns)
        waves = torch.cos(phases).to(self.forming).split_with_sizes(self.sizes, -1)
        groups = zip(waves, self.constants, self.shapes, strict=True)
        factors = [(wave @ constants).unflatten(-1, shape) for wave, constants, shape in groups]
        products = list(accumulate(factors, torch.matmul))  # of the first 1, 2, … factors
        return products[-1], Steps(phases, factors, products)

    def gradient(self, grad: Tensor, steps: Steps) -> Tensor:
        """Return the gradient of the columns, in float64, for that of the matrix; not differentiable itself."""
        grad = grad.to(self.forming)
        constants = self.constants
        slopes = []
        for g in reversed(range(1, len(constants))):
            slopes.append((steps.products[g - 1].mT @ grad).flatten(-2) @ constants[g].mT)
            grad = grad @ steps.factors[g].mT
        slopes.append(grad.flatten(-2) @ constants[0].mT)
        turns, _ = self.phases.affine
        return torch.sin(steps.phases).neg_().mul_(torch.cat(slopes[::-1], -1)) @ turns.mT

    @cached_property
    def num_multiplications(self) -> int:
        """How many multiplications the compiled loops take to form it."""
        flat, entries, layout = self.arrays
        return len(flat) + int((len(entries) - layout[0, 1]) * layout[0, 2])

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Constants, entries and layout as the compiled loops take them."""
        constants, entries, layout = list[np.ndarray](), list[np.ndarray](), []
        for g, (size, shape) in enumerate(zip(self.sizes, self.shapes, strict=True)):
            dense = self._masters[f"constants_{g}"]
            kept = np.flatnonzero((np.abs(dense) > _ZERO).any(0))
            constants.append(dense[:, kept].ravel())
            entries.append(np.stack(np.unravel_index(kept, shape), -1))
            layout.append((size, len(kept), *shape))
        return np.concatenate(constants), np.concatenate(entries), np.array(layout)

    @property
    def constants(self) -> list[Tensor]:
        """The matrices A and B of each group, flattened, shape ``(2 * J, F * G)``."""
        return [getattr(self, f"constants_{g}") for g in range(len(self.sizes))]


@dataclass(frozen=True)
class Steps:
    """On the way to a matrix: all phases φ, the groups' sums, and the products of the first 1, 2, … of these."""

    phases: Tensor
    factors: list[Tensor]
    products: list[Tensor]


class _Formed(torch.autograd.Function):
    """A matrix as a function of its columns, with the backward pass written out."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, block: TrigonometricMatrix, dtype: torch.dtype) -> Tensor:
        matrix, ctx.steps = block.form(columns)
        ctx.block, ctx.dtype = block, dtype
        ctx.save_for_backward(columns)
        return matrix.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (columns,) = ctx.saved_tensors
        if needs_autograd(grads[0]):
            form = ctx.block.form
            return *partial_gradients(lambda x: form(x)[0].to(ctx.dtype), [columns], [True], grads[0]), None, None
        return ctx.block.gradient(grads[0], ctx.steps).to(columns.dtype), None, None


def _factors(size: int, few_calls: bool) -> int:
    """Return how many rotations of 2ⁿ × 2ⁿ matrices are multiplied out together."""
    return _FACTORS_FEW_CALLS.get(size.bit_length() - 1, 6) if few_calls else _FACTORS


def _groups(steps: Sequence[Step], start: np.ndarray, end: np.ndarray, most: int) -> list[Group]:
    """Multiply out up to so many rotations at a time, each group with the fixed gates around them."""
    identity = np.eye(len(start), dtype=complex)
    groups: list[Group] = []
    angles: list[Angle] = []
    terms = start.astype(complex)[None]  # (2**k, 2**n, ·), one for each choice of signs of k angles
    for gate, angle in _gates(steps, len(start)):
        if angle is None:
            terms = _multiply(gate, terms)
            continue
        if len(angles) == most:
            groups.append((angles, _by_signs(angles, terms)))
            angles, terms = [], identity[None]
        turned = _multiply(gate, terms)
        terms = np.stack([(terms + turned) / 2, (terms - turned) / 2], 1).reshape(-1, *terms.shape[1:])
        angles.append(angle)
    groups.append((angles, _by_signs(angles, end @ terms)))
    return groups


def _by_signs(angles: Sequence[Angle], terms: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    return dict(zip(product((1, -1), repeat=len(angles)), terms, strict=True))


def _multiply(gate: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Return G X for each X, without sums where G has one number a row, as permutations and Pauli strings have."""
    column = np.abs(gate).argmax(1)
    values = gate[np.arange(len(gate)), column]
    if np.count_nonzero(gate) == len(gate):
        return values[:, None] * terms[:, column]
    return gate @ terms


def _gates(steps: Sequence[Step], size: int) -> Iterator[tuple[np.ndarray, Angle | None]]:
    """Yield the matrices of fixed gates, with None, and the Pauli strings of rotations, with their angles."""
    identity = np.eye(size, dtype=complex)
    for step in steps:
        if isinstance(step, PermuteStep):
            yield identity[step.source], None
        elif isinstance(step, MatrixStep):
            order = step.rows()
            whole = np.zeros_like(identity)
            whole[np.ix_(order, order)] = np.kron(step.matrix, np.eye(size // len(step.matrix)))
            yield whole, None
        elif isinstance(step, LocalStep):
            for qubit, chain in enumerate(step.chains):
                for gate in chain:
                    if isinstance(gate, Rotation):
                        yield from _rotation(_embed(_PAULIS[gate.axis], qubit, size), gate.angle)
                    else:
                        yield _embed(gate.matrix, qubit, size), None
        else:
            for angle, coefficients in zip(step.angles, step.coefficients.T, strict=True):
                yield from _rotation(np.diag(-2 * coefficients), angle)  # coefficients are −1/2 times signs


def _rotation(pauli: np.ndarray, angle: Angle) -> Iterator[tuple[np.ndarray, Angle | None]]:
    if isinstance(angle, ParameterExpression):
        yield pauli, angle
    else:
        yield math.cos(angle / 2) * np.eye(len(pauli)) - 1j * math.sin(angle / 2) * pauli, None


def _embed(gate: np.ndarray, qubit: int, size: int) -> np.ndarray:
    """Return a one-qubit gate on all qubits."""
    return np.kron(np.kron(np.eye(size >> (qubit + 1)), gate), np.eye(1 << qubit))
