"""A result is kept for the same values, and for nothing else."""

from __future__ import annotations

import pytest
import torch

from qiskit_qattn.simulation.kept import Kept

CHANGES = {
    "a value": ([torch.tensor([1.0, 2.0]), torch.tensor([3.5])], "key"),
    "a shape": ([torch.tensor([1.0]), torch.tensor([2.0, 3.0])], "key"),
    "a dtype": ([torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0]).double()], "key"),
    "another's dtype": ([torch.tensor([1.0, 2.0]), torch.tensor([3.0]).double()], "key"),
    "the key": ([torch.tensor([1.0, 2.0]), torch.tensor([3.0])], "another"),
    "NaN": ([torch.tensor([1.0, 2.0]), torch.tensor([torch.nan])], "key"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_computed_again(change):
    kept, calls = Kept[int](), []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    assert kept.get(compute, tensors, "key") == kept.get(compute, [t.clone() for t in tensors], "key") == 1
    other, key = CHANGES[change]
    assert kept.get(compute, other, key) == 2


@torch.no_grad()
def test_edits_in_place_are_seen():
    kept, weight = Kept[float](), torch.nn.Parameter(torch.ones(2))
    assert kept.get(lambda: float(weight.sum()), [weight]) == 2
    weight.data[0] = 5
    assert kept.get(lambda: float(weight.sum()), [weight]) == 6
