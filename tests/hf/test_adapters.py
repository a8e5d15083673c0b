"""Quantum adapters of pretrained models, and their controls."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, Statevector
from torch import nn
from transformers import BertForSequenceClassification, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import qiskit_qattn as qa
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import CheckpointError, CircuitError, ConfigError, UnknownNameError
from qiskit_qattn.hf import QattnAdapterConfig, add_adapters, load_adapters
from qiskit_qattn.hf.peft_method import QattnAdapterLayer
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.simulation.amplitude import amplitude_angles

from .conftest import inputs_of

KINDS = ["qisa", "unitary", "lora", "oft", "quadratic", "frozen"]
CASES = [  # PEFT's oft does not take GPT-2's layers
    (name, kind) for name in ("gpt2", "llama", "bert", "vit", "t5") for kind in KINDS if (name, kind) != ("gpt2", "oft")
]
TARGETS = {"vit": ["q_proj", "v_proj"]}
TASKS = {"gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM", "bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}


def adapted(build, name="llama", kind="qisa", **options):
    """Return a small model with adapters that are no longer at their start."""
    model = build(name)
    with warnings.catch_warnings():  # numbers of parameters cannot be equal on layers so small
        warnings.filterwarnings("ignore", "The adapters of kind", UserWarning)
        model = add_adapters(model, kind, 2, TARGETS.get(name), **options)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(**inputs_of(model)).logits


def adapter_layers(model):
    return [module for module in model.modules() if isinstance(module, QattnAdapterLayer)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_model_starts_unchanged_and_only_adapters_are_trained(build, name, kind):
    model = build(name)
    before = logits(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The adapters of kind", UserWarning)
        model = add_adapters(model, kind, 2, TARGETS.get(name))
    torch.testing.assert_close(logits(model), before, atol=2e-6, rtol=0)
    model(**inputs_of(model)).loss.backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert all(any(part in name for part in ("qattn_", "lora_", "oft_")) for name in trained)


def test_a_bottleneck_adds_what_its_circuit_gives(build):
    model = adapted(build)
    layer = adapter_layers(model)[0]
    x = torch.randn(2, 3, 32)
    down, head, up = (part["default"] for part in (layer.qattn_down, layer.qattn_map, layer.qattn_up))
    rows = down(x).reshape(6, 4)
    values = []
    for angles in amplitude_angles(rows).double().tolist():
        bound = dict(zip(head.circuit.input_params, angles, strict=True))
        bound |= dict(zip(head.circuit.weight_params, head.weight.tolist(), strict=True))
        state = Statevector(head.circuit.circuit.assign_parameters(bound))
        values.append([state.expectation_value(each).real for each in head.circuit.observables])
    change = up(torch.tensor(values, dtype=torch.float32) * head.gain).reshape(2, 3, 32)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + change, atol=2e-6, rtol=0)


def test_a_unitary_adapter_turns_blocks_by_its_circuits_unitary():
    base = nn.Linear(5, 11)
    layer = QattnAdapterLayer(base, "default", QattnAdapterConfig(kind="unitary", num_qubits=2, reps=3))
    turn = layer.qattn_turn["default"]
    nn.init.normal_(turn.weight)
    circuit = QattnAdapterConfig(kind="unitary", num_qubits=2, reps=3).circuit()
    x = torch.randn(4, 5)
    expected = base(x).detach().numpy().copy()
    for block, angles in enumerate(turn.weight.double().tolist()):
        bound = dict(zip(circuit.weight_params, angles, strict=True))
        unitary = Operator(circuit.ansatz.assign_parameters(bound)).data
        assert abs(unitary.imag).max() < 1e-12
        expected[:, 4 * block : 4 * block + 4] @= unitary.real.T
    np.testing.assert_allclose(layer(x).detach(), expected, atol=2e-6)
    with pytest.raises(ConfigError, match="blocks of 16, but a layer gives 11"):
        QattnAdapterLayer(base, "default", QattnAdapterConfig(kind="unitary", num_qubits=4))


# Numbers of parameters


def smollm2(layers=2):
    """Return a Llama with the layers' sizes of SmolLM2-135M."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=576,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=9,
            num_key_value_heads=3,
        )
    )


def size_of(model):
    return model.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("num_qubits", [3, 4])
