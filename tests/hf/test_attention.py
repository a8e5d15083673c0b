"""Quantum attention in the models of Hugging Face."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BartForConditionalGeneration,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Trainer,
    TrainingArguments,
)

import qiskit_qattn as qa
from qiskit_qattn.errors import CheckpointError, ConfigError, UnknownNameError
from qiskit_qattn.hf import QattnConfig, QattnForCausalLM, add_adapters
from qiskit_qattn.hf.heads import QattnHeads

from .conftest import VOCABULARY, inputs_of

AUTO = {
    "gpt2": AutoModelForCausalLM,
    "llama": AutoModelForCausalLM,
    "bert": AutoModelForSequenceClassification,
    "vit": AutoModelForImageClassification,
    "t5": AutoModelForSeq2SeqLM,
    "bart": AutoModelForSeq2SeqLM,
}
HEADS = ["qisa:2,classical:2", "qsann:1,angle:1,qisa-v2:2", "frozen:1,quadratic:1,zz:2"]


def bart():
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=32,
        decoder_start_token_id=2,
        dropout=0.0,
    )
    torch.manual_seed(3)
    return BartForConditionalGeneration(config).eval()


@pytest.fixture
def make(build):
    """Return a function that builds a model by name, BART too."""
    return lambda name: bart() if name == "bart" else build(name)


def logits(model, **changes):
    with torch.no_grad():
        return model(**(inputs_of(model) | changes)).logits


def heads_of(model):
    return [module for module in model.modules() if isinstance(module, QattnHeads)]


def masks(model):
    """Return no mask, padding on the right, and on the left."""
    tokens = inputs_of(model).get("input_ids")
    if tokens is None:
        return [{}]
    right, left = torch.ones_like(tokens), torch.ones_like(tokens)
    right[1, 6:] = left[1, :4] = 0
    return [{"attention_mask": None}, {"attention_mask": right}, {"attention_mask": left}]


@pytest.mark.parametrize("name", AUTO)
def test_classical_heads_give_the_logits_of_sdpa_with_and_without_padding(make, name):
    model, plain = make(name), make(name)
    plain.set_attn_implementation("sdpa")
    assert len(qa.replace_attention(model, "classical")) == len(heads_of(model)) > 0
    for changes in masks(model):
        torch.testing.assert_close(logits(model, **changes), logits(plain, **changes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", HEADS)
def test_heads_are_those_of_multihead_attention(heads):
    """With projections that change nothing."""
    torch.manual_seed(2)
    own = QattnHeads(4, 8, heads)
    other = qa.QuantumMultiheadAttention(32, 4, bias=False, batch_first=True, heads=heads)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.eye(32).repeat(3, 1))
        other.out_proj.weight.copy_(torch.eye(32))
    other.maps.load_state_dict(own.maps.state_dict())
    other.encodings.load_state_dict(own.encodings.state_dict())
    q, k, v = (torch.randn(2, length, 32) for length in (5, 7, 7))
    mask = torch.rand(5, 7) < 0.7
    mask[:, 0] = True
    found, weights = own(*(x.unflatten(-1, (4, 8)).transpose(1, 2) for x in (q, k, v)), mask=mask[None, None])
    expected, _ = other(q, k, v, attn_mask=~mask)
    assert weights is None
    torch.testing.assert_close(found.transpose(1, 2).flatten(2), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", AUTO)
def test_saved_models_are_loaded_by_the_auto_classes_to_the_bit(make, name, heads, tmp_path):
    model = make(name)
    names = qa.replace_attention(model, heads)
    assert names and model.config._attn_implementation == "quantum"
    model(**inputs_of(model)).loss.backward()
    trained = [p for module in heads_of(model) for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    model.save_pretrained(tmp_path)
    loaded = AUTO[name].from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    flags = {key: p.requires_grad for key, p in model.named_parameters()}
    assert {key: p.requires_grad for key, p in loaded.named_parameters()} == flags
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(type(model).from_pretrained(tmp_path / "again")), logits(model))


def test_heads_may_differ_from_layer_to_layer(build, tmp_path):
    model = build("llama")
    assert qa.replace_attention(model, "qisa:1,classical:3", "*.layers.0.*") == ["model.layers.0.self_attn"]
    assert qa.replace_attention(model, "zz", lambda name: ".1." in name, num_qubits=3, reps=1) == [
        "model.layers.1.self_attn"
    ]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert [heads.heads for heads in heads_of(loaded)] == ["qisa-v3:1,classical:3", "zz:4"]
    assert torch.equal(logits(loaded), logits(model))


def test_some_attention_may_stay_as_it_is(build, tmp_path):
    model = build("gpt2")
    qa.replace_attention(model, "qisa", "transformer.h.1.*")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert len(heads_of(loaded)) == 1 and torch.equal(logits(loaded), logits(model))


def test_a_model_without_its_last_layer_has_the_heads_too(build, tmp_path):
    model = build("bert")
    qa.replace_attention(model, "qisa")
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is BertModel
    tokens = inputs_of(model)["input_ids"]
    with torch.no_grad():
        assert torch.equal(loaded(tokens).last_hidden_state, model.bert(tokens).last_hidden_state)


def test_a_loaded_model_changes_its_type_as_any_other(build, tmp_path):
    model = build("llama")
    qa.replace_attention(model, "qisa")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.half().parameters()} == {torch.float16}
    assert {p.dtype for p in loaded.float().parameters()} == {torch.float32}


# Generation


@pytest.mark.parametrize("heads", HEADS[:2])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_greedy_generation_is_the_same_with_every_cache_and_without(make, name, heads):
    model = make(name)
    qa.replace_attention(model, heads)
    inputs = {key: value for key, value in inputs_of(model).items() if key != "labels"}
    if name in ("gpt2", "llama"):  # prompts are padded on the left
        inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    options = {**inputs, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = model.generate(**options, use_cache=False)
    assert torch.equal(model.generate(**options), expected)
    assert torch.equal(model.generate(**options, cache_implementation="static", disable_compile=True), expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_later_tokens_change_nothing_before_them(build, name):
    model = build(name)
    qa.replace_attention(model, HEADS[1])
    assert float(qa.leakage(model, vocab_size=VOCABULARY, block_size=8)) == 0


def test_weights_are_returned_where_they_are_asked_for(build):
    model, plain = build("vit"), build("vit")
    qa.replace_attention(model, "classical")
    plain.set_attn_implementation("eager")
    pixels = inputs_of(model)["pixel_values"]
    with torch.no_grad():
        found, expected = (each(pixels, output_attentions=True).attentions for each in (model, plain))
    torch.testing.assert_close(found, expected)


# Training


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_gradient_checkpointing_gives_the_same_gradients(build, name):
    model = build(name)
    qa.replace_attention(model, HEADS[0])
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # T5's attention
            module.dropout = 0.0

    def gradients():
        model.zero_grad()
        model(**inputs_of(model)).loss.backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.activation_checkpointing_enable()
    found = gradients()
    assert found.keys() == expected.keys() and any("qattn_heads" in key for key in found)
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key])


def test_trainer_trains_circuits_and_goes_on_from_its_checkpoint(build, tmp_path):
    model = build("bert")
    qa.replace_attention(model, "qisa:2,frozen:2")
    rows = [{key: value[i] for key, value in inputs_of(model).items()} for i in range(3)]
    before = {key: p.clone() for key, p in model.named_parameters()}

    def trainer(model, steps):
        arguments = TrainingArguments(
            str(tmp_path / "run"),
            max_steps=steps,
            per_device_train_batch_size=3,
            learning_rate=0.01,
            save_steps=4,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        return Trainer(model, arguments, train_dataset=rows)

    trainer(model, 4).train()
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    angles = {key for key in before if "qattn_heads" in key and key.endswith(".weight")}
    assert {key for key in angles if "frozen" in key}.isdisjoint(changed)
    assert {key for key in angles if "qisa" in key} <= changed
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "checkpoint-4")
    assert torch.equal(logits(loaded), logits(model.eval()))
    trainer(loaded, 8).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert not torch.equal(logits(loaded.eval()), logits(model))


def test_half_precision_models_have_heads_of_their_type(build, tmp_path):
    build("llama").save_pretrained(tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.bfloat16)
    qa.replace_attention(model, "qisa")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "quantum")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "quantum")), logits(model))


def test_circuits_move_to_a_backend_and_back(build):
    model = build("llama")
    qa.replace_attention(model, "qisa:1,classical:3", "*.0.*", backend="statevector?shots=50&seed=1")
    sampled = logits(model)
    qa.to_backend(model, "statevector")
    exact = logits(model)
    assert 0 < (sampled - exact).abs().max() < 2
    with qa.to_backend(model, "statevector?shots=100000&seed=1"):
        torch.testing.assert_close(logits(model), exact, atol=0.1, rtol=0)
    assert torch.equal(logits(model), exact)


def test_a_model_of_classical_heads_alone_moves_as_torchs_does(build):
    """It has no circuit to run elsewhere; a backend that is none is told all the same."""
    model = build("gpt2")
    with pytest.raises(UnknownNameError, match="Unknown backend 'nowhere'"):
        qa.replace_attention(model, "classical", backend="nowhere")
    qa.replace_attention(model, "classical", backend="statevector?shots=50")
    with qa.to_backend(model, "statevector?shots=50"):
        assert qa.audit(model) == {}


def test_circuits_can_be_put_out_of_use_and_back(build):
    model = build("llama")
    qa.replace_attention(model, "qisa")
    expected = logits(model)
    model.set_attn_implementation("sdpa")
    assert torch.equal(logits(model), logits(build("llama")))
    model.set_attn_implementation("quantum")
    assert torch.equal(logits(model), expected)


def test_a_model_with_quantum_attention_takes_adapters(build):
    model = build("llama")
    qa.replace_attention(model, "qisa")
    before = logits(model)
    adapted = add_adapters(model, "unitary", 2)
    assert torch.equal(logits(adapted), before)


class Classifier(nn.Module):
    """A user's module around a model."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.last = encoder, nn.Linear(32, 2)


