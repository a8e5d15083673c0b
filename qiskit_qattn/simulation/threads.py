"""Compiled loops on the threads of torch's own operations.

After each operation those keep their cores busy for a while, in case another one follows, and threads of any other
pool wait for a core meanwhile. In an inference of the ``qisa`` preset, heads read out on Python's threads took longer
than on one core; here they take half as long.
A forked process can use them as far as it can use torch: on one thread, if its parent had started others.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import types

from qiskit_qattn.simulation.jit import compile_callback

Task = Callable[[Any], None]

# For tasks: which of how many threads runs this.
thread_number: Any = types.ExternalFunction("omp_get_thread_num", types.int32())
thread_count: Any = types.ExternalFunction("omp_get_num_threads", types.int32())


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library that torch brought, if it has GNU's entry to a parallel region; on Linux only."""
    if sys.platform != "linux" or not torch.backends.openmp.is_available():
        return None
    library = ctypes.CDLL(None)  # this process, in which torch makes that library's names known
    names = "GOMP_parallel", thread_number.symbol, thread_count.symbol
    return library if all(hasattr(library, name) for name in names) else None


def are_available() -> bool:
    """Tell whether :func:`run` can be called."""
    return _openmp() is not None


@cache
def _address(task: Task) -> ctypes.c_void_p:
    return ctypes.c_void_p(compile_callback(types.void(types.CPointer(types.voidptr)), task).address)


def run(task: Task, words: Sequence[int]) -> list[int]:
    """Run a task on each of torch's threads at once, as many as ``torch.get_num_threads()``.

    Args:
        task: A function that numba can compile, of a pointer to words of 64 bits: the address of the first of them,
            those given here, and then one for each thread, 0 until the task writes to it.
        words: Addresses, of memory that stays until this returns, and integers.

    Returns:
        What each thread wrote.
    """
    library, threads = _openmp(), torch.get_num_threads()
    assert library is not None
    block = np.array([0, *words, *[0] * threads], np.int64)
    block[0] = block.ctypes.data
    library.GOMP_parallel(_address(task), ctypes.c_void_p(int(block[0])), threads, 0)
    return block[-threads:].tolist()
