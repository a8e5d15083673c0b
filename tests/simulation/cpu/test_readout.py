"""The compiled loop from amplitudes to values."""

from __future__ import annotations

import numpy as np
import pytest

from qiskit_qattn.simulation.cpu.readout import read_out

HEADS, ROWS, OUTCOMES, BASIS, OUTPUTS = 3, 5, 6, 4, 2


def problem(parts: int, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amplitudes, signs with norms in the last column, and the values by their definition."""
    rng = np.random.default_rng(parts)
    amplitudes = rng.normal(size=(HEADS, ROWS, parts * OUTCOMES)).astype(dtype)
    signs = rng.normal(size=(HEADS, OUTCOMES, OUTPUTS + 1)).astype(dtype)
    signs[..., -1] = np.arange(OUTCOMES) < BASIS
    squares = (amplitudes.reshape(HEADS, ROWS, parts, OUTCOMES).astype(float) ** 2).sum(2)
    sums = squares @ signs.astype(float)
    return amplitudes, signs, sums[..., :-1] / sums[..., -1:]


@pytest.mark.parametrize("dtype, atol", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("parts", [1, 2], ids=["real", "complex"])
def test_values_are_their_definition(parts, dtype, atol):
    amplitudes, signs, expected = problem(parts, dtype)
    values = np.empty_like(expected, dtype=dtype)
    assert read_out(amplitudes, np.empty((HEADS, 0, 0), dtype), signs, values)
    np.testing.assert_allclose(values, expected, atol=atol)


def test_a_matrix_takes_vectors_to_amplitudes():
    amplitudes, signs, expected = problem(2)
    matrix = np.random.default_rng(0).normal(size=(HEADS, 12, 12))
    values = np.empty_like(expected)
    assert read_out(amplitudes @ np.linalg.inv(matrix), matrix, signs, values)
    np.testing.assert_allclose(values, expected, atol=1e-10)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1e-16, 1e16])
@pytest.mark.parametrize("head", [0, 2])
def test_a_vector_out_of_range_is_told(head, bad):
    amplitudes, signs, expected = problem(2)
    amplitudes[head, 1] = bad
    assert not read_out(amplitudes, np.empty((HEADS, 0, 0)), signs, np.empty_like(expected))
