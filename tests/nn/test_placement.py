"""Moving a model between backends and chains of them, and what it says about where it ran."""

import copy
import gc
import json
import pickle
import warnings

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig, get_backend, leakage
from qiskit_qattn.backends.place import wait_until_closed
from qiskit_qattn.errors import BackendError, ConfigError, QattnError
from qiskit_qattn.nn.fallback import FallbackWarning

pytestmark = pytest.mark.usefixtures("laboratory")


def small_model(heads="qisa:1,classical:1"):
    config = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8, heads=heads, num_qubits=2)
    return GPT(config).double(), torch.randint(0, 11, (2, 5))


def test_a_model_says_where_its_heads_ran():
    model, idx = small_model("qisa:1,classical:1")
    state = copy.deepcopy(model.state_dict())
    expected = model(idx, idx)[1]
    assert model.audit() == {}
    assert model.to_backend("lab?fails=2+3 -> statevector") is model
    assert {row["backend"] for row in model.head_backends()} == {"lab?fails=2+3 -> statevector", "torch"}
    with pytest.warns(FallbackWarning, match="Layer 1, qisa-v3 heads, call 1"):
        loss = model(idx, idx)[1]
    torch.testing.assert_close(loss, expected)
    assert [row["backend"] for row in model.head_backends()] == ["lab?fails=2+3", "torch", "statevector", "torch"]
    with torch.no_grad(), pytest.warns(FallbackWarning, match="Layer 0"):
        torch.testing.assert_close(model(idx, idx)[1], expected.detach())
    rows = model.head_backends()
    assert rows[0]["backend"] == "lab?fails=2+3 (1 of 2 calls), statevector (1 of 2 calls)"
    assert rows[2]["calls"] == {"statevector": 1, "lab?fails=2+3": 1} and "calls" not in rows[1]
    loss.backward()
    audit = model.audit()
    assert json.loads(json.dumps(audit)) == audit
    assert audit["calls"] == audit["gradients"] | {"lab?fails=2+3": 2, "statevector": 2}
    assert audit["gradients"] == {"lab?fails=2+3": 1, "statevector": 1}
    assert [(fall["layer"], fall["kind"], fall["call"]) for fall in audit["falls"]] == [
        (0, "qisa-v3", 2),
        (1, "qisa-v3", 1),
    ]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("heads", ["qisa:2", "qsann:1,classical:1", "zz:2"])
def test_no_later_token_changes_an_earlier_output_on_a_chain(heads):
    model, _ = small_model(heads)
    model.to_backend("lab?fails=2+5+6 -> statevector")
    with pytest.warns(FallbackWarning):
        assert leakage(model) <= 1e-9
    assert len(model.audit()["calls"]) == 2


def test_a_move_that_fails_moves_no_head():
    model, idx = small_model("qisa:1,zz:1")
    expected = model(idx, idx)[1]
    with pytest.raises(ConfigError, match="no classical twin"):
        model.to_backend("lab -> classical")
    assert {row["backend"] for row in model.head_backends()} == {"statevector"}
    torch.testing.assert_close(model(idx, idx)[1], expected)


def test_a_block_comes_back_and_closes_what_it_opened():
    model, idx = small_model()
    model.to_backend("statevector?shots=10&seed=1")
    with model.to_backend("lab -> statevector") as inside:
        assert inside is model
        outer = model.quantum_heads()[0][2].backend.links[0][1].estimator
        with pytest.raises(ZeroDivisionError), model.to_backend("lab?fails=all"):
            inner = model.quantum_heads()[0][2].backend.estimator
            raise ZeroDivisionError
        assert (inner.device.closed, outer.device.closed) == (1, 0)
        model(idx)
        assert outer.runs == 2
    assert outer.device.closed == 1
    assert model.head_backends()[0]["backend"] == "statevector?seed=1&shots=10"
    assert model.audit() == {}  # of the last move
    with pytest.raises(ConfigError, match="must have been moved"), model:
        pass


