"""The phase product as compiled loops: for small circuits on a CPU, where torch's calls outlast the arithmetic.

Measured on the 4-qubit circuit of ``benchmarks/``, values and all gradients: 0.21 ms at batch 1024 against 0.57 with
torch, 0.14 ms at batch 64 against 0.48; loops on one core, torch on two. All arrays are C-contiguous. What grows with
the batch is stored in blocks of rows, each with its rows last.
"""

from __future__ import annotations

import math

import numpy as np

from qiskit_qattn.simulation.cpu import compile_loops

Array = np.ndarray

_BLOCK = 256  # rows at a time: with all that is computed of them they stay in the first-level cache
_FAR = 1e6  # radians up to which one float64 subtraction reduces an angle to far below float32's rounding


@compile_loops
def _wave(angle: float) -> tuple[float, float]:
    """Return cos and sin to float32's precision, without a branch, so that loops over it become vector code."""
    quarters = np.rint(angle * (2 / math.pi))
    r = angle - quarters * (math.pi / 2)  # |r| ≤ π/4; Taylor's next terms are below 1e-9
    s = r * r
    sine = r * (1 + s * (-1 / 6 + s * (1 / 120 + s * (-1 / 5040 + s * (1 / 362880 - s / 39916800)))))
    cosine = 1 + s * (-1 / 2 + s * (1 / 24 + s * (-1 / 720 + s * (1 / 40320 - s / 3628800))))
    quarter = np.int64(quarters) & 3
    one, other = (sine, cosine) if quarter & 1 == 0 else (cosine, sine)
    return -other if quarter == 1 or quarter == 2 else other, -one if quarter >= 2 else one


@compile_loops
def _combine(coefficients: Array, given: Array, out: Array, width: int) -> None:
    """Write ``out[j] = Σ_i coefficients[i, j] given[i]`` over the first ``width`` of each row.

    Four terms a pass over ``out``: a fifth less time than one by one, and eight gain nothing more.
    """
    count, size = coefficients.shape
    fours = count - count % 4
    for j in range(size):
        total = out[j]
        total[:width] = 0
        for i in range(0, fours, 4):
            c0, c1, c2, c3 = coefficients[i, j], coefficients[i + 1, j], coefficients[i + 2, j], coefficients[i + 3, j]
            g0, g1, g2, g3 = given[i], given[i + 1], given[i + 2], given[i + 3]
            for b in range(width):
                total[b] += c0 * g0[b] + c1 * g1[b] + c2 * g2[b] + c3 * g3[b]
        for i in range(fours, count):
            c0, g0 = coefficients[i, j], given[i]
            for b in range(width):
                total[b] += c0 * g0[b]


@compile_loops
def _correlate(left: Array, right: Array, out: Array, width: int) -> None:
    """Add ``Σ_b left[i, b] right[j, b]`` to ``out[i, j]`` over the first ``width`` of each row; four at a time too."""
    count = len(right)
    fours = count - count % 4
    for i in range(len(left)):
        x = left[i]
        for j in range(0, fours, 4):
            y0, y1, y2, y3 = right[j], right[j + 1], right[j + 2], right[j + 3]
            t0 = t1 = t2 = t3 = np.float32(0)
            for b in range(width):
                t0 += x[b] * y0[b]
                t1 += x[b] * y1[b]
                t2 += x[b] * y2[b]
                t3 += x[b] * y3[b]
            out[i, j] += t0
            out[i, j + 1] += t1
            out[i, j + 2] += t2
            out[i, j + 3] += t3
        for j in range(fours, count):
            y0, t0 = right[j], np.float32(0)
            for b in range(width):
                t0 += x[b] * y0[b]
            out[i, j] += t0


