"""Layers built on other devices, dtypes and modes, copied and pickled, hold the right constants."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig, QuantumHead, TorchConnector, attention_circuit

EXACT = ["statevector", "density_matrix"]


def connector(backend):
    if "mps" in backend:
        pytest.importorskip("qiskit_aer")
    return TorchConnector(attention_circuit("zz", 2).qnn(backend))


def layers():
    """Return what makes layers of every kind, with their input."""
    tokens, config = torch.arange(4)[None], {"vocab_size": 9, "block_size": 4, "n_layer": 1, "n_head": 3, "n_embd": 12}
    makers = {
        backend: (partial(connector, backend), torch.rand(3, 2)) for backend in (*EXACT, "statevector?method=mps")
    }
    for name in ("qisa", "zz", "qsann"):
        makers[name] = (
            lambda name=name: QuantumHead(attention_circuit(name, 2)),
            torch.rand(3, 4 if name == "qisa" else 2),
        )
    makers["qsann"] = makers["qsann"][0], torch.rand(3, makers["qsann"][0]().num_features)
    vectors = partial(QuantumHead, attention_circuit("qisa", 2))
    makers["noisy"] = lambda: vectors().to_backend("density_matrix"), torch.rand(3, 4)
    makers["chain"] = lambda: vectors().to_backend("density_matrix -> classical"), torch.rand(3, 4)
    makers["model"] = lambda: GPT(GPTConfig(**config, heads="qisa:1,zz:1,quadratic:1", num_qubits=2)).eval(), tokens
    makers["rff"] = lambda: GPT(GPTConfig(**config, heads="rff:1,classical:2")).eval(), tokens
    return makers


def values(layer, x):
    found = layer(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", layers())
def test_layers_built_on_meta_come_out_right(name):
    make, x = layers()[name]
    model = make()
    expected, state = values(model, x), model.state_dict()
    with torch.device("meta"):
        first, second = make(), make()
    assert all(p.is_meta for p in first.parameters())
    shape = values(first, x.to("meta"))
    assert shape.is_meta and (shape.shape, shape.dtype) == (expected.shape, expected.dtype)
    first.to_empty(device="cpu").load_state_dict(state)
    second.load_state_dict(copy.deepcopy(state), assign=True)
    with torch.device("meta"):
        third = make()
    third.load_state_dict(copy.deepcopy(state), assign=True)
    for found in (first, second, third.to("cpu")):  # the third moves before it is called
        torch.testing.assert_close(values(found, x), expected)
        with torch.no_grad():
            torch.testing.assert_close(values(found, x), expected)
        assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in model.parameters())
    moved = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    moved.load_state_dict(state)
    torch.testing.assert_close(values(moved, x), expected)


@pytest.mark.parametrize("name", layers())
def test_default_devices_and_dtypes(name):
    make, x = layers()[name]
    model = make()
    state = model.state_dict()
    wide = copy.deepcopy(model).double()
    x_wide = x.double() if x.is_floating_point() else x
    expected, exact = values(model, x), values(wide, x_wide)
    for device in ("meta", "cpu"):
        torch.set_default_device(device)
        try:
            found = make()
        finally:
            torch.set_default_device(None)
        found.to_empty(device="cpu").load_state_dict(state)
        torch.testing.assert_close(values(found, x), expected)
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            found = make()
        finally:
            torch.set_default_dtype(torch.float32)
        found.double().load_state_dict(wide.state_dict())
        torch.testing.assert_close(values(found, x_wide), exact, rtol=0, atol=1e-12)


def test_a_default_dtype_of_half_precision_simulates_in_float32():
    torch.set_default_dtype(torch.bfloat16)
    try:
        layers = [QuantumHead(attention_circuit("zz", 2)).to_backend(backend) for backend in EXACT]
    finally:
        torch.set_default_dtype(torch.float32)
    for head in layers:
        x = torch.rand(5, 2)
        expected = copy.deepcopy(head).double()
        program, *arguments = head.call(x)
        exact, *wide = expected.call(x.double())
        torch.testing.assert_close(program(*arguments), exact(*wide).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", layers())
def test_layers_built_in_inference_mode(name):
    make, x = layers()[name]
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            model = make()
            inside = values(model, x)
        with torch.no_grad():
            torch.testing.assert_close(values(model, x), inside)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(state, assign=True)  # weights that can be trained
        values(model.requires_grad_(), x).sum().backward()


@pytest.mark.parametrize("name", layers())
def test_copies_and_pickles(name):
    make, x = layers()[name]
    model = make()
    expected = values(model, x)
    with torch.no_grad():
        values(model, x)  # and what is kept of it
    for found in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(values(found, x), expected)
        values(found, x).sum().backward()
