"""Every head of the catalog has the same values wherever it runs, within what samples scatter."""

from __future__ import annotations

import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.library.catalog import list_circuits

SHOTS = 4096


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize(
    ("backend", "error"),
    [
        ("aer", 1e-5),
        (f"aer?shots={SHOTS}&seed=1", 5 * SHOTS**-0.5),
        (f"ibm:fake_manila?noise=off&resilience=0&optimization=0&shots={SHOTS}&seed=1", 5 * SHOTS**-0.5),
        ("braket:local", 1e-5),
        (f"braket:local?shots={SHOTS}", 5 * SHOTS**-0.5),
    ],
)
def test_a_head_is_the_same_wherever_it_runs(name: str, backend: str, error: float) -> None:
    head = qa.QuantumHead(qa.attention_circuit(name, 2))
    x = torch.rand(2, head.num_features) + 0.5
    exact = head(x)
    with torch.no_grad():
        scaled = (head.to_backend(backend)(x) - exact) / head.gain
    assert scaled.abs().max() < error
