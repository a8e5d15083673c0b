"""The GPT: causality, generation, saving, and its checks."""

import copy
import json
import math
import pickle

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig
from qiskit_qattn.errors import CheckpointError, CircuitError, ConfigError, EncodingError, QattnError, UnknownNameError
from qiskit_qattn.nn.kinds import HEAD_KINDS

KINDS = list(HEAD_KINDS)


def model_of(heads, **options):
    options = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16, "num_qubits": 4} | options
    return GPT(GPTConfig(heads=heads, **options))


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"observables": None} | changes))


def tokens(batch=3, steps=8):
    return torch.randint(0, 11, (batch, steps))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_later_token_moves_no_earlier_logit(kind, training):
    model = model_of(f"{kind}:2").train(training)
    idx = tokens()
    before = model(idx)[0]
    for t in range(1, 8):
        edited = idx.clone()
        edited[:, t:] = (edited[:, t:] + torch.randint(1, 11, edited[:, t:].shape)) % 11
        after = model(edited)[0]
        assert (after[:, :t] - before[:, :t]).abs().max() <= 1e-6
        assert (after[:, t:] - before[:, t:]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_flows_from_an_output_to_a_later_token(kind):
    model = model_of(f"{kind}:2")
    embedded = []
    model.wte.register_forward_hook(lambda _m, _i, out: embedded.append(out.requires_grad_()) or out)
    logits = model(tokens(1))[0]
    for t in range(8):
        (grad,) = torch.autograd.grad(logits[0, t].square().sum(), embedded[0], retain_graph=True)
        assert (grad[0, t + 1 :] == 0).all()
        assert (grad[0, t] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_and_without_the_cache_gives_the_same_text(kind):
    model = model_of(f"{kind}:2")
    for prompt in (tokens(2, 1), tokens(2, 5), tokens(2, 20)):
        cached = model.generate(prompt, 25, seed=5)
        assert torch.equal(cached, model.generate(prompt, 25, seed=5, use_cache=False))
        assert cached.shape == (2, prompt.shape[1] + 25)
        assert torch.equal(cached[:, : prompt.shape[1]], prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_finite_gradient(kind):
    model = model_of(f"{kind}:2")
    _, loss = model(tokens(), tokens())
    assert abs(loss.item() - math.log(11)) < 0.5
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            if "gain" not in name or kind not in ("qisa-v1", "qsann"):  # scalar q, k use one of their gains
                assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_reloaded_model_gives_the_same_logits_to_the_bit(kind, tmp_path):
    model = model_of(f"{kind}:1,classical:1" if kind != "classical" else "classical:2").eval()
    model.save_pretrained(tmp_path / "model")
    torch.manual_seed(99)
    loaded = GPT.from_pretrained(tmp_path / "model")
    idx = tokens()
    assert not loaded.training
    assert torch.equal(loaded(idx)[0], model(idx)[0])
    assert loaded.config == model.config


def test_the_saved_observables_are_what_a_loaded_model_measures(tmp_path):
    model = model_of("zz:2", observables={"zz": ["XXXX", "YYII", "IZIZ", "IIIX", "ZZZZ", "XIII", "IXII", "IIXI"]})
    model.save_pretrained(tmp_path)
    loaded = GPT.from_pretrained(tmp_path)
    assert loaded.quantum_heads()[0][2].circuit.labels == model.quantum_heads()[0][2].circuit.labels
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["observables"]["zz"][0] == "XXXX"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors missing"),
        (lambda folder: (folder / "config.json").unlink(), "config.json missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "no model this version can load"),
        (lambda folder: (folder / "config.json").write_text("{"), "no model this version can load"),
        (lambda folder: (folder / "config.json").write_text('{"n_embd": 32, "n_head": 2}'), "must hold block_size"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold block_size"),
        (lambda folder: edit_config(folder, heads="nope:2"), "Unknown head kind 'nope'"),
        (lambda folder: edit_config(folder, n_embd=32), "no model this version can load"),
        (
            lambda folder: edit_config(folder, n_heads=2),
            "setting of GPTConfig: 'n_heads'. Did you mean 'n_head'.*Known",
        ),
    ],
)
def test_damaged_and_foreign_folders_are_checkpoint_errors(damage, message, tmp_path, capsys):
    model_of("qisa:2").save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        GPT.from_pretrained(tmp_path)
    assert capsys.readouterr().out == ""


def test_weights_are_tied_and_initialised_as_in_nanogpt():
    model = GPT(GPTConfig())
    assert model.lm_head.weight is model.wte.weight
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].mlp.c_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.05)
    assert model.blocks[0].attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(p.abs().max() <= math.pi for p in model.circuit_parameters())


def test_the_classical_model_has_nanogpts_parameters():
    numbers = GPT(GPTConfig(heads="classical:4")).num_parameters()
    d, layers, vocabulary, block = 128, 4, 65, 64
    expected = vocabulary * d + block * d + layers * (12 * d * d + 2 * d) + d
    assert numbers == {"quantum": 0, "classical": expected, "total": expected}


def test_numbers_of_circuit_weights():
    assert model_of("qisa:2").num_parameters()["quantum"] == 2 * 2 * 3 * 4
    assert model_of("qisa-v2:1,classical:1", reps=2).num_parameters()["quantum"] == 2 * 3 * 3 * 4 * 2
    assert len(list(model_of("classical:2").circuit_parameters())) == 0


def test_layers_may_differ():
    model = GPT(GPTConfig(n_layer=3, n_head=2, n_embd=16, num_qubits=3, heads=["qisa:2", "classical:2", "zz:1,qisa:1"]))
    kinds = [(row["layer"], row["kind"]) for row in model.head_backends()]
    assert kinds == [(0, "qisa-v3"), (0, "qisa-v3"), (1, "classical"), (1, "classical"), (2, "zz"), (2, "qisa-v3")]
    assert model(torch.zeros(1, 4, dtype=torch.long))[0].shape == (1, 4, 65)


def test_the_same_seed_gives_the_same_model_and_text():
    torch.manual_seed(3)
    first = model_of("qisa:2")
    torch.manual_seed(3)
    second = model_of("qisa:2")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    prompt = tokens(1, 2)
    state = torch.get_rng_state()
    assert torch.equal(first.generate(prompt, 9, seed=1), second.generate(prompt, 9, seed=1))
    assert torch.equal(torch.get_rng_state(), state)  # a seeded generation leaves the global generator alone
    assert not torch.equal(first.generate(prompt, 20, seed=1), first.generate(prompt, 20, seed=2))


def test_temperature_and_top_k():
    model = model_of("qisa:2")
    prompt = tokens(1, 3)
    greedy = model.generate(prompt, 12, temperature=0)
    assert torch.equal(greedy, model.generate(prompt, 12, top_k=1, seed=8))
    streamed = torch.cat([prompt, *model.stream(prompt, 12, temperature=0)], 1)
    assert torch.equal(streamed, greedy)
    model.train()
    model.generate(prompt, 2)
    assert model.training


def test_each_token_costs_one_evaluation_a_head(monkeypatch):
    model = model_of("qisa:2", block_size=16)
    rows = []
    for block in model.blocks:
        block.attn.register_forward_hook(lambda _m, inputs, _o: rows.append(inputs[0].shape[-2]))
    model.generate(tokens(1, 4), 12, seed=0)
    assert rows == [4, 4] + [1, 1] * 11  # two layers: the prompt, then single tokens


def test_to_backend_moves_every_quantum_head_and_nothing_else():
    model = model_of("qisa:1,classical:1").eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    idx = tokens()
    exact = model(idx)[0]
    assert model.to_backend("statevector?shots=2000&seed=3") is model
    rows = model.head_backends()
    assert [row["backend"] for row in rows] == ["statevector?seed=3&shots=2000", "torch"] * 2
    assert [row["head"] for row in rows] == [0, 1, 0, 1]
    noisy = model(idx)[0]
    assert 0 < (noisy - exact).abs().max() < 0.5
    model.to_backend("statevector")
    assert torch.equal(model(idx)[0], exact)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_gradient_checkpointing_gives_the_same_gradients():
    from torch.utils.checkpoint import checkpoint

    model = model_of("qisa:1,zz:1")
    idx = tokens()
    model(idx, idx)[1].backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for block in model.blocks:
        original = block.forward
        block.forward = lambda *a, f=original: checkpoint(f, *a, use_reentrant=False)
    model(idx, idx)[1].backward()
    for p, expected in zip(model.parameters(), plain, strict=True):
        torch.testing.assert_close(p.grad, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_train_generate_and_reload_to_the_bit(kind, dtype, tmp_path):
    model = model_of(f"{kind}:2").to(dtype)
    idx = tokens()
    _, loss = model(idx, idx)
    loss.backward()
    assert loss.dtype == dtype
    assert model.generate(idx[:, :2], 3, seed=0).shape == (3, 5)
    model.eval().save_pretrained(tmp_path)
    loaded = GPT.from_pretrained(tmp_path)
    assert loaded.wte.weight.dtype == dtype
    assert torch.equal(loaded(idx)[0], model(idx)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_of_the_hub_keeps_its_dtype(dtype, tmp_path, capsys):
    model = model_of("qisa:1,classical:1").to(dtype).eval()
    repository = tmp_path / "models--someone--some-model"  # as the Hub's client caches what it has fetched
    model.save_pretrained(repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    options = {"cache_dir": tmp_path, "local_files_only": True}
    loaded = GPT.from_pretrained("someone/some-model", **options, map_location="cpu")
    assert {p.dtype for p in loaded.parameters()} == {dtype} and not loaded.training
    assert torch.equal(loaded(idx := tokens())[0], model(idx)[0])
    (repository / "snapshots" / "0123abcd" / "model.safetensors").unlink()
    for name in ("someone/some-model", "someone/no-model", "no/such/model"):
        with pytest.raises(CheckpointError, match=name):
            GPT.from_pretrained(name, **options)
    assert capsys.readouterr().out == ""


def test_unknown_options_of_loading_and_saving_are_refused(tmp_path):
    model = model_of("classical:2")
    with pytest.raises(UnknownNameError, match=r"save_pretrained: 'repo'. Did you mean 'repo_id'\? Known: .*branch"):
        model.save_pretrained(tmp_path / "model", repo="someone/some-model")
    assert not (tmp_path / "model").exists()
    model.save_pretrained(tmp_path / "model", push_to_hub=False)
    with pytest.raises(UnknownNameError, match=r"option of GPT.from_pretrained: 'bogus'. Known: .*map_location, revis"):
        GPT.from_pretrained(tmp_path / "model", bogus=1)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_edge_shapes(kind):
    model = model_of(f"{kind}:2", dropout=0.2).eval()
    idx = tokens()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(idx)[0], model(idx)[0])
    assert model(idx[:0])[0].shape == (0, 8, 11)
    assert model(idx[:1, :1])[0].shape == (1, 1, 11)
    assert model_of(f"{kind}:2", block_size=1).generate(idx[:1, :1], 4, seed=0).shape == (1, 5)
    assert model_of(f"{kind}:1", n_head=1)(idx, idx)[1].isfinite()
    model.train()(idx, idx)[1].backward()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "classical"])
def test_nan_in_a_token_vector_is_an_error(kind):
    model = model_of(f"{kind}:2")
    model.wpe.weight.data[3, 5] = torch.nan
    with pytest.raises(EncodingError, match="NaN or infinity"):
        model(tokens())


def test_a_state_dict_for_other_observables_is_refused():
    strings = ["XXXX", "YYII", "IZIZ", "IIIX", "ZZZZ", "XIII", "IXII", "IIXI"]
    other = model_of("zz:2", observables={"zz": strings})
    with pytest.raises(RuntimeError, match="observables differ: this head measures IIIZ"):
        model_of("zz:2").load_state_dict(other.state_dict())
    model_of("zz:2", observables={"zz": strings}).load_state_dict(other.state_dict())


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own insides
def test_a_compiled_model_generates_the_same_text():
    model, idx = model_of("qisa:1,classical:1").eval(), tokens(steps=3)
    expected = model.generate(idx, 4, seed=0)
    model.compile(backend="aot_eager")
    assert torch.equal(model.generate(idx, 4, seed=0), expected)


def test_mixed_precision_leaves_circuits_in_float32():
    model = model_of("qisa:1,zz:1")
    seen = []
    for _, _, head in model.quantum_heads():
        head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, loss = model(tokens(), tokens())
    loss.backward()
    assert seen == [torch.float32] * 4
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"heads": "nope:4"}, UnknownNameError, "Unknown head kind 'nope'"),
        ({"heads": "qisaa:4"}, UnknownNameError, "Did you mean 'qisa'"),
        ({"heads": "qisa:2,classical:1"}, ConfigError, "has 3 heads per layer, but n_head is 4"),
        ({"heads": "qisa"}, ConfigError, "expected 'kind:count"),
        ({"heads": "qisa:0,classical:4"}, ConfigError, "at least 1"),
        ({"heads": ["classical:4"]}, ConfigError, "heads lists 1 layer, but n_layer is 4"),
        ({"n_embd": 130}, ConfigError, "multiple of n_head"),
        ({"n_layer": 0}, ConfigError, "n_layer must be an integer of at least 1"),
        ({"dropout": 1.0}, ConfigError, "dropout"),
        ({"num_qubits": 2}, CircuitError, "32 observables asked for, but on 2 qubits"),
        ({"num_qubits": 13}, CircuitError, "between 1 and 12"),
        ({"heads": "qisa-v2:4"}, ConfigError, "needs num_qubits of at least 7, got 5"),
        ({"heads": 5}, ConfigError, "heads must be a string"),
        ({"num_qubits": "5"}, ConfigError, "num_qubits must be an integer"),
        ({"n_layer": True}, ConfigError, "n_layer must be an integer"),
        ({"dropout": "0.1"}, ConfigError, "dropout must be a number"),
        ({"observables": {"qsan": []}}, UnknownNameError, "head kind in observables"),
        ({"heads": "zz:4", "observables": {"zz": ["Z" * 5]}}, ConfigError, "1 observable, but the head size is 32"),
    ],
)
def test_bad_shapes_are_our_errors(options, kind, message):
    with pytest.raises(kind, match=message) as caught:
        GPT(GPTConfig(**options))
    assert isinstance(caught.value, QattnError)


