"""Moving a model between backends and chains of them, and what it says about where it ran."""

import copy
import json
import warnings

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig, get_backend, leakage
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.audit import FallbackWarning

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
