"""Compiled loops where machine code cannot be kept."""

from qiskit_qattn.simulation.cpu import compile_loops


def test_code_that_cannot_be_kept_on_disk_is_compiled_anew():
    namespace: dict = {}
    exec("def twice(x): return 2 * x", namespace)  # numba knows no folder for what has no file
    assert compile_loops(namespace["twice"])(3) == 6
