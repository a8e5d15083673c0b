"""Exported graphs: the logits of the model in torch and under onnxruntime, and what cannot be exported."""

from __future__ import annotations

import io
import json

import onnxruntime
import pytest
import torch
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.export import METADATA, largest_difference, to_bytes
from qiskit_qattn.nn.kinds import HEAD_KINDS
from qiskit_qattn.nn.quantize import quantize

SHAPES = [(1, 1), (2, 2), (1, 12), (5, 7)]
NOT_IN_ONNX = {"quixer": "quixer computes with complex numbers, for which ONNX has no operations"}


def gpt(heads, **options):
    count = sum(int(part.split(":")[1]) for part in heads.split(","))
    sizes = {"vocab_size": 11, "block_size": 12, "n_layer": 1, "n_head": count, "n_embd": 8 * count, "num_qubits": 4}
    model = qa.GPT(qa.GPTConfig(heads=heads, **(sizes | options))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def run_onnx(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda idx: torch.from_numpy(session.run(["logits"], {"tokens": idx.numpy()})[0])


def run_torch(content):
    return torch.export.load(io.BytesIO(content)).module()


RUN = {"onnx": run_onnx, "torch": run_torch}


def assert_same_logits(model, run):
    for shape in SHAPES:
        idx = torch.randint(model.config.vocab_size, shape)
        with torch.no_grad():
            torch.testing.assert_close(run(idx), model(idx)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", RUN)
def test_any_batch_and_length_gives_the_logits_of_the_model(form):
    model = gpt("qisa:1,classical:1")
    content = to_bytes(model, form, {})
    assert_same_logits(model, RUN[form](content))
    assert largest_difference(model, content, form) < 1e-5


@pytest.mark.more
@pytest.mark.parametrize("form", RUN)
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_kind_of_head_is_exported_or_says_why_not(kind, form):
    model = gpt(f"{kind}:2", n_layer=2)
    if form == "onnx" and kind in NOT_IN_ONNX:
        with pytest.raises(ConfigError, match=NOT_IN_ONNX[kind]):
            to_bytes(model, form, {})
        return
    assert_same_logits(model, RUN[form](to_bytes(model, form, {})))


@pytest.mark.more
@pytest.mark.parametrize("n", [2, 3, 6, 8])
@pytest.mark.parametrize("kind", ["qisa-v3", "zz", "angle", "overlap"])
def test_circuits_of_other_sizes_are_exported(kind, n):
    model = gpt(f"{kind}:2", num_qubits=n, bias=True)
    assert_same_logits(model, run_onnx(to_bytes(model, "onnx", {})))


def test_the_record_is_in_the_file_and_no_path_of_this_machine():
    record = {"characters": "\nab\ud800", "block_size": 12}
    model = gpt("classical:1")
    found = to_bytes(model, "onnx", record)
    told = onnxruntime.InferenceSession(found).get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in told.items()} == record
    other = to_bytes(model, "torch", record)
    torch.export.load(io.BytesIO(other), extra_files=(files := {METADATA: ""}))
    assert json.loads(files[METADATA]) == record
    for content in (found, other):
        assert b"site-packages" not in content and b"qiskit_qattn/nn" not in content


def test_circuits_on_other_backends_are_not_exported():
    model = gpt("qisa:1,classical:1").to_backend("statevector?shots=10")
    with pytest.raises(ConfigError, match=r"qisa-v3 in 'blocks.0.attn.maps.qisa-v3' runs on statevector\?shots=10"):
        to_bytes(model, "torch", {})
    to_bytes(model.to_backend("statevector"), "torch", {})


def test_sampled_attention_is_not_exported():
    with pytest.raises(ConfigError, match=r"Attention sampled by 'stratified.*draws keys at random"):
        to_bytes(gpt("qisa:1,classical:1", sampling="stratified?samples=4"), "torch", {})


@pytest.mark.more
def test_circuits_that_are_not_formed_as_matrices_are_exported_to_torch_alone():
    model = gpt("zz:1", num_qubits=9, n_embd=16, block_size=4)
    with pytest.raises(ConfigError, match=r"zz computes with complex numbers.* The format torch takes them"):
        to_bytes(model, "onnx", {})
    run, idx = run_torch(to_bytes(model, "torch", {})), torch.randint(11, (3, 4))
    with torch.no_grad():
        torch.testing.assert_close(run(idx), model(idx)[0], rtol=0, atol=1e-5)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_head_that_branches_on_values_is_refused_in_one_line(own_kinds):
    qa.register_head(qa.HeadKind("branching", values=lambda s: Branching(), num_features=lambda s: s.head_size))
    with pytest.raises(ConfigError, match=r"^torch.export cannot trace the model: [^\n]+$"):
        to_bytes(gpt("branching:1"), "torch", {})


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.more), "torch"])
def test_a_quantised_model_is_exported_with_its_rounded_weights(form):
    model = gpt("qisa:1,classical:1", n_embd=64)
    fixed = quantize(model)
    run, idx = RUN[form](to_bytes(fixed, form, {})), torch.randint(11, (3, 9))
    exact = fixed.double()(idx)[0].float()  # inputs are not rounded
    torch.testing.assert_close(run(idx), exact, rtol=0, atol=1e-5)
    assert (exact - model(idx)[0]).abs().max() > 1e-4