def test_a_backend_of_the_users_own_stays_open():
    model, idx = small_model()
    backend = get_backend("lab")
    with model.to_backend(backend):
        model(idx)
    assert backend.estimator.device.closed == 0 and backend.estimator.runs == 2
    with model.to_backend("lab -> statevector"):
        model(idx)
    assert model.audit()["calls"] == {"lab": 2}  # the record outlives the block
    assert model.head_backends()[0]["backend"] == "statevector"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("text", ["statevector -> classical", "lab:gone -> classical", "lab -> statevector"])
def test_a_model_of_any_precision_runs_on_a_chain(dtype, text):
    model, idx = small_model("qisa:2")
    expected = model(idx, idx)[1]
    model.to(dtype).to_backend(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        loss = model(idx, idx)[1]
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, atol=0.05, rtol=0)
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.circuit_parameters())


# what a move leaves behind


def device_of(model, link=0):
    backend = model.quantum_heads()[0][2].backend
    return (backend if hasattr(backend, "estimator") else backend.links[link][1]).estimator.device


@pytest.mark.parametrize("text", ["lab", "lab -> statevector", "statevector -> lab -> lab?fails=9"])
def test_what_a_move_leaves_is_closed(text):
    model, idx = small_model()
    model.to_backend(text)
    devices = [device_of(model, link) for link, part in enumerate(text.split(" -> ")) if part.startswith("lab")]
    model(idx)
    assert [device.closed for device in devices] == [0] * len(devices)
    model.to_backend("lab")
    assert [device.closed for device in devices] == [1] * len(devices)
    last = device_of(model)
    model.to_backend("statevector")
    assert last.closed == 1 and [device.closed for device in devices] == [1] * len(devices)


def test_a_session_is_left_when_its_last_head_leaves():
    model, idx = small_model("qisa:1,zz:1")
    device = device_of(model.to_backend("lab"))
    *others, last = [head for _, _, head in model.quantum_heads()]
    for head in others:
        head.to_backend("statevector")
    model(idx)
    assert (device.closed, device.open) == (0, True)
    last.to_backend("statevector")
    assert device.closed == 1


def test_a_deleted_model_closes_what_it_opened():
    model, idx = small_model()
    device = device_of(model.to_backend("lab -> statevector"))
    model(idx)
    del model
    gc.collect()
    wait_until_closed()
    assert device.closed == 1


def test_a_copy_keeps_the_session_it_shares():
    model, idx = small_model()
    device = device_of(model.to_backend("lab"))
    other = copy.deepcopy(model)
    model.to_backend("statevector")
    torch.testing.assert_close(other(idx)[0], model(idx)[0])
    with pytest.raises(ConfigError, match="must have been moved"), other:
        pass
    assert device.closed == 0
    del other
    gc.collect()
    wait_until_closed()
    assert device.closed == 1


def test_a_move_that_fails_leaves_the_session_open():
    model, idx = small_model("qisa:1,zz:1")
    device = device_of(model.to_backend("lab"))
    for text in ("lab -> classical", "nowhere", "lab:gone"):
        with pytest.raises(QattnError):
            model.to_backend(text)
    model(idx)
    assert (device.closed, device.open) == (0, True)


def test_a_session_that_a_block_comes_back_to_is_opened_again():
    model, idx = small_model()
    device = device_of(model.to_backend("lab"))
    with model.to_backend("statevector"):
        assert device.closed == 1
    assert model.head_backends()[0]["backend"] == "lab"
    model(idx)
    assert (device.closed, device.open) == (1, True)
    model.to_backend("statevector")
    assert device.closed == 2


def test_a_backend_that_cannot_be_closed_does_not_stop_the_move(caplog, monkeypatch):
    model, idx = small_model()
    exact = model(idx)[0]

    def close(device):
        raise BackendError("The laboratory does not answer.")

    monkeypatch.setattr(type(device_of(model.to_backend("lab"))), "close", close)
    model.to_backend("lab").to_backend("statevector")
    assert caplog.messages == ["lab could not be closed: The laboratory does not answer."]
    torch.testing.assert_close(model(idx)[0], exact)
    with pytest.raises(BackendError, match="does not answer"), model.to_backend("lab"):
        pass


def test_a_moved_model_can_be_pickled():
    model, idx = small_model()
    model.to_backend("statevector?shots=20&seed=1").to_backend("statevector?method=dense")
    other = pickle.loads(pickle.dumps(model))
    assert torch.equal(other(idx)[0], model(idx)[0])
