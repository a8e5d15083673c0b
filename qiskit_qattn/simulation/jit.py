"""Compiling loops over numpy arrays to machine code, and the tensors they can take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.utils._python_dispatch import _get_current_dispatch_mode

from qiskit_qattn.simulation.derivatives import torch_must_see

# Sums may be reordered, while NaN and infinity keep their meaning; a division by zero gives those, as in numpy.
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk where numba finds a place for it."""
    try:
        return numba.njit(nogil=True, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, **_OPTIONS)(function)


def shares_memory(tensor: Tensor) -> bool:
    """Tell whether loops can take a tensor's memory: a plain one of float32 or float64 on a CPU, which nobody watches.

    Transforms, tracing and dispatch modes see what torch computes, and would miss loops.
    """
    if type(tensor) not in (Tensor, nn.Parameter):  # what else behaves as a tensor may have no memory of its own
        return False
    if torch_must_see() or is_tracing() or _get_current_dispatch_mode() is not None:
        return False
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
