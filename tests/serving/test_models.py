"""Models as a server loads them: texts of any folder, and rows of a batch as each alone."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
)

import qiskit_qattn as qa
from qiskit_qattn.errors import (
    BackendError,
    ConfigError,
    DataError,
    RunFolderError,
    TokenError,
    UnknownNameError,
)
from qiskit_qattn.hf import QattnForCausalLM, add_adapters
from qiskit_qattn.nn.quantize import Int8Linear
from qiskit_qattn.serving.batch import Batch
from qiskit_qattn.serving.hugging_face import ServedTransformer
from qiskit_qattn.serving.models import ServedGPT, load

from .conftest import LETTERS, sharpened

KINDS = [kind for kind in qa.list_heads() if kind != "frozen"]


def llama(tokenizer, heads: str | None = None, window: int | None = None) -> LlamaForCausalLM:
    """Return a small Llama, or with a sliding window a Mistral."""
    torch.manual_seed(2)
    config = (LlamaConfig if window is None else partial(MistralConfig, sliding_window=window))(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=40,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = sharpened(AutoModelForCausalLM.from_config(config))
    if heads:
        qa.replace_attention(model, heads, num_qubits=3)
    return model


def check_rows(served, alone, rng):
    """Check that rows which join and leave at random have the logits of their tokens alone."""
    batch, rows = Batch(served), []
    for _ in range(10):
        if rows:
            new = rng.integers(served.vocab_size, size=len(rows)).tolist()
            rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
            found = batch.step(new)
        sizes = rng.integers(1, 6, size=rng.integers(0 if rows else 1, 3))
        begun = [rng.integers(served.vocab_size, size=size).tolist() for size in sizes]
        if begun:
            last = batch.begin(begun)
            found, rows = torch.cat([found, last]) if rows else last, rows + begun
        expected = torch.stack([alone(torch.tensor([row]))[0, -1] for row in rows])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        kept = [i for i in range(len(rows)) if rng.random() < 0.7 and len(rows[i]) < served.context - 1]
        batch.keep(kept)
        rows = [rows[i] for i in kept]
        assert batch.lengths == [len(row) for row in rows]


@pytest.mark.parametrize("heads", ["qisa:1,zz:1,quadratic:1,classical:1", "overlap:1,complex:1,quixer:1,orthogonal:1"])
@torch.no_grad()
def test_rows_of_a_gpt_have_the_logits_of_each_alone(make_gpt, heads, rng):
    model = make_gpt(heads, block_size=16)
    check_rows(ServedGPT("gpt", model, LETTERS), lambda tokens: model(tokens)[0], rng)


@pytest.mark.more
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_of_every_kind_have_the_logits_of_each_alone(make_gpt, kind, rng):
    model = make_gpt(f"{kind}:4", block_size=16, num_qubits=None)
    check_rows(ServedGPT("gpt", model, LETTERS), lambda tokens: model(tokens)[0], rng)


@pytest.mark.parametrize(("heads", "window"), [(None, None), ("qisa:1,overlap:1,classical:2", None), (None, 4)])
@torch.no_grad()
def test_rows_of_a_hugging_face_model_have_the_logits_of_each_alone(byte_tokenizer, heads, window, rng):
    model = llama(byte_tokenizer, heads, window)
    check_rows(ServedTransformer("llama", model, byte_tokenizer), lambda tokens: model(tokens).logits, rng)


def test_a_run_is_served_under_its_folders_name(finished_run):
    model = load(str(finished_run))
    assert (model.name, model.context, model.rolls) == (finished_run.name, 8, True)
    text = "love death"
    assert model.decode(model.encode(text)) == text
    assert max(model.encode(text)) < model.vocab_size
    assert model.chat([{"role": "user", "content": "a"}]) is None
    with pytest.raises(TokenError, match="outside the vocabulary"):
        model.encode("love & death")
    with pytest.raises(DataError, match="The prompt is empty"):
        model.encode("")
    assert load(str(finished_run / "model")).encode(text) == model.encode(text)
    assert model.devices() == []


def test_what_transformers_saved_of_a_gpt_is_served_as_a_gpt(finished_run, tmp_path):
    model = QattnForCausalLM.from_pretrained(finished_run)
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_bytes((finished_run / "model" / "tokenizer.json").read_bytes())
    tokens = torch.tensor([[1, 2, 3]])
    ours, theirs = load(str(finished_run)), load(str(tmp_path / "saved"))
    assert isinstance(theirs, ServedGPT)
    assert torch.equal(Batch(ours).begin(tokens.tolist()), Batch(theirs).begin(tokens.tolist()))


def test_replaced_attention_is_served_from_its_folder(byte_tokenizer, tmp_path):
    model, folder = llama(byte_tokenizer, "qisa:2,classical:2"), tmp_path / "replaced"
    model.save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    served = load(str(folder))
    prompt = served.encode("für den 日")
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[:, -1]
    torch.testing.assert_close(Batch(served).begin([prompt]), expected, atol=1e-4, rtol=1e-4)
    assert (served.name, served.context, served.rolls) == ("replaced", 40, False)
    assert served.ends == {byte_tokenizer.eos_token_id}
    kinds = [(head["layer"], head["head"], head["kind"]) for head in served.heads]
    assert kinds[:4] == [(0, 0, "qisa-v3"), (0, 1, "qisa-v3"), (0, 2, "classical"), (0, 3, "classical")]
    assert served.decode(prompt) == "für den 日"


def test_adapters_are_served_from_their_folder(byte_tokenizer, tmp_path):
    model = llama(byte_tokenizer)
    model.save_pretrained(tmp_path / "base")
    byte_tokenizer.save_pretrained(tmp_path / "base")
    adapted = add_adapters(LlamaForCausalLM.from_pretrained(tmp_path / "base"), "qisa", 3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    adapted.eval().save_pretrained(tmp_path / "adapters")
    served = load(str(tmp_path / "adapters"))
    prompt = served.encode("für den")
    with torch.no_grad():
        expected = adapted(torch.tensor([prompt])).logits[:, -1]
    torch.testing.assert_close(Batch(served).begin([prompt]), expected, atol=1e-4, rtol=1e-4)
    assert served.heads
    assert {head["head"] for head in served.heads} == {None}


def test_a_chat_becomes_the_templates_tokens(byte_tokenizer):

    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('No tools here.') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    served = ServedTransformer("chat", llama(tokenizer), tokenizer)
    tokens = served.chat([{"role": "user", "content": "für 😀"}])
    assert served.decode(tokens) == "user: für 😀\nassistant: "
    with pytest.raises(DataError, match="The chat template of chat does not take these messages: No tools here"):
        served.chat([{"role": "tool", "content": "x"}])
    assert ServedTransformer("plain", llama(byte_tokenizer), byte_tokenizer).chat([]) is None


def test_what_cannot_be_served_is_refused(finished_run, byte_tokenizer, tmp_path):
    with pytest.raises(RunFolderError, match="There is no folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(RunFolderError, match="No model in"):
        load(str(tmp_path))
    with pytest.raises(RunFolderError, match=r"no folder 'no-such-model-here', and the Hugging Face Hub.*reached"):
        load("no-such-model-here")
    with pytest.raises(ConfigError, match="device must be auto, or one that torch has here, such as cpu; got 'abacus'"):
        load(str(finished_run), device="abacus")
    with pytest.raises(qa.UnknownNameError, match="statevectr"):
        load(str(finished_run), backend="statevectr")
    config = MambaConfig(vocab_size=len(byte_tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1)
    with pytest.raises(ConfigError, match="A MambaForCausalLM keeps another state of earlier tokens"):
        ServedTransformer("mamba", MambaForCausalLM(config), byte_tokenizer)


@pytest.mark.usefixtures("laboratory")
def test_a_backend_given_runs_the_circuits_and_is_closed_with_the_model(finished_run):
    served = load(str(finished_run), backend="lab -> statevector")
    Batch(served).begin([[1, 2]])
    [circuit] = served.parts
    assert circuit.module.execution.audit.calls == {"lab": 1}
    device = served.place.backends[0].estimator.device
    assert device.open
    served.close()
    assert (device.open, device.closed) == (False, 1)
    with pytest.raises(BackendError, match="cannot be reached"):
        load(str(finished_run), backend="lab:gone")


def test_weights_are_rounded_where_that_is_asked_for(finished_run):
    served = load(str(finished_run), quantize="int8")
    assert [name for name, part in served._model.named_modules() if isinstance(part, Int8Linear)]
    assert load(str(finished_run)).heads == served.heads
    with pytest.raises(UnknownNameError, match=r"Unknown quantization 'int4'.*Known: int8"):
        load(str(finished_run), quantize="int4")


def test_a_run_that_is_not_in_its_folder_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    with pytest.raises(RunFolderError, match=r"^There is no folder 'nano' in 'runs'\.$"):
        load("runs/nano")
