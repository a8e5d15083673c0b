"""A noisy circuit on few qubits in few calls, as a GPU needs it: rotations and the noise between them as one sum.

An optimisation of the noisy engine: the plain path takes one step after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.transfer import Channel, PauliRotation, embed, pauli_rotation

MAX_QUBITS = 4  # at 5 the matrices of one rotation would take 12 MB
_LARGEST = 2**20  # numbers in the matrices of a sum: 4 MB
_FACTORS = 5  # rotations of a sum at most: 243 matrices


class TransferSums(ConstantModule):
    r"""Steps on rows of Pauli coefficients, multiplied out a few rotations at a time.

    A rotation's transfer matrix is :math:`D_0 + e^{i\theta} D_1 + e^{-i\theta} D_{-1}`, where :math:`D_{-1} = D_1^*`.
    So k of them, with all channels between, are

    .. math:: T(\theta) = D_0 + 2 \sum_{\epsilon > 0} \big(\cos\varphi_\epsilon\, \mathrm{Re}\,D_\epsilon
              - \sin\varphi_\epsilon\, \mathrm{Im}\,D_\epsilon\big), \qquad
              \varphi_\epsilon = \sum_i \epsilon_i \theta_i

    over one of each pair ±ε in :math:`\{-1, 0, 1\}^k`.

    Args:
        steps: The steps, in the order in which the circuit takes them.
        params: What their angles are functions of, in the order in which values will be given.
        num_qubits: n.
        start: A row that they act on, shape ``(1, 4**n)``; None for any.
        transpose: Whether the transposed matrices act, those of the last step first; angles are of weights alone.
    """

    def __init__(
        self,
        steps: Sequence[PauliRotation | Channel],
        params: Sequence[Any],
        num_qubits: int,
        start: np.ndarray | None = None,
        *,
        transpose: bool = False,
    ) -> None:
        super().__init__()
        steps = list(reversed(steps)) if transpose else list(steps)
        angles = [step.angle for step in steps if isinstance(step, PauliRotation)]
        self.sizes: list[int] = []
        rows: list[np.ndarray] = []
        identity = np.eye(4**num_qubits, dtype=complex)
        terms = (identity if start is None else start.astype(complex))[None]  # (3**k, 4**n or 1, 4**n)
        done = size = 0
        for step in steps:
            if isinstance(step, Channel):
                matrix = embed(step, tuple(range(num_qubits)))
                terms = terms @ (matrix if transpose else matrix.T)
                continue
            later = start is not None and bool(self.sizes)  # where a sum takes 3**k times the memory of the states
            if size == (1 if later else _FACTORS) or (size and 3 * terms.size > _LARGEST):
                rows += self._add(terms, done, size, len(angles))
                terms, done, size = identity[None], done + size, 0
            moved, partner, sign = pauli_rotation(step.label)
            sines = (-sign if transpose else sign) * terms[..., partner]
            turned = (moved * terms - 1j * sines) / 2
            back = (moved * terms + 1j * sines) / 2
            terms = np.stack([(1 - moved) * terms, turned, back], 1).reshape(-1, *terms.shape[1:])
            size += 1
        rows += self._add(terms, done, size, len(angles))
        self.phases = AngleMap([*angles, -math.pi / 2], params, combine=np.stack(rows))
        self.phases.needs_float64 |= transpose  # as few as the weights

    def _add(self, terms: np.ndarray, done: int, size: int, count: int) -> list[np.ndarray]:
        """Store the matrices of a sum, and return its phases as combinations of all angles and −π/2."""
        rows, matrices = [], []
        for term, signs in zip(terms, product((0, 1, -1), repeat=size), strict=True):
            row = np.zeros(count + 1)
            row[done : done + size] = signs
            first = next((s for s in signs if s), 0)
            if first == 0:  # cos 0
                rows.append(row)
                matrices.append(term.real)
            elif first > 0:
                rows += [row, row + np.eye(1, count + 1, count)[0]]  # sin φ = cos(φ − π/2)
                matrices += [2 * term.real, -2 * term.imag]
        self.add_constant(f"matrices_{len(self.sizes)}", np.concatenate(matrices))  # (3**k * ·, 4**n)
        self.sizes.append(len(rows))
        return rows

    def forward(self, rows: Tensor | None, params: Tensor) -> Tensor:
        """Return the rows after all steps, shape ``(..., B, 4**n)``.

        Args:
            rows: Shape ``(..., B, 4**n)``; None for the row they start from.
            params: Values of the parameters, shape ``(..., B, P)`` or ``(..., 1, P)``.
        """
        dtype = self.constant("matrices_0").dtype
        waves = torch.cos(self.phases(params)).to(dtype).split_with_sizes(self.sizes, -1)  # each (..., B, 3**k)
        for g, wave in enumerate(waves):
            if rows is not None:
                wave = (wave.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(-2)  # (..., B, 3**k * 4**n)
            rows = wave @ self.constant(f"matrices_{g}")
        assert rows is not None
        return rows