def test_controls_have_as_many_trained_parameters(num_qubits):
    wanted = size_of(add_adapters(smollm2(), "qisa", num_qubits))
    layers = 2 * 2
    assert wanted == 2**num_qubits * (layers * 576 + 2 * (576 + 192)) + layers * (3 * num_qubits + 2**num_qubits)
    for kind in ("lora", "quadratic", "frozen"):
        found = size_of(add_adapters(smollm2(), kind, num_qubits))
        assert abs(found - wanted) <= 0.01 * wanted, kind


def test_where_numbers_cannot_be_equal_a_warning_says_by_how_much():
    wanted = size_of(add_adapters(smollm2(), "qisa", 4))
    with pytest.warns(UserWarning, match=r"'oft' have 54,144 trained parameters, the nearest to 61,552 .*\(-12\.0%\)"):
        model = add_adapters(smollm2(), "oft", 4)
    assert (size_of(model), wanted) == (54144, 61552)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_parameters_can_be_asked_for(kind):
    wanted = {"unitary": 38_100, "oft": 35_800}.get(kind, 38_500)
    model = add_adapters(smollm2(), kind, 3, parameters=wanted)
    assert abs(size_of(model) - wanted) <= 0.01 * wanted


# Saving, loading and merging


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_saved_and_loaded_model_gives_the_same_logits_to_the_bit(build, name, kind, tmp_path):
    model = adapted(build, name, kind, task_type=TASKS.get(name))
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build(name), tmp_path)), expected)
    loaded = load_adapters(build(name), tmp_path)
    assert torch.equal(logits(loaded), expected)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    again = load_adapters(build(name), tmp_path, trainable=True)
    assert size_of(again) == size_of(model)


def test_weights_can_be_loaded_without_being_made_first(build, tmp_path):
    model = adapted(build)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path, low_cpu_mem_usage=True)
    torch.testing.assert_close(logits(loaded), logits(model))


def test_adapters_load_through_transformers_too(build, tmp_path):
    model = adapted(build)
    model.save_pretrained(tmp_path)
    loaded = build("llama")
    loaded.load_adapter(str(tmp_path))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_a_unitary_adapter_is_merged_and_taken_out_again(build, name):
    model = adapted(build, name, "unitary")
    model = model.double()
    expected, plain = logits(model), logits(build(name).double())
    assert (expected - plain).abs().max() > 1e-5
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(logits(model), expected, atol=1e-12, rtol=0)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), expected, atol=1e-12, rtol=0)
    merged = model.merge_and_unload()
    assert not adapter_layers(merged) and type(merged) is type(build(name))
    torch.testing.assert_close(logits(merged), expected, atol=1e-12, rtol=0)


def test_a_weight_of_two_layers_is_not_merged(build):
    """Merged into the last layer of GPT-2, the adapter would turn the embedding too."""
    with pytest.warns(UserWarning, match="tied layer"):
        model = add_adapters(build("gpt2"), "unitary", 2, ["lm_head"])
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ConfigError, match="weight of lm_head is another layer's too"):
            merge()
    assert torch.equal(logits(model), logits(build("gpt2")))


@pytest.mark.parametrize("kind", ["qisa", "frozen", "quadratic"])
def test_what_is_not_linear_is_not_merged(build, kind):
    model = adapted(build, "llama", kind)
    expected = logits(model)
    with pytest.raises(ConfigError, match=f"of kind '{kind}' is not linear"):
        model.merge_and_unload()
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model.unload()), logits(build("llama")))


def test_adapters_of_another_model_leave_it_as_it_was(build, tmp_path):
    adapted(build, "llama").save_pretrained(tmp_path / "llama")
    adapted(build, "gpt2").save_pretrained(tmp_path / "gpt2")
    add_adapters(build("vit"), "unitary", 5, TARGETS["vit"]).save_pretrained(tmp_path / "vit")
    adapted(build, "bert", task_type="SEQ_CLS").save_pretrained(tmp_path / "bert")
    wide = build("bert").config
    wide.hidden_size = 64
    small = smollm2(1)
    for folder, model, message in (
        (tmp_path / "llama", smollm2(2), r"has shape \(.*\), but this model's has"),
        (tmp_path / "gpt2", small, "not found in the base model"),
        (tmp_path / "llama", LlamaForCausalLM(deeper(build, 3)), r"layers\.2\..* is missing"),
        (tmp_path / "llama", LlamaForCausalLM(deeper(build, 1)), r"this model has no .*layers\.1\."),
        (tmp_path / "vit", LlamaForCausalLM(deeper(build, 2)), "blocks of 32, but a layer gives 16"),  # v, after q
        (tmp_path / "bert", BertForSequenceClassification(wide), r"has shape \(.*\), but this model's has"),
    ):
        before = [(name, type(module)) for name, module in model.named_modules()]
        flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        with pytest.raises(CheckpointError, match=message) as caught:
            load_adapters(model, folder)
        assert "\n" not in str(caught.value)
        assert [(name, type(module)) for name, module in model.named_modules()] == before
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


