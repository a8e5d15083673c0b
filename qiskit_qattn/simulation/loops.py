"""The phase product on torch's CPU tensors by compiled loops, where these are faster than torch's calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.simulation import compiled
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix

_KNOWN = (torch.float32, torch.float64)  # to numpy
_MOST_WORK = 3e6  # multiplications forward; measured: about there torch's products on two threads catch up


def suit(
    columns: Tensor,
    angles: AngleMap,
    source: Tensor,
    signs: Tensor,
    block: TrigonometricMatrix | None,
    apart: bool,
) -> bool:
    """Tell whether loops are faster: little work, in float32, on a CPU; arguments as for :func:`evaluate`."""
    if signs.dtype != torch.float32 or columns.device.type != "cpu":
        return False
    if columns.dtype not in _KNOWN or source.dtype not in _KNOWN:
        return False
    if type(columns) not in (Tensor, nn.Parameter):  # what else behaves as a tensor may have no memory of its own
        return False
    if block is None:
        heads, width, forming = source.shape[:-2], source.shape[-1], 0
    else:  # which is formed in float64
        heads, width, forming = source.shape[:-1], block.shapes[-1][-1], 2 * block.num_multiplications
    row = (1 if apart else 2) * angles.num_angles * width
    count = max(math.prod(heads), math.prod(columns.shape[:-2]))
    return count * (columns.shape[-2] * row + forming) <= _MOST_WORK


def evaluate(
    columns: Tensor, angles: AngleMap, source: Tensor, signs: Tensor, block: TrigonometricMatrix | None, apart: bool
) -> tuple[Tensor, tuple[Tensor, ...], Any]:
    """Return values ``(..., B, M)``, tensors to save (none), and what else :func:`slopes` needs.

    Args:
        columns: What ``angles.columns`` gave for the data, shape ``(..., B, K)``.
        angles: The map to the phases.
        source: The matrix, or with a ``block`` what its ``phases.columns`` gave for the weights.
        signs: As for ``phase_product``.
        block: Likewise.
        apart: Likewise.
    """
    axes = 2 if block is None else 1
    lead: tuple[int, ...] = ()
    if columns.ndim > 2 or source.ndim > axes or signs.ndim > 2:
        lead = torch.broadcast_shapes(columns.shape[:-2], source.shape[:-axes], signs.shape[:-2])
    x, s = _array(columns, 2, lead, np.float64), _array(signs, 2, lead)
    steps: tuple[np.ndarray, ...] = ()
    if block is None:
        matrix = _array(source, 2, lead)
    else:
        matrix, *steps = compiled.form(_array(source, 1, lead, np.float64), *block.phases.arrays, *block.arrays)
    values, features, amplitudes = compiled.evaluate(x, *angles.arrays, matrix, s, apart, math.prod(lead))
    return _tensor(values, lead), (), (s, matrix, features, amplitudes, steps)


def slopes(
    grad: Tensor,
    angles: AngleMap,
    signs: Tensor,
    tensors: tuple[Tensor, ...],
    trace: Any,
    block: TrigonometricMatrix | None,
    apart: bool,
    wants_columns: bool,
    wants_source: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of columns and source, with the leading axes of the values, for that of the values."""
    (s, matrix, features, amplitudes, steps), lead = trace, grad.shape[:-2]
    of_columns, of_source = compiled.slopes(
        _array(grad, 2, lead), angles.arrays[0], matrix, s, apart, features, amplitudes, wants_columns, wants_source
    )
    if block is not None and wants_source:
        of_source = compiled.form_slope(of_source, block.phases.arrays[0], *block.arrays, *steps)
    return _tensor(of_columns, lead) if wants_columns else None, _tensor(of_source, lead) if wants_source else None


def _array(tensor: Tensor, axes: int, lead: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Return a tensor's memory, or a copy where need be, contiguous and with one leading axis of all heads, or 1."""
    array = np.ascontiguousarray(tensor.detach().numpy(), dtype)
    if array.ndim == axes:
        return array[None]
    own = array.shape[array.ndim - axes :]
    return np.ascontiguousarray(np.broadcast_to(array, (*lead, *own))).reshape(math.prod(lead), *own)


def _tensor(array: np.ndarray, lead: tuple[int, ...]) -> Tensor:
    """Return an array with its heads along the leading axes."""
    return torch.from_numpy(array.reshape(*lead, *array.shape[1:]))
