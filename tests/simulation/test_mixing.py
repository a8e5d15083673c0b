"""Windows of coefficients and polynomials of matrices, by their definitions."""

import numpy as np
import torch

from qiskit_qattn.simulation.mixing import mixed_states, window_coefficients


def test_coefficients_are_those_of_distances_and_their_moduli_sum_to_1():
    b = torch.tensor([[3.0, -1.0 + 2.0j, 4.0j]], dtype=torch.complex128)
    total = [3, 3 + 5**0.5, 7 + 5**0.5]
    expected = [
        [3 / total[0], 0, 0, 0],
        [b[0, 1] / total[1], 3 / total[1], 0, 0],
        [b[0, 2] / total[2], b[0, 1] / total[2], 3 / total[2], 0],
        [0, b[0, 2] / total[2], b[0, 1] / total[2], 3 / total[2]],
    ]
    found = window_coefficients(b, 4, 4)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.complex128)[None, None])
    assert torch.equal(window_coefficients(b, 2, 4), found[:, :, 2:])
    real = torch.tensor([[False, True, False, True]])
    padded = window_coefficients(b, 4, 4, real)[0, 0]
    assert padded[0].count_nonzero() == 0 and padded[:, ~real[0]].count_nonzero() == 0
    torch.testing.assert_close(padded[3, [1, 3]], torch.tensor([4j / 7, 3 / 7], dtype=torch.complex128))


def test_states_are_polynomials_of_the_mixed_maps(rng):
    maps = torch.from_numpy(rng.normal(size=(2, 3, 4, 4, 4)) + 1j * rng.normal(size=(2, 3, 4, 4, 4)))
    b = torch.from_numpy(rng.normal(size=(1, 3, 2, 4)) + 1j * rng.normal(size=(1, 3, 2, 4)))
    c = torch.from_numpy(rng.normal(size=(3, 4)))
    found = mixed_states(maps, b, c).numpy()
    for i, h, t in np.ndindex(2, 3, 2):
        m = sum(b[0, h, t, j].item() * maps[i, h, j].numpy() for j in range(4))
        expected = sum(c[h, k].item() * np.linalg.matrix_power(m, k)[:, 0] for k in range(4))
        np.testing.assert_allclose(found[i, h, t], expected, rtol=1e-10)
