"""The GPT as a model of Hugging Face."""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    StaticCache,
    Trainer,
    TrainingArguments,
    pipeline,
)

import qiskit_qattn as qa
from qiskit_qattn.errors import CheckpointError, ConfigError, TokenError
from qiskit_qattn.hf import QattnConfig, QattnForCausalLM, QattnTokenizer, add_adapters
from qiskit_qattn.training.tokenizer import CharTokenizer

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
HEADS = ["qisa:1,classical:1,qsann:1,angle:1", "qisa-v1:2,zz:2", "qisa-v2:4", "quadratic:2,rff:2", "frozen:4"]


@pytest.fixture(params=HEADS)
def folder(request, tmp_path):
    return save(tmp_path / "model", request.param)


def save(folder, heads="qisa:2,classical:2", **settings):
    """Save a model and its tokenizer as a run does."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer(TEXT)
    shape = {"block_size": 16, "n_layer": 2, "n_head": 4, "n_embd": 16, "num_qubits": 4, "dropout": 0.1, **settings}
    qa.GPT(qa.GPTConfig(vocab_size=tokenizer.vocab_size, heads=heads, **shape)).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder


def values(model, tokens):
    with torch.no_grad():
        found = model(tokens)
    return found[0] if isinstance(found, tuple) else found.logits


TOKENS = torch.arange(24).reshape(2, 12) % 20


def test_both_classes_read_both_folders_to_the_bit(folder, tmp_path):
    gpt, model = qa.GPT.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is QattnForCausalLM and not model.training
    expected = values(gpt, TOKENS)
    assert torch.equal(values(model, TOKENS), expected)
    flags = {name: parameter.requires_grad for name, parameter in gpt.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(values(AutoModelForCausalLM.from_pretrained(tmp_path / "again"), TOKENS), expected)
    again = qa.GPT.from_pretrained(tmp_path / "again")
    assert torch.equal(values(again, TOKENS), expected) and again.config == gpt.config


def test_generation_is_the_same_with_a_cache_without_one_and_by_the_gpt(folder):
    """Also past the end of the context."""
    gpt, model = qa.GPT.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for length in (1, 12):
        prompt = TOKENS[:, :length]
        expected = gpt.generate(prompt, 30, temperature=0)
        for cached in (True, False):
            found = model.generate(input_ids=prompt, max_new_tokens=30, do_sample=False, use_cache=cached)
            assert torch.equal(found, expected)
    long = torch.cat([TOKENS, TOKENS], 1)
    both = [
        model.generate(input_ids=long, max_new_tokens=9, do_sample=False, use_cache=cached) for cached in (True, False)
    ]
    assert torch.equal(*both)


def test_beams_are_the_same_with_and_without_a_cache(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path / "model"))
    found = [
        model.generate(input_ids=TOKENS[:, :4], max_new_tokens=8, num_beams=3, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*found)


def test_a_run_folder_is_loaded(tmp_path):
    save(tmp_path / "run" / "model")
    model = QattnForCausalLM.from_pretrained(tmp_path / "run")
    gpt = qa.GPT.from_pretrained(tmp_path / "run" / "model")
    assert torch.equal(values(model, TOKENS), values(gpt, TOKENS))


def test_folders_of_earlier_versions_are_loaded_by_the_class(tmp_path):
    folder = save(tmp_path / "model")
    saved = json.loads((folder / "config.json").read_text())
    del saved["model_type"], saved["architectures"]
    (folder / "config.json").write_text(json.dumps(saved))
    gpt = qa.GPT.from_pretrained(folder)
    assert torch.equal(values(QattnForCausalLM.from_pretrained(folder), TOKENS), values(gpt, TOKENS))


def test_a_model_made_from_a_configuration_starts_as_a_gpt_does():
    config = QattnConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8, heads=["qisa:2", "zz:1,qisa:1"])
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    torch.manual_seed(1)
    gpt = qa.GPT(config.shape())
    own, expected = model.state_dict(), gpt.state_dict()
    assert own.keys() == expected.keys() and all(torch.equal(own[name], expected[name]) for name in own)
    assert model.lm_head.weight is model.wte.weight is model.get_input_embeddings().weight


def test_weights_that_a_checkpoint_lacks_are_drawn(tmp_path):
    gpt = qa.GPT.from_pretrained(save(tmp_path / "model"))
    state = {name: value for name, value in gpt.state_dict().items() if "maps.qisa" not in name and "ln_1" not in name}
    model, info = QattnForCausalLM.from_pretrained(
        None, config=AutoConfig.from_pretrained(tmp_path / "model"), state_dict=state, output_loading_info=True
    )
    assert any("maps.qisa-v3.weight" in name for name in info["missing_keys"])
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    head = model.blocks[0].attn.maps["qisa-v3"]
    assert 1 < head.weight.abs().max() <= torch.pi and (model.blocks[0].ln_1.weight == 1).all()
    assert torch.equal(head.gain, qa.GPT(gpt.config).blocks[0].attn.maps["qisa-v3"].gain)  # those of a new head


def test_labels_are_shifted_and_padding_on_the_right_does_not_count(tmp_path):
    folder = save(tmp_path / "model")
    gpt, model = qa.GPT.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    _, expected = gpt(TOKENS[:, :-1], TOKENS[:, 1:])
    torch.testing.assert_close(model(TOKENS, labels=TOKENS).loss, expected)
    mask = torch.ones_like(TOKENS)
    mask[0, 8:] = 0
    labels = TOKENS.masked_fill(mask == 0, -100)
    padded = model(TOKENS.masked_fill(mask == 0, 3), attention_mask=mask, labels=labels)
    torch.testing.assert_close(padded.logits[0, :8], values(model, TOKENS[:1, :8])[0])
    _, expected = gpt(TOKENS[:, :-1], labels[:, 1:].masked_fill(mask[:, 1:] == 0, -1))
    torch.testing.assert_close(padded.loss, expected)


def test_each_padded_sequence_gives_what_it_gives_alone(folder):
    """On either side, in any cache, and whatever token the padding is."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    long, short = TOKENS[:1, :9], TOKENS[1:, :5]
    padding = torch.full((1, 4), 99)  # outside the vocabulary
    left = torch.cat([long, torch.cat([padding, short], 1)])
    mask = torch.ones_like(left)
    mask[1, :4] = 0
    for each in (mask, mask.bool()):
        with torch.no_grad():
            found = model(left, attention_mask=each).logits
        torch.testing.assert_close(found[:1], values(model, long), atol=1e-5, rtol=0)
        torch.testing.assert_close(found[1:, 4:], values(model, short), atol=1e-5, rtol=0)
    expected = [model.generate(input_ids=prompt, max_new_tokens=7, do_sample=False)[0, -7:] for prompt in (long, short)]
    for cached in (True, False):
        written = model.generate(
            input_ids=left, attention_mask=mask, max_new_tokens=7, do_sample=False, use_cache=cached
        )
        assert torch.equal(written[:, -7:], torch.stack(expected))
    full = [  # past the end of the context
        model.generate(input_ids=left, attention_mask=mask, max_new_tokens=30, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*full)
    right = torch.cat([long, torch.cat([short, padding], 1)])
    with torch.no_grad():
        assert torch.equal(model(right, attention_mask=mask.flip(1).bool()).logits[1, :5], values(model, short)[0])


def test_positions_a_cache_under_its_old_name_and_tuples_are_taken(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path / "model"))
    shifted = model(TOKENS, position_ids=torch.arange(2, 14)[None]).logits
    table = model.wpe.weight.detach().clone()
    with torch.no_grad():
        model.wpe.weight.copy_(table.roll(-2, 0))
    torch.testing.assert_close(shifted, values(model, TOKENS))
    cache = DynamicCache()
    with pytest.warns(FutureWarning, match="past_key_values"):
        model(TOKENS[:, :8], past_key_values=cache)
    assert cache.get_seq_length() == 8
    assert torch.equal(model(TOKENS, return_dict=False)[0], values(model, TOKENS))


