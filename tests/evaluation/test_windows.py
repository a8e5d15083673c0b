"""Evenly spaced windows of a text."""

import pytest
import torch

from qiskit_qattn.errors import ConfigError, DataError
from qiskit_qattn.evaluation.windows import spaced_windows


def test_windows_are_spread_over_the_whole_text_without_overlap():
    x, y = spaced_windows(torch.arange(101), 10, 4)
    assert x[:, 0].tolist() == [0, 20, 50, 70]
    assert x.shape == y.shape == (4, 10) and torch.equal(y, x + 1)


@pytest.mark.parametrize("count", [10, 11, 1000])
def test_a_short_text_is_read_whole(count):
    x, _ = spaced_windows(torch.arange(101), 10, count)
    assert torch.equal(x.flatten(), torch.arange(100))


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ConfigError, match="windows is 0; it must be at least 1"):
        spaced_windows(torch.arange(101), 10, 0)
    with pytest.raises(DataError, match="needs at least 11"):
        spaced_windows(torch.arange(10), 10, 4)
