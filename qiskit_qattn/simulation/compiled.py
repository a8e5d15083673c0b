"""The phase product as compiled loops: for small circuits on a CPU, where torch's calls outlast the arithmetic.

Measured, the user's 4-qubit circuit of ``benchmarks/``, values and all gradients: at batch 1024 0.25 ms, torch's 0.57;
at batch 64 0.16 ms, torch's 0.48; on one core, and torch's on two. All arrays are C-contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

Array = np.ndarray

_BLOCK = 256  # rows at a time: with all that is computed of them they stay in the first-level cache
_FAR = 1e6  # radians up to which one float64 subtraction reduces an angle to far below float32's rounding
_FAST = {"reassoc", "contract", "nsz"}  # sums may be reordered; NaN and infinity keep their meaning


def _compile(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk where numba finds a place for it."""
    try:
        return numba.njit(nogil=True, fastmath=_FAST, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, fastmath=_FAST)(function)


@_compile
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


@_compile
def evaluate(
    columns: Array,
    turns: Array,
    offset: Array,
    matrix: Array,
    signs: Array,
    apart: bool,
    heads: int,
) -> tuple[Array, Array, Array]:
    r"""Return :math:`|f A|^{\odot 2} S`, shape ``(L, B, M)``, and what :func:`slopes` needs of the way there.

    That is the features :math:`[\cos\varphi, \sin\varphi]`, ``(L, 2 * U, B)``, and the amplitudes
    ``(L, 1 or 2, R, B)``. L arrays are one after the other, or one is for all heads.

    Args:
        columns: x, float64, shape ``(L or 1, B, K)``.
        turns: C of the phases :math:`\varphi = x C + b`, float64, shape ``(K, U)``.
        offset: b, float64, shape ``(U,)``.
        matrix: A, shape ``(L or 1, 2 * U, R or 2 * R)``, as for ``phase_product``; float32 like all that follow.
        signs: S, shape ``(L or 1, R, M)``.
        apart: Whether the halves of A's rows give real and imaginary parts.
        heads: L.
    """
    rows, (inputs, count), (outcomes, outputs) = columns.shape[1], turns.shape, signs.shape[1:]
    parts = 2 if apart else matrix.shape[2] // outcomes
    values = np.empty((heads, rows, outputs), np.float32)
    features = np.empty((heads, 2 * count, rows), np.float32)
    amplitudes = np.empty((heads, parts, outcomes, rows), np.float32)
    x, phase = np.empty((inputs, _BLOCK)), np.empty(_BLOCK)
    squares, sums = np.empty((outcomes, _BLOCK), np.float32), np.empty((outputs, _BLOCK), np.float32)
    for head in range(heads):
        a, s, given = matrix[head % len(matrix)], signs[head % len(signs)], columns[head % len(columns)]
        for start in range(0, rows, _BLOCK):
            width = min(_BLOCK, rows - start)
            for k in range(inputs):
                for b in range(width):
                    x[k, b] = given[start + b, k]
            for u in range(count):
                for b in range(width):
                    phase[b] = offset[u]
                for k in range(inputs):
                    turn = turns[k, u]
                    if turn != 0:
                        for b in range(width):
                            phase[b] += turn * x[k, b]
                cosines = features[head, u, start : start + width]
                sines = features[head, count + u, start : start + width]
                largest = 0.0
                for b in range(width):
                    largest = max(largest, abs(phase[b]))
                if largest < _FAR:
                    for b in range(width):
                        cosines[b], sines[b] = _wave(phase[b])
                else:  # NaN and infinity included
                    for b in range(width):
                        cosines[b], sines[b] = math.cos(phase[b]), math.sin(phase[b])
            squares[:] = 0
            for part in range(parts):
                first, last = (part * count, (part + 1) * count) if apart else (0, 2 * count)
                for r in range(outcomes):
                    amplitude = amplitudes[head, part, r, start : start + width]
                    column = r if apart else part * outcomes + r
                    amplitude[:] = 0
                    for f in range(first, last):
                        entry, feature = a[f, column], features[head, f, start : start + width]
                        for b in range(width):
                            amplitude[b] += entry * feature[b]
                    for b in range(width):
                        squares[r, b] += amplitude[b] * amplitude[b]
            sums[:] = 0
            for m in range(outputs):
                for r in range(outcomes):
                    sign = s[r, m]
                    if sign != 0:
                        for b in range(width):
                            sums[m, b] += sign * squares[r, b]
            for b in range(width):
                for m in range(outputs):
                    values[head, start + b, m] = sums[m, b]
    return values, features, amplitudes


