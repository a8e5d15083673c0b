from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qiskit_qattn.training.validation import evaluate


class KnowsTheLast(nn.Module):
    """Predicts token 1 with certainty at the last position, and nothing elsewhere."""

    def forward(self, idx: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert not self.training
        logits = torch.zeros(*idx.shape, 4)  # (B, T, 4)
        logits[:, -1, 1] = 100.0
        return logits, None


def test_the_last_position_is_told_apart_and_batches_weigh_by_their_size():
    model = KnowsTheLast()
    ones = torch.ones(3, 5, dtype=torch.long)
    losses = evaluate(model, [(ones, ones), (ones[:1], ones[:1] * 0)])
    assert losses.last_position == pytest.approx((3 * 0 + 100) / 4)
    assert losses.all_positions == pytest.approx((16 * math.log(4) + 100) / 20)
    assert model.training
