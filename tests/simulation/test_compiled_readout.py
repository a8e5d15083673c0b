"""The compiled readout computes its formula, and tells which values do not hold."""

import numpy as np
import pytest

from qiskit_qattn.simulation.compiled_readout import read_out

# Heads, parts, outcomes, of the first basis, values: numbers to copy between two kinds of heads and after them.
LAYOUT = np.array([(1, 0, 0, 0, 3), (2, 1, 6, 4, 5), (1, 0, 0, 0, 2), (3, 2, 4, 2, 7), (1, 0, 0, 0, 1)])
RANGE = 1e-30, 1e30


def row_of(seed, rows=3, dtype=np.float64):
    """Return rows to read out, signs and the expected result, kind by kind."""
    rng = np.random.default_rng(seed)
    pieces, signs, expected = [], [], []
    for heads, parts, outcomes, basis, outputs in LAYOUT.tolist():
        if parts == 0:
            pieces.append(rng.normal(size=(rows, outputs)))
            expected.append(pieces[-1])
            continue
        amplitudes, s = rng.normal(size=(rows, parts, heads, outcomes)), rng.normal(size=(heads, outcomes, outputs))
        squares = (amplitudes**2).sum(1)
        values = np.einsum("bhr,hrm->bhm", squares, s) / squares[..., :basis].sum(-1, keepdims=True)
        pieces.append(amplitudes.reshape(rows, parts * heads * outcomes))
        signs.append(s.ravel())
        expected.append(values.reshape(rows, heads * outputs))
    return tuple(np.concatenate(parts, -1).astype(dtype) for parts in (pieces, signs, expected))


@pytest.mark.parametrize("dtype, atol", [(np.float32, 1e-4), (np.float64, 1e-12)])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_rows_of_all_pieces(rows, dtype, atol):
    given, signs, expected = row_of(1, rows, dtype)
    out = np.full_like(expected, np.nan)
    assert read_out(given, LAYOUT, signs, *RANGE, out)
    np.testing.assert_allclose(out, expected, rtol=atol, atol=atol)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1e-16, 1e16])
@pytest.mark.parametrize("head", [0, 2])
def test_a_vector_out_of_range_is_told(head, bad):
    given, signs, expected = row_of(2)
    first = 3 + 2 * 6 + 2 + head * 4
    given[1, first : first + 4] = given[1, first + 12 : first + 16] = bad
    assert not read_out(given, LAYOUT, signs, *RANGE, np.empty_like(expected))
    assert read_out(given[[0, 2]], LAYOUT, signs, *RANGE, np.empty_like(expected[:2]))