@_compile
def slopes(
    grad: Array,
    turns: Array,
    matrix: Array,
    signs: Array,
    apart: bool,
    features: Array,
    amplitudes: Array,
    wants_columns: bool,
    wants_matrix: bool,
) -> tuple[Array, Array]:
    """Return the gradients of the columns, ``(L, B, K)``, and of each head's matrix, for that of the values.

    What is not wanted is left as it is. All float32; the rest is as for :func:`evaluate`.
    """
    heads, rows, outputs = grad.shape
    inputs, count = turns.shape
    parts, outcomes = amplitudes.shape[1:3]
    of_columns = np.empty((heads, rows, inputs), np.float32)
    of_matrix = np.zeros((heads, *matrix.shape[1:]), np.float32)
    g, x = np.empty((outputs, _BLOCK), np.float32), np.empty((inputs, _BLOCK), np.float32)
    slope, of_features = np.empty((outcomes, _BLOCK), np.float32), np.empty((2 * count, _BLOCK), np.float32)
    product = np.empty(_BLOCK, np.float32)
    for head in range(heads):
        a, s = matrix[head % len(matrix)], signs[head % len(signs)]
        for start in range(0, rows, _BLOCK):
            width = min(_BLOCK, rows - start)
            for b in range(width):
                for m in range(outputs):
                    g[m, b] = 2 * grad[head, start + b, m]
            slope[:] = 0
            for r in range(outcomes):
                for m in range(outputs):
                    sign = s[r, m]
                    if sign != 0:
                        for b in range(width):
                            slope[r, b] += sign * g[m, b]
            of_features[:] = 0
            for part in range(parts):
                first, last = (part * count, (part + 1) * count) if apart else (0, 2 * count)
                for r in range(outcomes):
                    amplitude = amplitudes[head, part, r, start : start + width]
                    column = r if apart else part * outcomes + r
                    for b in range(width):
                        product[b] = amplitude[b] * slope[r, b]
                    for f in range(first, last):
                        if wants_matrix:
                            feature, total = features[head, f, start : start + width], np.float32(0)
                            for b in range(width):
                                total += feature[b] * product[b]
                            of_matrix[head, f, column] += total
                        if wants_columns:
                            entry = a[f, column]
                            for b in range(width):
                                of_features[f, b] += entry * product[b]
            if wants_columns:
                x[:] = 0
                for u in range(count):
                    cosines = features[head, u, start : start + width]
                    sines = features[head, count + u, start : start + width]
                    for b in range(width):
                        product[b] = cosines[b] * of_features[count + u, b] - sines[b] * of_features[u, b]
                    for k in range(inputs):
                        turn = np.float32(turns[k, u])
                        if turn != 0:
                            for b in range(width):
                                x[k, b] += turn * product[b]
                for b in range(width):
                    for k in range(inputs):
                        of_columns[head, start + b, k] = x[k, b]
    return of_columns, of_matrix


