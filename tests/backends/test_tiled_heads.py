"""Every circuit of the catalog side by side: its values are those of the exact engine and of one at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tile_placement import blocks
from qiskit_qattn.backends.tiling import Tiling
from qiskit_qattn.library.catalog import list_circuits
from qiskit_qattn.simulation.statevector import StatevectorProgram

pytestmark = pytest.mark.more
SHOTS = 400


def chain(count: int) -> Backend:
    """Return the sampled exact engine as a device that holds some circuits of four qubits and computes them as one."""
    backend = get_backend(f"statevector?shots={SHOTS}&seed=4")
    size = 4 * count
    tiling = Tiling("chain", size, Tiles(count, 0), lambda qubits: blocks(size, qubits, count, 0))
    return replace(backend, tiling=tiling, program=None)


def check(name: str, backend: Backend, tokens: int) -> None:
    """Check a circuit's values at random inputs against the exact engine."""
    head = qa.attention_circuit(name, 4)
    generator = torch.Generator().manual_seed(3)
    x = 6 * torch.rand(tokens, len(head.input_params), generator=generator) - 3
    w = 6 * torch.rand(len(head.weight_params), generator=generator) - 3
    params = {"input_params": head.input_params, "weight_params": head.weight_params}
    program = attention_program(head, backend)
    with torch.no_grad():
        exact = StatevectorProgram(head.circuit, head.observables, **params)(x, w)
        error = (program(x, w) - exact).abs()
    assert error.max() < 6 / SHOTS**0.5
    variance = ((1 - exact.square()) / SHOTS).mean()
    assert error.square().mean() < variance * (1 + 6 * (2 / error.numel()) ** 0.5)  # six standard errors
    assert sum(program.tiles.values()) == tokens


@pytest.mark.parametrize("name", list_circuits())
def test_a_thousand_tokens_differ_by_shot_noise(name: str) -> None:
    check(name, chain(3), 1000)


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize("text", ["ibm:fake_torino?noise=off&optimization=1&resilience=0&seed=4", "braket:local?"])
def test_tokens_on_local_devices_differ_by_shot_noise(name: str, text: str) -> None:
    check(name, get_backend(f"{text}&shots={SHOTS}&tiles=auto"), 30)
