"""Compiling loops over numpy arrays to machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

_FAST = {"reassoc", "contract", "nsz"}  # sums may be reordered; NaN and infinity keep their meaning


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk where numba finds a place for it."""
    try:
        return numba.njit(nogil=True, fastmath=_FAST, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, fastmath=_FAST)(function)