@_compile
def form(
    columns: Array, turns: Array, offset: Array, constants: Array, layout: Array, sizes: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the matrices of a trigonometric block, float32 ``(L, F, G)``, and what :func:`form_slope` needs.

    Args:
        columns: The weights, float64, shape ``(L, P)``.
        turns: What takes them to the phases of all groups, shape ``(P, T)``.
        offset: What is added there, shape ``(T,)``.
        constants: The groups' matrices A and B, one after the other, flat.
        layout: For each group, how many there are, their rows and their columns, shape ``(groups, 3)``.
        sizes: Numbers in the sums of all groups, and in all their products.
    """
    heads, height = len(columns), layout[0, 1]
    phases = np.empty((heads, len(offset)))
    factors, products = np.zeros((heads, sizes[0])), np.zeros((heads, sizes[1]))
    matrix = np.empty((heads, height, layout[-1, 2]), np.float32)
    for head in range(heads):
        for t in range(len(offset)):
            phase = offset[t]
            for p in range(columns.shape[1]):
                phase += columns[head, p] * turns[p, t]
            phases[head, t] = phase
        wave = constant = begin = done = before = 0
        for group in range(len(layout)):
            rows, width = layout[group, 1], layout[group, 2]
            factor = factors[head, begin : begin + rows * width]
            for _ in range(layout[group, 0]):
                cosine, term = math.cos(phases[head, wave]), constants[constant : constant + rows * width]
                for i in range(rows * width):
                    factor[i] += cosine * term[i]
                wave, constant = wave + 1, constant + rows * width
            product = products[head, done : done + height * width]
            if group == 0:
                for i in range(height * width):
                    product[i] = factor[i]
            else:
                for i in range(height):
                    into = product[i * width : (i + 1) * width]
                    for k in range(rows):
                        entry, row = products[head, before + i * rows + k], factor[k * width : (k + 1) * width]
                        for j in range(width):
                            into[j] += entry * row[j]
            before, begin, done = done, begin + rows * width, done + height * width
        for i in range(height):
            for j in range(matrix.shape[2]):
                matrix[head, i, j] = products[head, before + i * matrix.shape[2] + j]
    return matrix, phases, factors, products


@_compile
def form_slope(
    grad: Array,
    turns: Array,
    constants: Array,
    layout: Array,
    sizes: Array,
    phases: Array,
    factors: Array,
    products: Array,
) -> Array:
    """Return the gradient of the columns, float64 ``(L, P)``, for that of the matrices; the rest is of :func:`form`."""
    heads, height = grad.shape[:2]
    of_columns, largest = np.zeros((heads, len(turns))), max(sizes[0], sizes[1])
    of_factor, of_product, of_previous = np.empty(largest), np.empty(largest), np.empty(largest)
    for head in range(heads):
        begin, done, wave, constant = sizes[0], sizes[1], len(phases[head]), len(constants)
        for i in range(height):
            for j in range(grad.shape[2]):
                of_product[i * grad.shape[2] + j] = grad[head, i, j]
        for group in range(len(layout) - 1, -1, -1):
            count, rows, width = layout[group, 0], layout[group, 1], layout[group, 2]
            begin, done, wave = begin - rows * width, done - height * width, wave - count
            constant -= count * rows * width
            if group == 0:  # the first product is the first factor
                for i in range(rows * width):
                    of_factor[i] = of_product[i]
            else:
                for i in range(rows * width):
                    of_factor[i] = 0
                for i in range(height):
                    given = of_product[i * width : (i + 1) * width]
                    for k in range(rows):
                        into = of_factor[k * width : (k + 1) * width]
                        row = factors[head, begin + k * width : begin + (k + 1) * width]
                        entry, total = products[head, done - height * rows + i * rows + k], 0.0
                        for j in range(width):
                            into[j] += entry * given[j]
                            total += given[j] * row[j]
                        of_previous[i * rows + k] = total
                for i in range(height * rows):
                    of_product[i] = of_previous[i]
            for k in range(count):
                total, first = 0.0, constant + k * rows * width
                term = constants[first : first + rows * width]
                for i in range(rows * width):
                    total += of_factor[i] * term[i]
                total *= -math.sin(phases[head, wave + k])
                for p in range(len(turns)):
                    of_columns[head, p] += turns[p, wave + k] * total
    return of_columns
