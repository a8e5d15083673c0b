"""Compiled loops: cosines, sines and edges of blocks."""

from __future__ import annotations

import numpy as np
import pytest

from qiskit_qattn.simulation.cpu import phase_loops as compiled


def features_of(angles: np.ndarray) -> np.ndarray:
    """Return cos and sin, shape ``(2, B)``, as the loops compute them for one phase."""
    one, zero = np.ones((1, 1)), np.zeros(1)
    matrix, signs = np.zeros((1, 2, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    blocks = compiled.evaluate(angles.reshape(1, -1, 1), one, zero, matrix, signs, False, 1)[1][0]
    return np.concatenate(blocks, -1)[:, : len(angles)]


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e3, 9e5, 1e7, 1e30], ids=str)
def test_cosines_and_sines_are_those_of_numpy_at_any_size(scale, rng):
    angles = scale * np.concatenate([rng.uniform(-1, 1, 999), [0.0, 1.0, -1.0]])
    expected = np.stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_allclose(features_of(angles), expected, rtol=0, atol=1.2e-7)


def test_quarter_turns():
    angles = np.arange(-9, 10) * np.pi / 2
    expected = np.stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_allclose(features_of(angles), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_what_has_no_cosine_is_nan_and_leaves_the_other_rows_alone(bad):
    features = features_of(np.array([0.3, bad, 0.4]))
    assert np.isnan(features[:, 1]).all()
    np.testing.assert_allclose(features[0, [0, 2]], np.cos([0.3, 0.4]), rtol=0, atol=1e-7)