def test_trainer_trains_and_its_checkpoint_is_a_gpt(tmp_path):
    model = QattnForCausalLM.from_pretrained(save(tmp_path / "model"))
    arguments = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=20,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        save_steps=20,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"input_ids": row, "labels": row} for row in TOKENS]
    before = model(TOKENS, labels=TOKENS).loss.item()
    Trainer(model, arguments, train_dataset=rows).train()
    assert model.eval()(TOKENS, labels=TOKENS).loss.item() < 0.7 * before
    gpt = qa.GPT.from_pretrained(tmp_path / "run" / "checkpoint-20")
    assert torch.equal(values(gpt, TOKENS), values(model, TOKENS))


def test_it_moves_leaks_nothing_and_takes_adapters(tmp_path):
    model = QattnForCausalLM.from_pretrained(save(tmp_path / "model"))
    assert float(qa.leakage(model)) == 0
    exact = values(model, TOKENS)
    with qa.to_backend(model, "statevector?shots=100&seed=1"):
        assert 0 < (values(model, TOKENS) - exact).abs().max() < 1
    assert torch.equal(values(model, TOKENS), exact)
    with pytest.warns(UserWarning, match="The adapters of kind 'lora'"):
        adapted = add_adapters(model, "lora", 2, ["c_proj"], parameters=500)
    assert torch.equal(values(adapted, TOKENS), exact)


