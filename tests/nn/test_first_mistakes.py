"""The mistakes that a newcomer makes first are answered by an error that says what to do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.circuit import QuantumCircuit
from qiskit_machine_learning.neural_networks import EstimatorQNN

import qiskit_qattn as qa

GPT = qa.GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=2, n_embd=8, heads="qisa:1,classical:1", num_qubits=2)


@pytest.fixture(scope="module")
def model() -> qa.GPT:
    return qa.GPT(GPT)


@pytest.fixture(scope="module")
def network() -> EstimatorQNN:
    return qa.attention_circuit("angle", num_qubits=2).qnn()


@pytest.mark.parametrize("given", ["qisa", 4, None])
def test_a_head_of_something_else_than_a_circuit(given: Any):
    with pytest.raises(qa.ConfigError, match=r"takes an AttentionCircuit, got .*attention_circuit\('qisa', num_qubits"):
        qa.QuantumHead(given)


@pytest.mark.parametrize("given", ["text", np.ones((3, 4)), [[1.0, 0.0, 0.0, 0.0]]])
def test_an_input_that_is_no_tensor(given: Any, network: EstimatorQNN):
    with pytest.raises(qa.EncodingError, match="takes a tensor of vectors of length 4, got "):
        qa.QuantumHead(qa.attention_circuit("qisa", num_qubits=2))(given)
    with pytest.raises(qa.ConfigError, match=r"takes a tensor of shape \(…, 2\), got "):
        qa.TorchConnector(network)(given)


@pytest.mark.parametrize("shape", [(4,), ()])
@pytest.mark.parametrize("backend", ["statevector", "statevector?shots=8&seed=1"])
def test_an_input_without_rows(shape: tuple[int, ...], backend: str):
    head = qa.QuantumHead(qa.attention_circuit("qisa", num_qubits=2)).to_backend(backend)
    with pytest.raises(qa.EncodingError, match=r"takes rows of vectors, shape \(…, N, 4\), got \("):
        head(torch.ones(shape))


@pytest.mark.parametrize("call", ["forward", "generate"])
@pytest.mark.parametrize(
    ("idx", "error", "expected"),
    [
        ("ROMEO:", qa.ConfigError, "takes token ids, got the text 'ROMEO:': encode it with the model's tokenizer"),
        ([[1, 2]], qa.ConfigError, r"a tensor of token ids of shape \(B, T\), got \[\[1, 2\]\]"),
        (np.ones((1, 2), dtype=int), qa.ConfigError, r"a tensor of token ids of shape \(B, T\), got array"),
        (torch.tensor([[1.0, 2.0]]), qa.ConfigError, "int64 or int32, got a tensor of torch.float32"),
        (torch.tensor([1, 2]), qa.ConfigError, r"shape \(B, T\), got \(2,\); one sequence is idx\[None\]"),
        (torch.tensor([[1, 7]]), qa.TokenError, "Token 7 is outside the vocabulary: the model has 7 tokens, 0 to 6"),
        (torch.tensor([[-1, 2]]), qa.TokenError, "Token -1 is outside the vocabulary"),
    ],
)
def test_tokens_that_are_none(model: qa.GPT, call: str, idx: Any, error: type[Exception], expected: str):
    with pytest.raises(error, match=expected):
        getattr(model, call)(idx)


def test_options_of_generation_of_another_type(model: qa.GPT):
    idx = torch.tensor([[1]])
    with pytest.raises(qa.ConfigError, match=r"integers and temperature a number; got '3', None and 1.0"):
        model.generate(idx, "3")  # type: ignore[arg-type]
    assert model.generate(idx).shape == (1, 101)


def test_targets_of_another_shape(model: qa.GPT):
    with pytest.raises(qa.ConfigError, match=r"the shape of idx, \(1, 3\), got \(1, 2\)"):
        model(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize("given", ["nano", {"n_layer": 2}, None])
def test_a_gpt_of_something_else_than_a_config(given: Any):
    with pytest.raises(qa.ConfigError, match=r"GPT takes a GPTConfig, got .*from_pretrained"):
        qa.GPT(given)


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/at/all", "runs/a/model"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(name: str):
    with pytest.raises(qa.CheckpointError, match=f"There is no folder '{name}', and models on the Hub are named user/"):
        qa.GPT.from_pretrained(name)


@pytest.mark.parametrize("given", ["angle", QuantumCircuit(2), qa.attention_circuit("angle", num_qubits=2)])
def test_a_connector_of_something_else_than_a_network(given: Any):
    hint = "circuit.qnn" if isinstance(given, qa.AttentionCircuit) else "EstimatorQNN"
    with pytest.raises(qa.ConfigError, match=rf"takes a neural network, got .*{hint}\("):
        qa.TorchConnector(given)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ibm_fez", "Did you mean 'ibm:ibm_fez'"),
        ("fake_manila", "Did you mean 'ibm:fake_manila'"),
        ("qasm_simulator", "Did you mean 'aer'"),
        ("sv1", "Did you mean 'braket:sv1'"),
        ("cuda", r"chosen with model.to\('cuda'\)"),
    ],
)
def test_what_is_no_backend_but_near_one(model: qa.GPT, name: str, expected: str):
    with pytest.raises(qa.UnknownNameError, match=rf"{expected}.* Known: aer, .*statevector"):
        model.to_backend(name)


@pytest.mark.parametrize("given", [None, 3])
def test_a_backend_that_is_no_string(model: qa.GPT, given: Any):
    for call in (qa.get_backend, model.to_backend):
        with pytest.raises(qa.ConfigError, match=f"named by a string such as 'statevector.shots=1024', got {given}"):
            call(given)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: qa.attention_circuit("qisa", num_qubits="4"), "num_qubits must be an integer, got '4'"),  # type: ignore[arg-type]
        (lambda: qa.attention_circuit("qisa", num_qubits=4.0), "num_qubits must be an integer, got 4.0"),  # type: ignore[arg-type]
        (lambda: qa.attention_circuit("qisa", 4, reps="2"), "reps must be an integer, got '2'"),  # type: ignore[arg-type]
        (lambda: qa.attention_circuit(4, 4), "Unknown attention circuit '4'. Known: angle"),  # type: ignore[arg-type]
        (lambda: qa.AttentionCircuit.from_circuit("x", [], [], []), "takes a QuantumCircuit, got 'x'"),  # type: ignore[arg-type]
        (lambda: qa.register_head("x"), r"takes a HeadKind, got 'x', as in HeadKind\("),  # type: ignore[arg-type]
        (lambda: qa.inference("x"), "takes a torch.nn.Module, got 'x'"),  # type: ignore[type-var]
        (lambda: qa.leakage("x"), "takes a model, any callable .*got 'x'"),  # type: ignore[arg-type]
        (lambda: qa.leakage(torch.nn.Identity(), "x"), "vocab_size must be an integer, got 'x'"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_type(call: Any, expected: str):
    with pytest.raises(qa.QattnError, match=expected):
        call()


def test_a_gpt_in_place_of_a_model_with_torchs_attention(model: qa.GPT):
    with pytest.raises(qa.ConfigError, match=r"the heads of a GPT are set when it is built, as in GPTConfig\(heads="):
        qa.replace_attention(model, "qisa")


def test_a_name_that_does_not_exist_is_corrected_by_python():
    with pytest.raises(AttributeError) as found:
        qa.attentoin_circuit  # noqa: B018
    assert (found.value.name, found.value.obj) == ("attentoin_circuit", qa)


def test_a_connector_takes_a_fast_network_as_the_network_that_it_was_made_of(network: EstimatorQNN):
    x, weights = torch.rand(3, 2), np.linspace(-1, 1, network.num_weights)
    plain, fast = (qa.TorchConnector(each, weights) for each in (network, qa.fast(network)))
    assert qa.compile_qnn(fast.neural_network).engine == qa.compile_qnn(network).engine == "statevector"
    torch.testing.assert_close(fast(x), plain(x), rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampled = qa.TorchConnector(qa.fast(network), weights, backend="statevector?shots=100&seed=1")
    assert sampled(x).shape == plain(x).shape


def test_a_run_that_is_not_in_its_folder_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    with pytest.raises(qa.CheckpointError, match=r"^There is no folder 'nano' in 'runs'\.$"):
        qa.GPT.from_pretrained("runs/nano")