def deeper(build, layers):
    config = build("llama").config
    config.num_hidden_layers = layers
    return config


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json missing"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"no"), "holds no adapters"),
        (lambda folder: change(folder, peft_type="QUATUM"), "peft_type 'QUATUM'"),
        (lambda folder: change(folder, num_qubits="four"), "num_qubits .*'four'"),
        (lambda folder: change(folder, kind="qisb"), "Did you mean 'qisa'"),
        (lambda folder: change(folder, observables=["ZZZ"]), "4, but 1 observable"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "holds no adapters"),
        (lambda folder: change(folder, target_modules="("), r"target_modules='\(' is not a regular expression"),
        (lambda folder: change(folder, exclude_modules="("), r"exclude_modules='\(' is not a regular expression"),
        (lambda folder: change(folder, target_modules=5), "target_modules must be a list of names, got 5"),
        (lambda folder: change(folder, modules_to_save="lm_head"), "modules_to_save must be a list of names"),
        (lambda folder: change(folder, layers_to_transform="x"), "are of another model"),
        (lambda folder: change(folder, kind="quadratic", rank=10**9), "rank of an adapter must be .* from 1 to 4"),
        (lambda folder: change(folder, kind="quadratic", num_outputs=10**9), "num_outputs of .* from 1 to 15"),
    ],
)
def test_damaged_adapters_are_told_in_a_line(build, tmp_path, damage, message):
    adapted(build).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_adapters(build("llama"), tmp_path)
    assert "\n" not in str(caught.value)


def change(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# Training


@pytest.mark.parametrize("kind", ["qisa", "unitary"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradient_checkpointing_gives_the_same_gradients(build, name, kind):
    model = adapted(build, name, kind).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def gradients():
        model.zero_grad()
        model(**inputs_of(model)).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    expected = gradients()
    model.activation_checkpointing_enable()
    model.enable_input_require_grads()
    for found, grad in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, grad)


@pytest.mark.parametrize("kind", ["qisa", "frozen", "unitary"])
def test_trainer_trains_adapters_and_nothing_else(build, kind, tmp_path):
    model = adapted(build, "bert", kind, task_type="SEQ_CLS")
    batch = inputs_of(model)
    rows = [{key: value[i] for key, value in batch.items()} for i in range(3)]
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path / "run"),
            max_steps=12,
            per_device_train_batch_size=3,
            learning_rate=0.02,
            save_steps=12,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=rows,
    )
    first = model(**batch).loss.item()
    trainer.train()
    assert model.eval()(**batch).loss.item() < first - 0.02
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    angles = [parameter for name, parameter in model.named_parameters() if name.endswith("qattn_map.default.weight")]
    assert not any(each.requires_grad for each in angles) if kind == "frozen" else all(a.requires_grad for a in angles)
    loaded = load_adapters(build("bert"), tmp_path / "run" / "checkpoint-12")
    assert torch.equal(logits(loaded), logits(model))


def test_switching_adapters_on_and_off_leaves_frozen_circuits_frozen(build):
    model = adapted(build, "llama", "frozen")
    with_adapters = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(build("llama")))
    assert torch.equal(logits(model), with_adapters)
    config = QattnAdapterConfig(kind="qisa", num_qubits=1, target_modules=["q_proj", "v_proj"])
    model.add_adapter("second", config)
    assert torch.equal(logits(model), with_adapters)
    model.set_adapter("second")
    torch.testing.assert_close(logits(model), logits(build("llama")), atol=1e-6, rtol=0)
    model.set_adapter("default")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and not any("second" in name or name.endswith("qattn_map.default.weight") for name in trained)
    model.delete_adapter("second")
    assert torch.equal(logits(model), with_adapters)


def test_half_precision_models_have_adapters_in_single_precision(build):
    model = build("llama").bfloat16()
    before = logits(model)
    model = add_adapters(model, parameters=2196)
    assert torch.equal(logits(model), before)
    head = next(module for module in model.modules() if isinstance(module, QuantumHead))
    assert head.gain.dtype == torch.float32
    model(**inputs_of(model)).loss.backward()


