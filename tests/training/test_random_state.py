from __future__ import annotations

import io
import random

import numpy as np
import torch

from qiskit_qattn.training import random_state


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_restored_generators_repeat_themselves():
    draw()
    buffer = io.BytesIO()
    torch.save(random_state.capture(), buffer)
    first = draw()
    buffer.seek(0)
    random_state.restore(torch.load(buffer, weights_only=True))
    assert draw() == first
