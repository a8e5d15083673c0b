"""The phase product of torch's CPU tensors by compiled loops, large batches on several threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, reduce
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.cpu import phase_loops, trigonometric
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix

T = TypeVar("T")

_SHARE = 2e6  # multiplications that are worth a thread: less takes about as long as waking one

Product = tuple[AngleMap, TrigonometricMatrix | None, bool]  # simulation.phase_product.PhaseProduct


def evaluate(
    product: Product, columns: Tensor, source: Tensor, signs: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Any]:
    """Return values ``(..., B, M)``, tensors to save (none), and what else :func:`gradients` needs.

    Args:
        product: What is fixed.
        columns: What ``angles.columns`` gave for the data, shape ``(..., B, K)``.
        source: The matrix, or with a ``block`` what its ``phases.columns`` gave for the weights.
        signs: As for ``phase_product``.
    """
    angles, block, split = product
    axes = 2 if block is None else 1
    lead: tuple[int, ...] = ()
    if columns.ndim > 2 or source.ndim > axes or signs.ndim > 2:
        lead = torch.broadcast_shapes(columns.shape[:-2], source.shape[:-axes], signs.shape[:-2])
    x, s = _array(columns, 2, lead), _array(signs, 2, lead)
    steps: tuple[np.ndarray, ...] = ()
    if block is None:
        matrix = _array(source, 2, lead).astype(np.float32, copy=False)
    else:
        formed, steps = trigonometric.form_matrix(block, _array(source, 1, lead))
        matrix = formed.astype(np.float32, order="C")
    heads = math.prod(lead)
    shares = _shares(x.shape[1], heads * matrix.shape[1] * matrix.shape[2] // (2 if split else 1))
    found = _each(lambda rows: phase_loops.evaluate(_rows(x, rows), *angles.arrays, matrix, s, split, heads), shares)
    trace = s, matrix, shares, [steps_of_share for _, *steps_of_share in found], steps
    return _tensor(_joined([values for values, _, _ in found]), lead), (), trace


def gradients(
    product: Product, grad: Tensor, signs: Tensor, tensors: Sequence[Tensor], trace: Any, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of columns and source, with the leading axes of the values, from that of the values."""
    (angles, block, split), (s, matrix, shares, states, steps), lead = product, trace, grad.shape[:-2]
    g, turns = _array(grad, 2, lead), angles.arrays[0]
    found = _each(
        lambda rows, state: phase_loops.gradients(_rows(g, rows), turns, matrix, s, split, *state, *needed),
        shares,
        states,
    )
    of_columns, of_source = _joined([first for first, _ in found]), reduce(np.add, [second for _, second in found])
    if block is not None and needed[1]:
        of_source = trigonometric.matrix_gradient(block, of_source, steps)
    return _tensor(of_columns, lead) if needed[0] else None, _tensor(of_source, lead) if needed[1] else None


def _shares(rows: int, row: int) -> list[slice]:
    """Cut rows of so many multiplications each into one share a thread, where they are enough for several."""
    count = int(rows * row / _SHARE)
    if count < 2:
        return [slice(rows)]
    count = min(torch.get_num_threads(), count)
    bounds = [rows * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def _each(call: Callable[..., T], *lists: Sequence[Any]) -> list[T]:
    """Call for all shares at once; the loops do without the interpreter's lock."""
    if len(lists[0]) == 1:
        return [call(*[items[0] for items in lists])]
    return list(_pool(os.getpid()).map(call, *lists))


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the pool of this process: one that was forked off has none of the threads of its parent."""
    return ThreadPoolExecutor(thread_name_prefix="qattn-loops")  # threads start as needed


def _rows(array: np.ndarray, rows: slice) -> np.ndarray:
    return np.ascontiguousarray(array[:, rows])


def _joined(shares: list[np.ndarray]) -> np.ndarray:
    return shares[0] if len(shares) == 1 else np.concatenate(shares, 1)


def _array(tensor: Tensor, axes: int, lead: tuple[int, ...]) -> np.ndarray:
    """Return a tensor's memory, or a copy where need be, contiguous and with one leading axis of all heads, or 1."""
    array = np.ascontiguousarray(tensor.numpy(force=True))
    if array.ndim == axes:
        return array[None]
    own = array.shape[array.ndim - axes :]
    return np.ascontiguousarray(np.broadcast_to(array, (*lead, *own))).reshape(math.prod(lead), *own)


def _tensor(array: np.ndarray, lead: tuple[int, ...]) -> Tensor:
    """Return an array with its heads along the leading axes."""
    return torch.from_numpy(array.reshape(*lead, *array.shape[1:]))