def test_a_model_may_be_inside_a_module_of_ones_own(build, tmp_path):
    module = Classifier(build("bert"))
    assert qa.replace_attention(module, "qisa", "encoder.*.1.*") == ["encoder.bert.encoder.layer.1.attention.self"]
    module.encoder.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(module.encoder)) and len(heads_of(loaded)) == 1


# Bad input


def test_heads_without_weights_are_an_error(build, tmp_path):
    """They would be whatever was in memory."""
    model = build("llama")
    qa.replace_attention(model, "qisa")
    model.save_pretrained(tmp_path)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("qisa-v3.gain")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"Weights of model\.layers\.0\.self_attn\.qattn_heads are missing"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_without_the_import_an_error_says_so():
    code = (
        "import qiskit_qattn as qa\n"
        "from transformers import BertConfig, BertModel\n"
        "model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))\n"
        "try:\n"
        "    qa.replace_attention(model, 'qisa')\n"
        "except qa.ConfigError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "for the attention of a Hugging Face model import qiskit_qattn.hf first" in run.stdout


def test_bad_input_is_told_in_a_line_and_changes_nothing(build):
    model = build("llama")
    for arguments, kind, message in (
        (("qisa:3",), ConfigError, r"layers\.0\.self_attn cannot be replaced: .*3 heads.*4"),
        (("qsia",), UnknownNameError, "Did you mean"),
        (("qisa", 7), ConfigError, "where must be a pattern or a predicate .*got int 7"),
        (("qisa", "*.7.*"), ConfigError, r"No attention has a name that .* matches: model\.layers\.0\.self_attn"),
    ):
        with pytest.raises(kind, match=message) as caught:
            qa.replace_attention(model, *arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="num_qubits of at least 3"):
        qa.replace_attention(model, "qisa", num_qubits=2)
    with pytest.raises(ConfigError, match="num_qubits must be an integer of at least 1, got '3'"):
        qa.replace_attention(model, "qisa", num_qubits="3")
    with pytest.raises(TypeError, match="unexpected keyword argument 'qubits'"):
        qa.replace_attention(model, "qisa", qubits=2)
    assert not heads_of(model) and model.config._attn_implementation == "sdpa"
    qa.replace_attention(model, "qisa")
    with pytest.raises(ConfigError, match="its attention is quantum already"):
        qa.replace_attention(model, "qisa")
    with pytest.raises(ConfigError, match="has adapters already; replace its attention first"):
        qa.replace_attention(add_adapters(build("llama"), "unitary", 2), "qisa")
    model = build("llama")
    model.config.quantization_config = {"quant_method": "other"}
    with pytest.raises(ConfigError, match="LlamaForCausalLM is quantized"):
        qa.replace_attention(model, "qisa")


def test_a_model_without_attention_to_replace_is_an_error():
    shape = QattnConfig(vocab_size=9, block_size=8, n_layer=1, n_head=2, n_embd=8, heads="qisa:2", num_qubits=2)
    with pytest.raises(ConfigError, match=r"holds no torch\.nn\.MultiheadAttention"):
        qa.replace_attention(QattnForCausalLM(shape), "qisa")


def test_what_no_head_computes_is_an_error():
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    model = Gemma2ForCausalLM(config)
    qa.replace_attention(model, "qisa")
    with pytest.raises(ConfigError, match="no softcap, which Gemma2Attention asks for"):
        model(torch.ones(1, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: layer.update(names=["model.layers.7.self_attn"]), "has no attention 'model.layers.7.self_attn'"),
        (lambda layer: layer.update(heads="qisa:3"), "cannot be replaced"),
        (lambda layer: layer.update(num_qubits="many"), r"layers\[0\]\.num_qubits is 'many'"),
        (lambda layer: layer["observables"].update({"qisa-v3": ["ZZZ"]}), "other observables"),
    ],
)
def test_a_damaged_description_is_told_in_a_line(build, tmp_path, change, message):
    model = build("llama")
    qa.replace_attention(model, "qisa")
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    change(saved["quantization_config"]["layers"][0])
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match=message) as caught:
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
