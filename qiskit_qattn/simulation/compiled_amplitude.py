"""Expectation values of amplitude-encoded vectors as compiled loops: for many narrow rows on a CPU.

Torch takes a product for each part of the amplitudes, one for the norms, one for the values, and passes over memory in
between. Here a block of rows stays in the caches of a core from its vectors to its values. Measured on two cores, 128
to 16,384 rows: 0.3 to 0.5 of the time for vectors of 4 and 8 numbers, 0.4 to 0.8 for 16, and for 32 from 0.4, with
four heads, to 0.9 with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from qiskit_qattn.simulation import threads
from qiskit_qattn.simulation.amplitude import LARGEST, SMALLEST
from qiskit_qattn.simulation.jit import compile_loops, shares_memory
from qiskit_qattn.simulation.threads import thread_count, thread_number

Array = np.ndarray

_NARROW = 32  # numbers in a vector; measured: of 64, torch's products are as fast or faster
_BLOCK = 256  # rows at a time: 128 take a fifth longer
_LINE = 16  # numbers in a line of the cache: where blocks begin at one, the loops take a tenth less time
_WORDS = 14  # that the task is given
_LIMITS = np.array([SMALLEST, LARGEST])  # handed over, since numba keeps code as long as its own file is the same


@dataclass(frozen=True)
class CompiledReadout:
    r"""Amplitude-encoded heads on the same vectors, :math:`y_m = \sum_r S_{rm} |a_r|^2 / \sum_{r < 2^n} |a_r|^2`.

    Attributes:
        maps: A of the amplitudes a = x A + b, float32, shape ``(H, d, R or 2 * R)``: real parts, then imaginary ones.
        shifts: b, shape ``(H, R or 2 * R)``.
        signs: S, shape ``(H, R, M)``.
        basis: 2ⁿ, how many of the R outcomes are of the first basis.
    """

    maps: Tensor
    shifts: Tensor
    signs: Tensor
    basis: int

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, Tensor | None]], signs: Tensor, basis: int) -> CompiledReadout | None:
        """Return the readout of amplitudes in real and, where there are any, imaginary parts.

        None where torch's calls are as fast, or loops cannot run: for wide vectors, what is not float32 on a CPU,
        without torch's threads.

        Args:
            parts: Weights ``(H * R, d)`` and biases ``(H * R,)``, or None, of each.
            signs: S, shape ``(H, R, M)``.
            basis: As above.
        """
        weights = torch.stack([weight for weight, _ in parts])  # (1 or 2, H * R, d)
        single = weights.dtype == signs.dtype == torch.float32
        if not (single and weights.shape[-1] <= _NARROW and shares_memory(weights) and threads.are_available()):
            return None
        biases = torch.stack([weights.new_zeros(len(weight)) if bias is None else bias for weight, bias in parts])
        heads = signs.shape[:2]
        maps, shifts = weights.unflatten(1, heads).transpose(0, 1), biases.unflatten(1, heads).transpose(0, 1)
        return cls(maps.flatten(1, 2).mT.contiguous(), shifts.flatten(1).contiguous(), signs.contiguous(), basis)

    def __call__(self, x: Tensor) -> Tensor | None:
        """Return the values of vectors ``(B, d)``, shape ``(B, H, M)``.

        None where a vector is zero, not finite or extreme, with gradients, and for what these loops do not take.
        """
        if torch.is_grad_enabled() or not shares_memory(x) or x.dtype != torch.float32:
            return None
        if x.shape[1] != self.maps.shape[1]:
            return None
        x, (heads, outcomes, outputs) = x.contiguous(), self.signs.shape
        values = x.new_empty(x.shape[0], heads, outputs)
        memory = [tensor.data_ptr() for tensor in (x, self.maps, self.shifts, self.signs, values)]
        sizes = *x.shape, heads, self.maps.shape[2], outcomes, outputs, self.basis
        held = threads.run(_measure_share, [*memory, _LIMITS.ctypes.data, *sizes])
        return values if sum(held) == x.shape[0] * heads else None


@compile_loops
def _combine(coefficients: Array, given: Array, out: Array, width: int) -> None:
    """Write ``out[j] = Σ_i coefficients[i, j] given[i]`` over the first ``width`` of each row.

    Eight terms a pass over ``out``: by four, the whole takes an eighth longer.
    """
    count, size = coefficients.shape
    eights = count - count % 8
    for j in range(size):
        c, total = coefficients[:, j], out[j]
        total[:width] = 0
        for i in range(0, eights, 8):
            c0, c1, c2, c3, c4, c5, c6, c7 = c[i], c[i + 1], c[i + 2], c[i + 3], c[i + 4], c[i + 5], c[i + 6], c[i + 7]
            g0, g1, g2, g3 = given[i], given[i + 1], given[i + 2], given[i + 3]
            g4, g5, g6, g7 = given[i + 4], given[i + 5], given[i + 6], given[i + 7]
            for b in range(width):
                first = c0 * g0[b] + c1 * g1[b] + c2 * g2[b] + c3 * g3[b]
                total[b] += first + c4 * g4[b] + c5 * g5[b] + c6 * g6[b] + c7 * g7[b]
        for i in range(eights, count):
            ci, gi = c[i], given[i]
            for b in range(width):
                total[b] += ci * gi[b]


@compile_loops
def _measure(
    x: Array, maps: Array, shifts: Array, signs: Array, basis: int, limits: Array, rows: range, values: Array
) -> int:
    """Write the values of some of the vectors ``(B, d)``, and return how many of them hold, each head counted."""
    smallest, largest = limits
    (heads, inputs, height), (outcomes, outputs), held = maps.shape, signs.shape[1:], 0
    given, amplitudes, sums = _blocks(inputs), _blocks(height), _blocks(outputs)
    norms = _blocks(1)[0]
    for start in range(rows.start, rows.stop, _BLOCK):
        width = min(_BLOCK, rows.stop - start)
        for b in range(width):
            for k in range(inputs):
                given[k, b] = x[start + b, k]
        for head in range(heads):
            _combine(maps[head], given, amplitudes, width)
            norms[:width] = 0
            for r in range(outcomes):
                square, shift = amplitudes[r], shifts[head, r]
                for b in range(width):
                    square[b] = (square[b] + shift) * (square[b] + shift)
                for other in range(outcomes + r, height, outcomes):
                    part, shift = amplitudes[other], shifts[head, other]
                    for b in range(width):
                        square[b] += (part[b] + shift) * (part[b] + shift)
                if r < basis:
                    for b in range(width):
                        norms[b] += square[b]
            for b in range(width):
                held += smallest < norms[b] < largest
                norms[b] = np.float32(1) / norms[b]
            _combine(signs[head], amplitudes[:outcomes], sums, width)
            for m in range(outputs):
                value = sums[m]
                for b in range(width):
                    value[b] *= norms[b]
            for b in range(width):
                for m in range(outputs):
                    values[start + b, head, m] = sums[m, b]
    return held


@compile_loops
def _blocks(count: int) -> Array:
    """Return memory for a block of rows of so many numbers, with the rows last."""
    memory = np.empty(count * _BLOCK + _LINE, np.float32)
    skip = -(memory.ctypes.data // memory.itemsize) % _LINE
    return memory[skip : skip + count * _BLOCK].reshape(count, _BLOCK)


def _measure_share(pointers: Any) -> None:
    """Compute the share of the rows that is this thread's."""
    words = carray(pointers[0], _WORDS + thread_count(), np.int64)
    count, inputs, heads, height, outcomes, outputs, basis = words[7:_WORDS]
    x = carray(pointers[1], (count, inputs), np.float32)
    maps = carray(pointers[2], (heads, inputs, height), np.float32)
    shifts = carray(pointers[3], (heads, height), np.float32)
    signs = carray(pointers[4], (heads, outcomes, outputs), np.float32)
    values = carray(pointers[5], (count, heads, outputs), np.float32)
    limits = carray(pointers[6], 2, np.float64)
    share, shares = thread_number(), thread_count()
    rows = range(count * share // shares, count * (share + 1) // shares)
    words[_WORDS + share] = _measure(x, maps, shifts, signs, basis, limits, rows, values)