@compile_loops
def evaluate(
    columns: Array,
    turns: Array,
    offset: Array,
    matrix: Array,
    signs: Array,
    split: bool,
    heads: int,
) -> tuple[Array, Array, Array]:
    r"""Return :math:`|f A|^{\odot 2} S`, shape ``(L, B, M)``, and what :func:`gradients` needs of the way there.

    That is the features :math:`[\cos\varphi, \sin\varphi]`, ``(L, blocks, 2 * U, rows)``, and the amplitudes, all real
    parts and then all imaginary, ``(L, blocks, R or 2 * R, rows)``. L arrays are one after the other, or one is for all
    heads.

    Args:
        columns: x, float32 or float64, shape ``(L or 1, B, K)``.
        turns: C of the phases :math:`\varphi = x C + b`, float64, shape ``(K, U)``.
        offset: b, float64, shape ``(U,)``.
        matrix: A, shape ``(L or 1, 2 * U, R or 2 * R)``, as for ``phase_product``; float32 like all that follow.
        signs: S, shape ``(L or 1, R, M)``.
        split: Whether the halves of A's rows give real and imaginary parts.
        heads: L.
    """
    rows, (inputs, count), (outcomes, outputs) = columns.shape[1], turns.shape, signs.shape[1:]
    size, parts, height = min(_BLOCK, max(rows, 1)), 2 if split else 1, matrix.shape[2]
    blocks, terms = (rows + size - 1) // size, 2 * count // parts
    values = np.empty((heads, rows, outputs), np.float32)
    features = np.empty((heads, blocks, 2 * count, size), np.float32)
    amplitudes = np.empty((heads, blocks, parts * height, size), np.float32)
    x, phases = np.empty((inputs, size)), np.empty((1, size))
    squares = np.empty((outcomes, size), np.float32)
    sums = np.empty((outputs, size))  # in float32, thousands of equal terms would be off by 6e-5
    for head in range(heads):
        a, s, given = matrix[head % len(matrix)], signs[head % len(signs)], columns[head % len(columns)]
        for block in range(blocks):
            feature, amplitude, start = features[head, block], amplitudes[head, block], block * size
            width = min(size, rows - start)
            for k in range(inputs):
                for b in range(width):
                    x[k, b] = given[start + b, k]
            for u in range(count):
                _combine(turns[:, u : u + 1], x, phases, width)
                phase, cosines, sines, largest = phases[0], feature[u], feature[count + u], 0.0
                for b in range(width):
                    phase[b] += offset[u]
                    largest = max(largest, abs(phase[b]))
                if largest < _FAR:
                    for b in range(width):
                        cosines[b], sines[b] = _wave(phase[b])
                else:  # NaN and infinity included
                    for b in range(width):
                        cosines[b], sines[b] = math.cos(phase[b]), math.sin(phase[b])
            for part in range(parts):
                these = slice(part * terms, (part + 1) * terms)
                _combine(a[these], feature[these], amplitude[part * height : (part + 1) * height], width)
            for r in range(outcomes):
                square = squares[r]
                square[:width] = 0
                for each in range(r, parts * height, outcomes):  # its real part, its imaginary part
                    one = amplitude[each]
                    for b in range(width):
                        square[b] += one[b] * one[b]
            _combine(s, squares, sums, width)
            for b in range(width):
                for m in range(outputs):
                    values[head, start + b, m] = sums[m, b]
    return values, features, amplitudes


@compile_loops
def gradients(
    grad: Array,
    turns: Array,
    matrix: Array,
    signs: Array,
    split: bool,
    features: Array,
    amplitudes: Array,
    wants_columns: bool,
    wants_matrix: bool,
) -> tuple[Array, Array]:
    """Return the gradients of the columns, ``(L, B, K)``, and of each head's matrix, for that of the values.

    What is not wanted is left as it is. All float32; the rest is as for :func:`evaluate`.
    """
    heads, rows, outputs = grad.shape
    (inputs, count), (blocks, _, size), outcomes = turns.shape, features.shape[1:], signs.shape[1]
    parts, height = 2 if split else 1, matrix.shape[2]
    terms = 2 * count // parts
    of_columns = np.empty((heads, rows, inputs), np.float32)
    of_matrix = np.zeros((heads, *matrix.shape[1:]), np.float32)
    g, x = np.empty((outputs, size), np.float32), np.empty((inputs, size), np.float32)
    slope, of_amplitude = np.empty((outcomes, size), np.float32), np.empty((parts * height, size), np.float32)
    of_feature, back = np.empty((2 * count, size), np.float32), turns.T.astype(np.float32)
    for head in range(heads):
        a, s = matrix[head % len(matrix)], signs[head % len(signs)]
        for block in range(blocks):
            feature, amplitude, start = features[head, block], amplitudes[head, block], block * size
            width = min(size, rows - start)
            for b in range(width):
                for m in range(outputs):
                    g[m, b] = 2 * grad[head, start + b, m]
            _combine(s.T, g, slope, width)
            for each in range(parts * height):
                given, by, into = amplitude[each], slope[each % outcomes], of_amplitude[each]
                for b in range(width):
                    into[b] = given[b] * by[b]
            for part in range(parts):
                these, those = slice(part * terms, (part + 1) * terms), slice(part * height, (part + 1) * height)
                if wants_matrix:
                    _correlate(feature[these], of_amplitude[those], of_matrix[head, these], width)
                if wants_columns:
                    _combine(a[these].T, of_amplitude[those], of_feature[these], width)
            if wants_columns:
                for u in range(count):
                    cosines, sines = feature[u], feature[count + u]
                    of_cosines, of_sines = of_feature[u], of_feature[count + u]
                    for b in range(width):  # in place: from here on the slopes of the phases
                        of_cosines[b] = cosines[b] * of_sines[b] - sines[b] * of_cosines[b]
                _combine(back, of_feature[:count], x, width)
                for b in range(width):
                    for k in range(inputs):
                        of_columns[head, start + b, k] = x[k, b]
    return of_columns, of_matrix
