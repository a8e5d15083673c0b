"""The figures of a comparison: distances of distributions, and differences of expectations with their error bars."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qiskit_qattn.evaluation.device_run.compare import head_rows, summary, token_rows
from qiskit_qattn.evaluation.device_run.trace import HeadValues


def test_equal_distributions_have_no_distance():
    logits = torch.randn(5, 7, dtype=torch.float64)
    rows = token_rows([0, 1, 2, 3, 4], logits, [0, 1, 2, 3, 4], logits + 3.0, None, 0.7)
    for row in rows:
        assert row.tvd == pytest.approx(0, abs=1e-7) and row.kl == pytest.approx(0, abs=1e-7)
        assert row.p_device == pytest.approx(row.p_exact, abs=1e-7)
    assert summary(rows, None, logits, 0.7) == pytest.approx(
        {"tokens": 5, "same": 5, "tvd": 0, "kl": 0, "tvd_shots": None, "tvd_shots_95": None, "share": None}, abs=1e-6
    )


def test_known_distributions_have_the_distances_of_the_book():
    device, exact = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
    [row] = token_rows([1], device, [0], exact, None, 1.0)
    assert (row.p_device, row.p_exact) == pytest.approx((0.25, 0.5), rel=1e-6)
    assert row.tvd == pytest.approx(0.25, rel=1e-6)
    assert row.kl == pytest.approx(0.25 * math.log(0.5) + 0.5 * math.log(2), rel=1e-6)
    assert (row.token, row.exact_token) == (1, 0)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
def test_distances_keep_pinskers_inequality_and_their_bounds(temperature):
    device, exact = 3 * torch.randn(40, 9), 3 * torch.randn(40, 9)
    for row in token_rows([0] * 40, device, [0] * 40, exact, None, temperature):
        assert 0 <= 2 * row.tvd**2 <= row.kl + 1e-12
        assert abs(row.p_device - row.p_exact) <= row.tvd + 1e-12 <= 1


def test_runs_with_shots_give_the_error_bars():
    exact, noise = torch.randn(6, 5), 0.01 * torch.randn(6, 400, 5)
    sampled = exact[:, None] + noise
    rows = token_rows([2] * 6, exact, [2] * 6, exact, sampled, 1.0)
    p = sampled.double().softmax(-1)[:, :, 2]
    assert [row.error for row in rows] == pytest.approx(p.std(1).tolist())
    assert all(0 < row.tvd_shots < row.tvd_shots_95 < 0.02 for row in rows)
    found = summary(rows, sampled, exact, 1.0)
    assert found["share"] == 1  # every run is farther off than no difference
    far = token_rows([2] * 6, exact + torch.randn(6, 5), [2] * 6, exact, sampled, 1.0)
    assert summary(far, sampled, exact, 1.0)["share"] == 0


def values(exact, slope, error, rng):
    noise = error * rng.standard_normal(exact.shape)
    return HeadValues(0, "angle", slope * exact + noise, exact, np.full(exact.shape, error))


def test_a_shrunk_signal_is_found_within_its_error_bar(rng):
    exact = rng.uniform(-1, 1, (2, 4000, 3))
    for row in head_rows([[values(exact, 0.8, 0.05, rng)]]):
        assert abs(row.slope - 0.8) < 5 * row.slope_error < 0.01
        assert row.rms_error == pytest.approx(0.05)
        assert row.rms == pytest.approx(math.sqrt(0.05**2 + (0.2**2) / 3), rel=0.05)


def test_shots_alone_leave_about_five_percent_beyond_two_errors(rng):
    [row, _] = head_rows([[values(rng.uniform(-1, 1, (2, 4000, 3)), 1.0, 0.05, rng)]])
    assert row.rms == pytest.approx(row.rms_error, rel=0.05)
    assert row.outside == pytest.approx(0.0455, abs=0.01)


def test_passes_are_put_together_head_by_head(rng):
    passes = [[values(rng.uniform(-1, 1, (2, rows, 3)), 1.0, 0.0, rng)] for rows in (5, 1, 1)]
    rows = head_rows(passes)
    assert [(row.layer, row.kind, row.head, row.values) for row in rows] == [(0, "angle", 0, 21), (0, "angle", 1, 21)]
    assert all((row.rms, row.outside, row.slope_error) == (0, 0, 0) and row.slope == pytest.approx(1) for row in rows)


def test_errors_that_are_not_known_are_not_made_up(rng):
    exact = rng.uniform(-1, 1, (1, 5, 3))
    [row] = head_rows([[HeadValues(0, "angle", exact, exact, np.full(exact.shape, math.nan))]])
    assert (row.rms_error, row.outside, row.slope_error) == (None, None, None)
