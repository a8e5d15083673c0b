"""From amplitudes to values as one compiled loop: for few rows on a CPU, where torch's calls outlast the arithmetic.

Measured, two heads of 96 outcomes and 32 values each, one row: 4 µs with the way to numpy and back, torch's calls 13.
"""

from __future__ import annotations

import numpy as np

from qiskit_qattn.simulation.amplitude import LARGEST, SMALLEST
from qiskit_qattn.simulation.jit import compile_loops


@compile_loops
def read_out(amplitudes: np.ndarray, signs: np.ndarray, values: np.ndarray) -> bool:
    r"""Write the values of amplitudes of any norm, and tell whether all of them hold.

    .. math:: y_m = \sum_r S_{rm} |a_r|^2 \Big/ \sum_r S_{rM} |a_r|^2

    Args:
        amplitudes: Real parts of R outcomes, then imaginary ones where there are any, shape ``(H, N, R or 2 * R)``.
        signs: S, shape ``(H, R, M + 1)``; the last column gives squared norms.
        values: Written to, shape ``(H, N, M)``, up to the first row whose squared norm is out of range.
    """
    outcomes, outputs = signs.shape[1], values.shape[2]
    for head in range(len(amplitudes)):
        for n in range(amplitudes.shape[1]):
            row, value, squared_norm = amplitudes[head, n], values[head, n], amplitudes.dtype.type(0)
            value[:] = 0
            for r in range(outcomes):
                square = row[r] * row[r]
                if len(row) > outcomes:
                    square += row[outcomes + r] * row[outcomes + r]
                sign = signs[head, r]
                for m in range(outputs):
                    value[m] += square * sign[m]
                squared_norm += square * sign[outputs]
            if not SMALLEST < squared_norm < LARGEST:
                return False
            for m in range(outputs):
                value[m] /= squared_norm
    return True
