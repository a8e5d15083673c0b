r"""Triton kernels of :math:`y = |f A|^{\odot 2} S`: values, and the gradients of the data and of A.

A program holds a block of rows of features f in registers and runs over the columns of A. Amplitudes are never stored;
the backward pass computes them again. All arithmetic is in float32, whatever the dtype of the data.

Shapes, each tensor with strides of its own: data ``(L, B, K)``, A ``(L, F, C)``, S ``(L, R, M)``, y ``(L, B, M)``.
``PARTS`` says what A holds: ``complex``, C = 2 R columns, all real parts, then all imaginary; ``real``, C = R;
``split``, C = R, upper rows F / 2 giving real parts and lower ones imaginary. Features are unit vectors, F = K, or with
``PHASES`` the cosines, then the sines, of F / 2 phases ``x turns + offset``.
"""

from __future__ import annotations

import triton
import triton.language as tl

_NORMAL = tl.constexpr(2.0**-126)  # the smallest normal number
_TURN = tl.constexpr(6.283185307179586)


@triton.jit
def values(
    data, matrix, signs, turns, offset, out, rows, by_data, by_matrix, by_signs, by_out,
    K: tl.constexpr, F: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
    PHASES: tl.constexpr, SHIFTED: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BF: tl.constexpr, BR: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Write y for one block of rows."""
    head, row = _block(rows, BB)
    tl.static_assert(BF >= F and BM >= M)
    data += head * by_data[0]
    f, _ = _features(data, turns, offset, row, rows, by_data, K, F, PHASES, SHIFTED, BB, BF)
    y = tl.zeros([BB, BM], tl.float32)
    for start in range(0, R, BR):
        real, imaginary = _columns(matrix + head * by_matrix[0], start, by_matrix, F, R, PARTS, BF, BR)
        square = tl.dot(f, real, input_precision=PRECISION)
        square *= square
        if PARTS != "real":
            part = tl.dot(f, imaginary, input_precision=PRECISION)
            square += part * part
        s = _signs(signs + head * by_signs[0], start, by_signs, R, M, BR, BM)
        y = tl.dot(square, s, y, input_precision=PRECISION)
    m = tl.arange(0, BM)
    out += head * by_out[0] + row[:, None] * by_out[1] + m[None, :] * by_out[2]
    tl.store(out, y, (row < rows)[:, None] & (m < M)[None, :])


@triton.jit
def of_data(
    data, matrix, signs, turns, offset, grad, out, rows, by_data, by_matrix, by_signs, by_grad, by_out,
    K: tl.constexpr, F: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
    PHASES: tl.constexpr, SHIFTED: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BF: tl.constexpr, BR: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the data for one block of rows."""
    head, row = _block(rows, BB)
    data += head * by_data[0]
    f, more = _features(data, turns, offset, row, rows, by_data, K, F, PHASES, SHIFTED, BB, BF)
    g = _gradient(grad + head * by_grad[0], row, rows, by_grad, M, BB, BM)
    of_f = tl.zeros([BB, BF], tl.float32)
    for start in range(0, R, BR):
        real, imaginary = _columns(matrix + head * by_matrix[0], start, by_matrix, F, R, PARTS, BF, BR)
        s = _signs(signs + head * by_signs[0], start, by_signs, R, M, BR, BM)
        slope = 2 * tl.dot(g, tl.trans(s), input_precision=PRECISION)  # of squares
        of_amplitude = slope * tl.dot(f, real, input_precision=PRECISION)
        of_f = tl.dot(of_amplitude, tl.trans(real), of_f, input_precision=PRECISION)
        if PARTS != "real":
            of_amplitude = slope * tl.dot(f, imaginary, input_precision=PRECISION)
            of_f = tl.dot(of_amplitude, tl.trans(imaginary), of_f, input_precision=PRECISION)
    out += head * by_out[0] + row * by_out[1]
    j = tl.arange(0, BF)
    if PHASES:
        of_phase = of_f * more
        for k in range(K):
            turn = tl.load(turns + k * (F // 2) + j % (F // 2), j < F, 0.0).to(tl.float32)
            tl.store(out + k * by_out[2], tl.sum(of_phase * turn[None, :], 1), row < rows)
    else:  # along f nothing changes, and at x = 0 the gradient is 0
        of_x = of_f - f * tl.sum(f * of_f, 1)[:, None]
        of_x = tl.where((more == 0)[:, None], 0.0, of_x / tl.where(more == 0, 1.0, more)[:, None])
        tl.store(out[:, None] + j[None, :] * by_out[2], of_x, (row < rows)[:, None] & (j < K)[None, :])


@triton.jit
def of_matrix(
    data, matrix, signs, turns, offset, grad, out, rows, by_data, by_matrix, by_signs, by_grad, by_out, share,
    K: tl.constexpr, F: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
    PHASES: tl.constexpr, SHIFTED: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
    BB: tl.constexpr, BF: tl.constexpr, BR: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Write the gradient of some columns of A, summed over ``share`` rows, to ``(shares * L, F, C)``."""
    tiles = tl.cdiv(R, BR)
    head, start = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * BR
    data, grad = data + head * by_data[0], grad + head * by_grad[0]
    real, imaginary = _columns(matrix + head * by_matrix[0], start, by_matrix, F, R, PARTS, BF, BR)
    s = _signs(signs + head * by_signs[0], start, by_signs, R, M, BR, BM)
    of_real = tl.zeros([BF, BR], tl.float32)
    of_imaginary = tl.zeros([BF, BR], tl.float32)
    first = tl.program_id(1).to(tl.int64) * share
    for at in range(0, share, BB):
        row = first + at + tl.arange(0, BB)
        f, _ = _features(data, turns, offset, row, rows, by_data, K, F, PHASES, SHIFTED, BB, BF)
        g = _gradient(grad, row, rows, by_grad, M, BB, BM)
        slope = 2 * tl.dot(g, tl.trans(s), input_precision=PRECISION)
        of_amplitude = slope * tl.dot(f, real, input_precision=PRECISION)
        of_real = tl.dot(tl.trans(f), of_amplitude, of_real, input_precision=PRECISION)
        if PARTS != "real":
            of_amplitude = slope * tl.dot(f, imaginary, input_precision=PRECISION)
            of_imaginary = tl.dot(tl.trans(f), of_amplitude, of_imaginary, input_precision=PRECISION)
    j, r = tl.arange(0, BF)[:, None], start + tl.arange(0, BR)[None, :]
    share_of_head = tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // tiles) + head
    out += share_of_head * by_out[0] + j * by_out[1] + r * by_out[2]
    if PARTS == "split":
        of_real = tl.where(j < F // 2, of_real, of_imaginary)
    tl.store(out, of_real, (j < F) & (r < R))
    if PARTS == "complex":
        tl.store(out + R * by_out[2], of_imaginary, (j < F) & (r < R))


@triton.jit
def _block(rows, BB: tl.constexpr):
    """Return the head and the rows of this program."""
    blocks = tl.cdiv(rows, BB)
    head, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    return head.to(tl.int64), block.to(tl.int64) * BB + tl.arange(0, BB)


@triton.jit
def _features(
    data, turns, offset, row, rows, by_data, K: tl.constexpr, F: tl.constexpr, PHASES: tl.constexpr,
    SHIFTED: tl.constexpr, BB: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Return f, and the derivatives of cosines and sines by their phases or the norms of vectors."""
    if PHASES:
        f, more = _cosines_and_sines(data, turns, offset, row, rows, by_data, K, F, SHIFTED, BB, BF)
    else:
        f, more = _unit_vectors(data, row, rows, by_data, K, BF)
    return f, more


@triton.jit
def _unit_vectors(data, row, rows, by_data, K: tl.constexpr, BF: tl.constexpr):
    r"""Return :math:`x / \lVert x \rVert`, or the first unit vector for x = 0, and the norms, 0 where x = 0."""
    k = tl.arange(0, BF)
    x = data + row[:, None] * by_data[1] + k[None, :] * by_data[2]
    x = tl.load(x, (row < rows)[:, None] & (k < K)[None, :], 0.0).to(tl.float32)
    # Scaled by a power of two, which rounds nothing, so that squares neither overflow nor vanish.
    largest = tl.max(tl.abs(x), 1).to(tl.int32, bitcast=True)
    power = tl.maximum((largest & 0x7F800000).to(tl.float32, bitcast=True), _NORMAL)
    x *= tl.div_rn(1.0, power)[:, None]
    norm = tl.sqrt_rn(tl.sum(x * x, 1))
    first = tl.where(k == 0, 1.0, 0.0)
    f = tl.where((norm == 0)[:, None], first[None, :], x / tl.where(norm == 0, 1.0, norm)[:, None])
    return f, norm * power


@triton.jit
def _cosines_and_sines(
    data, turns, offset, row, rows, by_data, K: tl.constexpr, F: tl.constexpr, SHIFTED: tl.constexpr,
    BB: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Return cosines and sines of the phases, and their derivatives.

    Phases are summed as integers, in units of 2⁻³² turns that wrap around, so that large angles lose nothing: x and its
    coefficient are cut to 12 bits each, which makes their product exact, and what was cut off is added afterwards.
    Cosine and sine up to π/4 are the polynomials of Cephes (Moshier, 1992), which err by a unit in the last place.
    """
    j = tl.arange(0, BF)
    u = j % (F // 2)
    whole, rest = tl.zeros([BB, BF], tl.int64), tl.zeros([BB, BF], tl.float32)
    for k in range(K):
        x = tl.load(data + row * by_data[1] + k * by_data[2], row < rows, 0.0)
        if x.dtype != tl.float64:
            x = x.to(tl.float32)
        c = tl.load(turns + k * (F // 2) + u).to(tl.float64) / _TURN
        x_head, c_head = _upper_bits(x.to(tl.float32)), _upper_bits(c.to(tl.float32))
        x_tail, c_tail = (x - x_head).to(tl.float32), (c - c_head).to(tl.float32)
        whole += _units(x_head[:, None] * c_head[None, :])
        rest += x_tail[:, None] * c_head[None, :] + x.to(tl.float32)[:, None] * c_tail[None, :]
    if SHIFTED:
        b = tl.load(offset + u).to(tl.float64) / _TURN
        whole += (b * 4294967296.0).to(tl.int64)[None, :]
    whole += (rest * 4294967296.0).to(tl.int64)
    whole -= tl.where(j < F // 2, 0, 1073741824)[None, :]  # sin φ = cos(φ − π/2)
    quarter = (whole + 536870912) >> 30
    x = (whole - (quarter << 30)).to(tl.float32) * (_TURN / 4294967296.0) + 0.0 * rest  # up to π/4; NaN stays NaN
    z = x * x
    cosine = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    sine = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    swapped = (quarter & 1) == 1
    used = (row < rows)[:, None] & (j < F)[None, :]
    f, slope = tl.where(swapped, sine, cosine), tl.where(swapped, cosine, sine)
    f = tl.where(((quarter + 1) & 2) == 0, f, -f)
    slope = tl.where((quarter & 2) == 0, -slope, slope)
    return tl.where(used, f, 0.0), tl.where(used, slope, 0.0)


@triton.jit
def _upper_bits(x):
    """Return the first 12 significant bits of float32 numbers."""
    return (x.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)


@triton.jit
def _units(turns):
    """Return the fractions of turns in units of 2⁻³²."""
    return ((turns - tl.floor(turns)) * 4294967296.0).to(tl.int64)


@triton.jit
def _columns(
    matrix, start, by_matrix, F: tl.constexpr, R: tl.constexpr, PARTS: tl.constexpr, BF: tl.constexpr, BR: tl.constexpr
):
    """Return what gives the real parts of some amplitudes, and the imaginary parts unless A is real, ``(BF, BR)``."""
    j, r = tl.arange(0, BF)[:, None], start + tl.arange(0, BR)[None, :]
    real = matrix + j * by_matrix[1] + r * by_matrix[2]
    inside = (j < F) & (r < R)
    if PARTS == "split":
        first, second = tl.load(real, inside & (j < F // 2), 0.0), tl.load(real, inside & (j >= F // 2), 0.0)
    elif PARTS == "complex":
        first, second = tl.load(real, inside, 0.0), tl.load(real + R * by_matrix[2], inside, 0.0)
    else:
        first = tl.load(real, inside, 0.0)
        second = first
    return first, second


@triton.jit
def _signs(signs, start, by_signs, R: tl.constexpr, M: tl.constexpr, BR: tl.constexpr, BM: tl.constexpr):
    """Return rows of S, ``(BR, BM)``."""
    r, m = start + tl.arange(0, BR)[:, None], tl.arange(0, BM)[None, :]
    return tl.load(signs + r * by_signs[1] + m * by_signs[2], (r < R) & (m < M), 0.0)


@triton.jit
def _gradient(grad, row, rows, by_grad, M: tl.constexpr, BB: tl.constexpr, BM: tl.constexpr):
    """Return rows of the gradient of y, 0 beyond the last one, ``(BB, BM)``."""
    m = tl.arange(0, BM)[None, :]
    given = grad + row[:, None] * by_grad[1] + m * by_grad[2]
    return tl.load(given, (row < rows)[:, None] & (m < M), 0.0).to(tl.float32)
