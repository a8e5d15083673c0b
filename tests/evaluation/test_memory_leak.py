"""A leak is called one where memory grows for good, and not where it jumps, fills caches or wobbles."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qiskit_qattn.evaluation.memory_leak import LEAST_STEPS, leak
from qiskit_qattn.training.profiling import resident_mib

STEPS = list(range(10, 130))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, len(STEPS))


def test_the_slope_is_that_of_a_line():
    found = leak(STEPS, [100 + step / 1024 * 3 for step in STEPS])
    assert found["slope_kib"] == pytest.approx(3) and found["leaks"] is True
    assert found["low_kib"] <= 3 + 1e-9 and found["high_kib"] >= 3 - 1e-9
    assert "leaks" in found["verdict"] and "3.0 KiB per step" in found["verdict"]


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_holds_the_true_slope_of_noisy_sizes(seed: int):
    found = leak(STEPS, np.array(STEPS) * 5 / 1024 + 300 + noise(seed))
    assert found["low_kib"] < 5 < found["high_kib"] and found["leaks"]
    still = leak(STEPS, 300 + noise(seed))
    assert still["low_kib"] < 0 < still["high_kib"] and still["leaks"] is False
    assert still["verdict"].startswith("No leak seen")


@pytest.mark.parametrize(
    "sizes",
    [
        [100.0] * len(STEPS),
        [100.0 if step < 80 else 160.0 for step in STEPS],  # an allocator asked for more, once
        [min(100 + step, 180) for step in STEPS],  # a cache that is full after 80 steps
        [500.0 - step for step in STEPS],
    ],
)
def test_other_changes_are_no_leaks(sizes: list[float]):
    assert leak(STEPS, sizes)["leaks"] is False


def test_few_steps_give_no_verdict():
    found = leak(STEPS[: LEAST_STEPS - 1], [1.0] * (LEAST_STEPS - 1))
    assert found["leaks"] is None and found["slope_kib"] is None and "Too few steps" in found["verdict"]
    assert leak([], [])["leaks"] is None


class Keeps(nn.Module):
    """Adds one, and on purpose keeps what it allocated on the way."""

    def __init__(self, forgets: bool) -> None:
        super().__init__()
        self.forgets, self.kept = forgets, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        """Return x + 1."""
        one = torch.frombuffer(mmap.mmap(-1, 2**20), dtype=torch.uint8).fill_(1)  # a MiB that is not in the heap's gaps
        self.kept.append(one)
        if self.forgets:
            self.kept.clear()
        return x + one[:1]


@pytest.mark.parametrize("forgets", [False, True])
def test_a_module_that_leaks_is_told_from_one_that_does_not(forgets: bool):
    module, sizes = Keeps(forgets), []
    for _ in range(48):
        module(torch.zeros(1))
        sizes.append(resident_mib())
    found = leak(range(48), sizes)
    assert found["leaks"] is not forgets
    if not forgets:
        assert found["slope_kib"] == pytest.approx(1024, rel=0.05)