def test_generation_is_the_same_with_and_without_a_cache(build):
    model = adapted(build)
    prompt = torch.tensor([[1, 2, 3]])
    texts = [
        model.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, use_cache=cached, pad_token_id=0)
        for cached in (True, False)
    ]
    assert texts[0].shape == (1, 11) and torch.equal(*texts)


# Where they run


def test_adapters_move_to_an_estimator_as_heads_do(build):
    model = adapted(build, layers_to_transform=[0]).double()
    expected = logits(model)
    model(**inputs_of(model)).loss.backward()
    heads = [module for module in model.modules() if isinstance(module, QuantumHead)]
    assert len(heads) == 2 and all(head.weight.grad.abs().sum() > 0 for head in heads)
    tokens = {key: value[:1, :4] for key, value in inputs_of(model).items()}
    with torch.no_grad():
        exact = model(**tokens).logits
        with qa.to_backend(model, Backend("test", StatevectorEstimator())):
            assert not any(head.fusible for head in heads)
            torch.testing.assert_close(model(**tokens).logits, exact, atol=1e-9, rtol=0)
    assert torch.equal(logits(model), expected)


def test_nothing_of_a_unitary_adapter_can_move(build):
    with pytest.raises(ConfigError):
        qa.to_backend(adapted(build, kind="unitary"), "statevector?shots=10")


# Bad input


def test_bad_input_is_told_in_a_line(build):
    cases = [
        ({"kind": "qsia"}, UnknownNameError, "Did you mean 'qisa'"),
        ({"rank": 3}, UnknownNameError, "option of add_adapters: 'rank'"),
        ({"target_modules": ["queries"]}, ConfigError, r"names\. Its linear layers are called .*q_proj"),
        ({"target_modules": ["embed_tokens"]}, ConfigError, "names a layer of Embedding"),
        ({"num_qubits": 0}, ConfigError, "num_qubits of an adapter must be a whole number of at least 1, got 0"),
        ({"kind": "unitary", "num_qubits": 9}, ConfigError, "at most 8 qubits, got 9"),
        ({"kind": "unitary", "num_qubits": 6}, ConfigError, "blocks of 64, but a layer gives 16"),
        ({"parameters": 0}, ConfigError, "parameters must be a whole number of at least 1, got 0"),
        ({"reps": -1}, ConfigError, "reps of an adapter"),
        ({"kind": "lora", "target_modules": "("}, ConfigError, "is not a regular expression"),
        ({"kind": "oft", "target_modules": 5}, ConfigError, "target_modules must be a list of names, got 5"),
        ({"modules_to_save": ["x", 5]}, ConfigError, "modules_to_save must be a list of names"),
        ({"num_qubits": 10**6}, CircuitError, "num_qubits must be between 1 and 12"),
    ]
    for arguments, kind, message in cases:
        model = build("llama")
        with pytest.raises(kind, match=message) as caught:
            add_adapters(model, **arguments)
        assert not adapter_layers(model) and all(parameter.requires_grad for parameter in model.parameters())
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"target_modules\. Its linear layers are called classifier, .*q_proj"):
        add_adapters(build("vit"))
    with pytest.raises(ConfigError, match=r"oft adapts nn\.Linear, but layers of this GPT2LMHeadModel are Conv1D"):
        add_adapters(build("gpt2"), "oft")
    with pytest.raises(ConfigError, match="has adapters already"):
        add_adapters(adapted(build))
    with pytest.raises(ConfigError, match="has adapters already"):
        load_adapters(adapted(build), "nowhere")


def test_all_linear_layers_but_the_last_can_be_adapted(build):
    model = add_adapters(build("bert"), "unitary", 2, "all-linear", task_type="SEQ_CLS")
    assert len(adapter_layers(model)) == 2 * 6 + 1  # and the pooler
    assert model.modules_to_save and math.isfinite(model(**inputs_of(model)).loss.item())


def test_a_quadratic_adapter_is_as_small_as_one_qubit(build):
    with pytest.warns(UserWarning, match="'quadratic' have 616 trained parameters"):
        add_adapters(build("llama"), "quadratic", 1, parameters=9000)
    with pytest.raises(CircuitError, match="between 1 and 12"):
        QattnAdapterConfig(kind="quadratic", num_qubits=10**6)


def test_pefts_own_call_takes_the_configuration(build):
    config = QattnAdapterConfig(kind="qisa", num_qubits=2, num_outputs=3, target_modules=["q_proj"])
    model = get_peft_model(build("llama"), config)
    assert adapter_layers(model)[0].qattn_up["default"].in_features == 3 == len(config.observables)
