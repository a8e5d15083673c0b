"""Tasks run once on each of torch's threads, and are given what was passed."""

from __future__ import annotations

import os
import signal
import warnings

import numpy as np
import pytest
import torch
from numba import carray

from qiskit_qattn.simulation import threads

needs_threads = pytest.mark.skipif(not threads.are_available(), reason="loops run on torch's threads on Linux only")


def _scale(pointers):
    """Multiply each thread's share of numbers by one factor, and write how many they were."""
    threads_here = threads.thread_count()
    words = carray(pointers[0], 4 + threads_here, np.int64)
    numbers = carray(pointers[1], words[2], np.float64)
    share = threads.thread_number()
    first, last = words[2] * share // threads_here, words[2] * (share + 1) // threads_here
    for i in range(first, last):
        numbers[i] *= words[3]
    words[4 + share] = last - first


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_threads
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_thread_takes_its_share(count, set_threads):
    set_threads(count)
    numbers = np.arange(13.0)
    wrote = threads.run(_scale, [numbers.ctypes.data, 13, 3])
    np.testing.assert_array_equal(numbers, 3.0 * np.arange(13))
    assert len(wrote) == count and sum(wrote) == 13 and max(wrote) - min(wrote) <= 1


@needs_threads
def test_threads_are_torchs_own(set_threads):
    set_threads(2)
    numbers = np.ones(8)
    threads._address(_scale)  # compiling starts threads of its own
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)  # and this those of torch
    tasks = len(os.listdir("/proc/self/task"))
    threads.run(_scale, [numbers.ctypes.data, 8, 2])
    assert numbers.tolist() == [2.0] * 8
    assert len(os.listdir("/proc/self/task")) == tasks


@needs_threads
def test_a_forked_process_with_one_thread_runs_tasks(set_threads):
    set_threads(2)
    numbers = np.arange(5.0)
    threads.run(_scale, [numbers.ctypes.data, 5, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which is what is tried here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)  # if it hangs
            torch.set_num_threads(1)  # as torch's data loaders do
            status = 0 if threads.run(_scale, [numbers.ctypes.data, 5, 7]) == [5] and numbers[4] == 28 else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_openmp_there_are_none(monkeypatch):
    threads._openmp.cache_clear()
    monkeypatch.setattr(torch.backends.openmp, "is_available", lambda: False)
    assert not threads.are_available()
    monkeypatch.undo()
    threads._openmp.cache_clear()
