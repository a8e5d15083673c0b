"""The options with which numba compiles loops over numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Sums may be reordered, while NaN and infinity keep their meaning; a division by zero gives those, as in numpy.
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}


def compile_loops(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and cache the machine code on disk where numba can write."""
    try:
        return numba.njit(nogil=True, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, **_OPTIONS)(function)
