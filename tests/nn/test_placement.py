"""Moving a model between backends and chains of them, and what it says about where it ran."""

import copy
import gc
import json
import pickle
import warnings

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import nn

from qiskit_qattn import (
    GPT,
    GPTConfig,
    QuantumHead,
    TorchConnector,
    attention_circuit,
    audit,
    get_backend,
    inference,
    leakage,
    to_backend,
)
from qiskit_qattn.backends.place import wait_until_closed
from qiskit_qattn.errors import BackendError, ConfigError, QattnError
from qiskit_qattn.nn.audit import FallbackWarning
from qiskit_qattn.nn.placement import quantum_parts

pytestmark = pytest.mark.usefixtures("laboratory")


def small_model(heads="qisa:1,classical:1"):
    config = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8, heads=heads, num_qubits=2)
    return GPT(config).double(), torch.randint(0, 11, (2, 5))


def test_a_model_says_where_its_heads_ran(caplog):
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
    with torch.no_grad():  # the warning was given
        torch.testing.assert_close(model(idx, idx)[1], expected.detach())
    assert [record.getMessage()[:8] for record in caplog.records] == ["Layer 1,", "Layer 0,"]
    rows = model.head_backends()
    assert rows[0]["backend"] == "lab?fails=2+3 (1 of 2 calls), statevector (1 of 2 calls)"
    assert rows[2]["calls"] == {"statevector": 1, "lab?fails=2+3": 1} and "calls" not in rows[1]
    loss.backward()
    found = model.audit()
    assert json.loads(json.dumps(found)) == found
    assert found["calls"] == found["gradients"] | {"lab?fails=2+3": 2, "statevector": 2}
    assert found["gradients"] == {"lab?fails=2+3": 1, "statevector": 1}
    assert [(fall["layer"], fall["kind"], fall["call"]) for fall in found["falls"]] == [
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


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: small_model(), lambda: (Encoder().eval(), torch.rand(3, 4))])
@pytest.mark.parametrize("text", ["aer", "aer?shots=50&seed=1", "aer?noise=fake_manila -> statevector"])
def test_modules_on_simulators_are_copied_and_pickled_with_their_samples(make, text):
    model, x = make()
    to_backend(model, text)
    others = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    expected = model(x)
    for other in others:
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
        to_backend(other, "statevector")
    assert set(places(model)) == {places(model)[0]}


# any module


class Encoder(nn.Module):
    """A model of someone's own: two quantum heads, one of them held twice, and a connector behind them."""

    def __init__(self):
        super().__init__()
        shared = QuantumHead(attention_circuit("qisa-v3", 2))
        self.first, self.layers = shared, nn.ModuleList([shared, QuantumHead(attention_circuit("zz", 2))])
        self.out = TorchConnector(network())
        self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout(0.5)

    def forward(self, x):  # (B, 4)
        x = self.layers[0](x)[:, :2] + self.first(2 * x)[:, :2]
        return self.out(self.drop(self.norm(self.layers[1](x)[:, :2])))


def network():
    x, t = ParameterVector("x", 2), ParameterVector("t", 2)
    circuit = QuantumCircuit(2)
    for qubit in range(2):
        circuit.ry(x[qubit], qubit)
    circuit.cx(0, 1)
    for qubit in range(2):
        circuit.ry(t[qubit], qubit)
    return EstimatorQNN(
        circuit=circuit,
        observables=SparsePauliOp("ZZ"),
        input_params=list(x),
        weight_params=list(t),
        estimator=StatevectorEstimator(),
        default_precision=0.0,
        input_gradients=True,
    )


def places(model):
    return [part.module.place and part.module.place.name for part in quantum_parts(model)]


def test_any_module_is_moved_by_a_string_and_comes_back():
    model, x = Encoder().eval(), torch.rand(3, 4)
    state, expected = copy.deepcopy(model.state_dict()), model(x)
    assert [part.name for part in quantum_parts(model)] == ["first", "layers.1", "out"]
    with to_backend(model, "statevector?method=mps") as inside:
        assert inside is model
        assert places(model) == ["statevector?method=mps"] * 3
        torch.testing.assert_close(model(x), expected)
    assert places(model) == ["statevector", "statevector", None]
    to_backend(model, "density_matrix?noise=depolarizing&p1=0.01&p2=0.02")
    assert (model(x) - expected).abs().max() > 1e-4
    with pytest.raises(ZeroDivisionError), to_backend(model, "statevector"):
        torch.testing.assert_close(model(x), expected)
        raise ZeroDivisionError
    assert places(model) == ["density_matrix?noise=depolarizing&p1=0.01&p2=0.02"] * 3
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_parts_of_any_module_are_named_by_their_path(caplog):
    model, x = nn.Sequential(nn.Flatten(), Encoder()), torch.rand(3, 2, 2)
    expected = model.eval()(x)
    assert audit(model) == {}
    to_backend(model, "lab?fails=2+4 -> statevector")
    with pytest.warns(FallbackWarning) as warned:
        torch.testing.assert_close(model(x), expected)
    assert [str(each.message).split(" pass:")[0] for each in warned] == ["1.first (qisa-v3), call 2, forward"]
    assert [record.getMessage().split(" pass:")[0] for record in caplog.records] == [
        "1.first (qisa-v3), call 2, forward",
        "1.out (EstimatorQNN), call 1, forward",
    ]
    found = audit(model)
    assert json.loads(json.dumps(found)) == found
    assert found["calls"] == {"lab?fails=2+4": 2, "statevector": 2}
    assert [(row["name"], row["layer"], row["kind"]) for row in found["heads"]] == [
        ("1.first", None, "qisa-v3"),
        ("1.layers.1", None, "zz"),
        ("1.out", None, "EstimatorQNN"),
    ]
    assert [(fall["name"], fall["call"], fall["link"]) for fall in found["falls"]] == [
        ("1.first", 2, "lab?fails=2+4"),
        ("1.out", 1, "lab?fails=2+4"),
    ]


