"""Loops compiled by numba, for work so small that torch's calls take longer than the arithmetic.

The modules of this folder import numba to compile their loops, so they are imported when loops are first used. Where
numba is missing or cannot be imported, callers use torch's operations, which give the same values and gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.utils._python_dispatch import _get_current_dispatch_mode

from qiskit_qattn.simulation.derivatives import is_traced

# Sums may be reordered, while NaN and infinity keep their meaning; a division by zero gives those, as in numpy.
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}


@cache
def available() -> bool:
    """Return whether numba can be imported; the first call imports it."""
    try:
        import_module("numba")
    except (ImportError, OSError, AttributeError, RuntimeError):  # missing, or built for another numpy or LLVM
        return False
    return True


def takes(tensor: Tensor) -> bool:
    """Return whether loops can read a tensor's memory: a plain one of float32 or float64 on a CPU, with numba.

    Transforms, tracing and dispatch modes record torch's operations, so they exclude loops.
    """
    if type(tensor) not in (Tensor, nn.Parameter):  # a subclass may have no memory of its own
        return False
    if is_traced() or is_tracing() or _get_current_dispatch_mode() is not None:
        return False
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64) and available()


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, and cache the machine code on disk where numba can write."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, **_OPTIONS)(function)
