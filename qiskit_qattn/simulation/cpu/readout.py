"""From vectors to values as one compiled loop: for few rows on a CPU, where torch's calls outlast the arithmetic."""

from __future__ import annotations

import numpy as np

from qiskit_qattn.simulation.amplitude import LARGEST, SMALLEST
from qiskit_qattn.simulation.cpu import compile_loops


@compile_loops
def read_out(vectors: np.ndarray, matrix: np.ndarray, signs: np.ndarray, values: np.ndarray) -> bool:
    r"""Write the values of vectors, and return whether the norms of all are in range.

    .. math:: y_m = \sum_r S_{rm} |a_r|^2 \Big/ \sum_r S_{rM} |a_r|^2, \qquad a = x U

    Args:
        vectors: x, shape ``(H, N, D)``.
        matrix: U, real parts of R outcomes, then imaginary ones where there are any, shape ``(H, D, R or 2 * R)``; of
            size 0 where x are amplitudes already.
        signs: S, shape ``(H, R, M + 1)``; the last column gives squared norms.
        values: Written to, shape ``(H, N, M)``; NaN for a vector whose squared norm is out of range.
    """
    outcomes, outputs, given, valid = signs.shape[1], values.shape[2], matrix.size == 0, True
    amplitudes = np.empty(vectors.shape[2] if given else matrix.shape[2], dtype=vectors.dtype)
    for head in range(len(vectors)):
        for n in range(vectors.shape[1]):
            vector, value, squared_norm = vectors[head, n], values[head, n], vectors.dtype.type(0)
            if given:
                amplitudes[:] = vector
            else:
                amplitudes[:] = 0
                for d in range(len(vector)):
                    row = matrix[head, d]
                    for r in range(len(amplitudes)):
                        amplitudes[r] += vector[d] * row[r]
            value[:] = 0
            for r in range(outcomes):
                square = amplitudes[r] * amplitudes[r]
                if len(amplitudes) > outcomes:
                    square += amplitudes[outcomes + r] * amplitudes[outcomes + r]
                sign = signs[head, r]
                for m in range(outputs):
                    value[m] += square * sign[m]
                squared_norm += square * sign[outputs]
            if not SMALLEST < squared_norm < LARGEST:
                value[:], squared_norm, valid = np.nan, vectors.dtype.type(1), False
            for m in range(outputs):
                value[m] /= squared_norm
    return valid