def test_a_gpt_keeps_its_labels_and_is_named_inside_another_module():
    model, idx = small_model()
    with to_backend(model, "lab -> statevector"):
        model(idx)
    rows = [(row["name"], row["layer"], row["kind"]) for row in audit(model)["heads"]]
    assert rows == [("blocks.0.attn.maps.qisa-v3", 0, "qisa-v3"), ("blocks.1.attn.maps.qisa-v3", 1, "qisa-v3")]
    assert model.audit() == audit(model)
    wrapped = nn.ModuleDict({"text": model, "image": Encoder()})
    to_backend(wrapped, "lab -> statevector")
    assert [(part.name, part.layer) for part in quantum_parts(wrapped)][1:3] == [
        ("text.blocks.1.attn.maps.qisa-v3", None),
        ("image.first", None),
    ]


@pytest.mark.parametrize("text", ["lab -> classical", "nowhere", "lab:gone"])
def test_nothing_of_any_module_is_half_moved(text):
    model, x = Encoder().eval(), torch.rand(3, 4)
    expected = model(x)
    to_backend(model, "lab")
    device = model.first.place.single.estimator.device
    with pytest.raises(QattnError):
        to_backend(model, text)
    assert places(model) == ["lab"] * 3
    torch.testing.assert_close(model(x), expected)
    assert device.closed == 0


def test_a_block_around_any_module_closes_what_it_opened():
    model = Encoder().eval()
    to_backend(model, "statevector?seed=1&shots=10")
    move = to_backend(model, "lab")
    with move:
        model(torch.rand(3, 4))
        device = model.first.place.single.estimator.device
        assert device.closed == 0
    assert device.closed == 1 and places(model) == ["statevector?seed=1&shots=10"] * 3
    with pytest.raises(ConfigError, match="has undone this move already"), move:
        pass
    backend = get_backend("lab")
    with to_backend(model, backend):
        model(torch.rand(3, 4))
    assert backend.estimator.device.closed == 0


def test_heads_and_connectors_are_modules_too():
    head, layer = QuantumHead(attention_circuit("qisa", 2)), TorchConnector(network())
    for module in (head, layer):
        with to_backend(module, "lab -> statevector"):
            module(torch.rand(2, module.num_features if module is head else 2))
        assert audit(module)["calls"] == {"lab": 1}
        assert audit(module)["heads"][0]["name"] == ""


@pytest.mark.parametrize("call", [audit, lambda module: to_backend(module, "statevector")])
def test_a_module_without_circuits_is_refused(call):
    with pytest.raises(ConfigError, match="EncoderLayer holds no circuit: none of its modules is a Quantum"):
        call(nn.TransformerEncoderLayer(8, 2))
    with pytest.raises(ConfigError, match="Module, got list"):
        call([QuantumHead(attention_circuit("qisa", 2))])
    assert GPT.audit(small_model("classical:2")[0].to_backend("statevector?shots=10")) == {}  # it might hold some


def test_a_copy_for_inference_inside_a_module_is_not_moved():
    model, _ = small_model()
    model.to_backend("statevector?shots=10&seed=1")
    for part in (nn.Sequential(inference(model)), inference(model).blocks[0], inference(nn.Sequential(model))[0]):
        with pytest.raises(ConfigError, match="copy for inference cannot be moved"):
            to_backend(part, "lab")
    assert model.head_backends()[0]["backend"] == "statevector?seed=1&shots=10"


@torch.no_grad()
@pytest.mark.parametrize("text", ["statevector", "statevector?shots=1000000&seed=1", "aer", "lab -> statevector"])
def test_any_module_is_copied_for_inference(text):
    model, x = Encoder(), torch.rand(3, 4)
    expected = model.eval()(x)
    to_backend(model, text)
    fixed = inference(model.train())
    assert not fixed.training and model.training
    tolerance = 0.05 if "shots" in text else 1e-6
    torch.testing.assert_close(fixed(x), expected, rtol=0, atol=tolerance)
    model.norm.weight.mul_(3)
    torch.testing.assert_close(fixed(x), expected, rtol=0, atol=tolerance)
    assert places(model) == [text.replace("shots=1000000&seed=1", "seed=1&shots=1000000")] * 3
    if "->" in text:
        assert audit(model)["calls"] == {"lab": 8}  # the copy's circuits are the model's