def test_num_qubits_can_be_left_to_the_kind():
    config = GPTConfig(heads="qisa-v2:1,qisa:3", num_qubits=None)
    assert [config.kind_qubits(kind) for kind in config.kinds()] == [7, 5]


def test_bad_calls_are_our_errors():
    model = model_of("classical:2")
    with pytest.raises(ConfigError, match="longer than block_size=8"):
        model(tokens(1, 9))
    with pytest.raises(ConfigError, match="at least one token"):
        model.generate(torch.zeros(1, 0, dtype=torch.long), 3)
    for options in ({"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}):
        with pytest.raises(ConfigError, match="temperature and max_new_tokens must be finite"):
            model.generate(tokens(1, 2), 3, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    model = model_of("qisa:1,qsann:1").eval()
    idx = tokens()
    expected = model(idx)[0]
    torch.testing.assert_close(model.cuda()(idx.cuda())[0].cpu(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(5,), (1, 2, 3), ()])
def test_tokens_of_another_shape_are_refused(shape):
    with pytest.raises(ConfigError, match=r"shape \(B, T\), got"):
        GPT(GPTConfig(vocab_size=11, block_size=6, n_layer=1, n_head=1, n_embd=4, heads="classical:1"))(
            torch.zeros(shape, dtype=torch.long)
        )
