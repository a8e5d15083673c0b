"""Every circuit of the catalog side by side: its values are those of the exact engine and of one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.library.catalog import list_circuits
from qiskit_qattn.simulation.statevector import StatevectorProgram

pytestmark = pytest.mark.more
SHOTS = 400


def values(name: str, backend: str, tokens: int) -> tuple[np.ndarray, Any]:
    head = qa.attention_circuit(name, 4)
    generator = torch.Generator().manual_seed(3)
    x = 6 * torch.rand(tokens, len(head.input_params), generator=generator) - 3
    w = 6 * torch.rand(len(head.weight_params), generator=generator) - 3
    program = attention_program(head, get_backend(backend))
    with torch.no_grad():
        exact = StatevectorProgram(
            head.circuit, head.observables, input_params=head.input_params, weight_params=head.weight_params
        )(x, w)
        return np.abs((program(x, w) - exact).numpy()), program


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize(
    ("backend", "tokens"),
    [("ibm:fake_torino?noise=off&optimization=1&resilience=0&seed=4", 1000), ("braket:local?", 60)],
)
def test_tokens_differ_by_shot_noise(name: str, backend: str, tokens: int) -> None:
    error, program = values(name, f"{backend}&shots={SHOTS}&tiles=auto", tokens)
    assert error.max() < 5 / SHOTS**0.5
    assert np.sqrt((error**2).mean()) < 1 / SHOTS**0.5
    assert sum(program.tiles.values()) == tokens and len(program.tiles) >= 5