# The tokenizer


def test_the_tokenizer_gives_the_same_ids_and_text(tmp_path):
    folder = save(tmp_path / "model")
    own, fast = CharTokenizer(TEXT), AutoTokenizer.from_pretrained(folder)
    assert type(fast) is QattnTokenizer and fast.is_fast and len(fast) == own.vocab_size
    ids = fast(TEXT)["input_ids"]
    assert ids == own.encode(TEXT).tolist() and fast.decode(ids) == TEXT
    assert fast(["hear", "me"])["input_ids"] == [own.encode("hear").tolist(), own.encode("me").tolist()]
    fast.save_pretrained(tmp_path / "again")
    assert CharTokenizer.load(tmp_path / "again" / "tokenizer.json") == own
    assert AutoTokenizer.from_pretrained(tmp_path / "again")(TEXT)["input_ids"] == ids


@pytest.mark.parametrize("text", ["naïve 量子 😀\t\r\n", "a  b", "é\u0301"])
def test_any_character_is_one_token(text, tmp_path):
    CharTokenizer(text).save(tmp_path / "tokenizer.json")
    fast = QattnTokenizer.from_pretrained(tmp_path)
    ids = fast(text)["input_ids"]
    assert ids == CharTokenizer(text).encode(text).tolist() and fast.decode(ids) == text


def test_a_pipeline_writes_text(tmp_path):
    folder = save(tmp_path / "model")
    write = pipeline("text-generation", model=str(folder))
    found = write("hear me", max_new_tokens=6, do_sample=False)[0]["generated_text"]
    tokenizer = CharTokenizer(TEXT)
    expected = qa.GPT.from_pretrained(folder).generate(tokenizer.encode("hear me")[None], 6, temperature=0)
    assert found == tokenizer.decode(expected[0])


def test_a_pipeline_writes_batches(tmp_path):
    """The padding is any character: it is not seen."""
    write = pipeline("text-generation", model=str(save(tmp_path / "model")))
    prompts = ["hear me", "me", "First C"]
    options = {"max_new_tokens": 6, "do_sample": False}
    alone = [write(prompt, **options) for prompt in prompts]
    write.tokenizer.pad_token, write.tokenizer.padding_side = " ", "left"
    assert write(prompts, batch_size=3, **options) == alone


# Bad input


def test_bad_input_is_told_in_a_line(tmp_path):
    model = QattnForCausalLM.from_pretrained(save(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"attention_mask must have shape \(2, 12\), .* got \(2, 1, 12, 12\)"):
        model(TOKENS, attention_mask=torch.ones(2, 1, 12, 12))
    for positions in (torch.arange(5, 17)[None], torch.arange(-1, 11), torch.arange(11), torch.ones(2, 12)):
        with pytest.raises(ConfigError, match="position_ids must be one integer for each token, below block_size=16"):
            model(TOKENS, position_ids=positions)
    with pytest.raises(ConfigError, match=r"must have shape \(B, T\), got \(24,\)"):
        model(TOKENS.flatten(), attention_mask=torch.ones(24))
    with pytest.raises(ConfigError, match="QattnForCausalLM has no output_attentions"):
        model(TOKENS, output_attentions=True)
    with pytest.raises(ConfigError, match="tie_word_embeddings must be true"):
        QattnConfig(tie_word_embeddings=False)
    with pytest.raises(ConfigError, match="must be a DynamicCache, got a StaticCache"):
        model(TOKENS, cache=StaticCache(config=model.config, max_cache_len=16))
    with pytest.raises(ConfigError, match="context of 17 tokens is longer than block_size=16"):
        model(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(TokenError, match="Token 99 is outside the vocabulary: the model has 27 tokens"):
        model(torch.tensor([[1, 99]]))
    cache = DynamicCache()
    model(TOKENS, cache=cache)
    with pytest.raises(ConfigError, match="context of 24 tokens"):
        model(TOKENS, cache=cache)
    with pytest.raises(TokenError, match="The text has 'X', outside the vocabulary"):
        AutoTokenizer.from_pretrained(tmp_path / "model")("hear X")
    with pytest.raises(TokenError, match="The text has 'X', outside the vocabulary"):
        AutoTokenizer.from_pretrained(tmp_path / "model")([("hear", "X")])
    with pytest.raises(TokenError, match="The text has 'X', outside the vocabulary"):
        AutoTokenizer.from_pretrained(tmp_path / "model")("hear", "X")
    with pytest.raises(ConfigError, match="n_head is 4"):
        QattnConfig(heads="qisa:3", n_head=4)
    (tmp_path / "model" / "tokenizer.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match="is not a tokenizer of qiskit-qattn"):
        QattnTokenizer.from_pretrained(tmp_path / "model")
