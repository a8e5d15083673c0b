"""Sampled attention in models: causality, batches, caches, gradients, schedules, saving, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.nn import draws
from qiskit_qattn.nn.attention import attend
from qiskit_qattn.nn.draws import random_words
from qiskit_qattn.nn.estimates import exact_variance, taken
from qiskit_qattn.nn.sampling import SampledMean, Scheme, places

STRATEGIES = [
    "naive?samples=6",
    "stratified?samples=6",
    "systematic?samples=6",
    "hybrid?samples=6&top=2",
    "adaptive?samples=6",
    "adaptive?pilot=4&samples=6",
    "stratified?control=3&samples=6",
]
every_strategy = pytest.mark.parametrize("sampling", STRATEGIES)


def gpt(sampling: str | None, **options: object) -> qa.GPT:
    """Return a small model."""
    torch.manual_seed(1)
    settings = {"vocab_size": 11, "block_size": 12, "n_layer": 2, "n_embd": 16, "num_qubits": 2}
    return qa.GPT(qa.GPTConfig(**settings | {"heads": "qisa:2,qsann:2", "sampling": sampling} | options))


@pytest.fixture
def tokens() -> Tensor:
    """Return three sequences."""
    return torch.randint(11, (3, 12))


@every_strategy
def test_no_position_reads_its_future(sampling: str) -> None:
    assert float(qa.leakage(gpt(sampling))) == 0


@every_strategy
def test_a_sequence_gives_the_same_in_any_batch(sampling: str, tokens: Tensor) -> None:
    """The random numbers are the same; what is left is how batches of different sizes are rounded."""
    model = gpt(sampling).double().eval()
    logits, _ = model(tokens)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(tokens[order])[0], logits[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(model(tokens[1:2])[0], logits[1:2], rtol=0, atol=1e-12)
    torch.testing.assert_close(model(tokens[:, :7])[0], logits[:, :7], rtol=0, atol=1e-12)


@every_strategy
def test_a_cache_changes_nothing(sampling: str, tokens: Tensor) -> None:
    model = gpt(sampling).double().eval()
    texts = [model.generate(tokens[:, :5], 14, seed=3, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*texts)


def test_samples_of_a_pilot_are_never_reported() -> None:
    """They choose the number of samples alone: which keys are drawn is a function of that and of other words."""
    p, v = torch.randn(3, 2, 5, 9).softmax(-1), torch.randn(3, 2, 9, 4) * torch.logspace(-1, 1, 9)[:, None]
    mean, seen_draws = SampledMean(Scheme.parse("adaptive?samples=8&pilot=4&seed=3")).eval(), []
    mean.watch = lambda draw, *_: seen_draws.append(draw)
    mean(p, v)
    rows, heads = torch.arange(4, 9)[None], torch.arange(2)
    words = [random_words(n, rows, heads, seed=3, step=0, stream=stream) for n, stream in ((8, 0), (4, 2))]
    assert not torch.isin(*words).any()
    pilot = draws.naive(p, words[1])
    counts = draws.pilot_counts(taken(v, pilot.indices), 8)
    assert len(counts.unique()) > 1
    expected, found = draws.stratified(p, words[0], counts), seen_draws[0]
    assert torch.equal(found.indices, expected.indices) and torch.equal(found.weights, expected.weights)
    assert torch.equal(torch.count_nonzero(found.weights, -1), counts[..., 0])


def test_the_mean_with_a_pilot_is_exact_attention() -> None:
    """Over seeds, in rows whose pilots choose different numbers; its error is about the same in each."""
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25, 0, 0], [0, 0, 0, 0, 0.5, 0.5]]).view(1, 1, 2, 6)
    v = torch.tensor([3.0, -1, 2, -4, 1, 1.01]).view(1, 1, 6, 1)
    found, counts = [], []
    for seed in range(600):
        mean = SampledMean(Scheme.parse(f"adaptive?samples=8&pilot=3&seed={seed}")).eval()
        mean.watch = lambda draw, *_: counts.append(draw.counts.flatten())  # type: ignore[union-attr]
        found.append(mean(p, v).flatten())
    means, errors = torch.stack(found).mean(0), torch.stack(found).var(0)
    all_counts = torch.stack(counts)
    assert len(all_counts[:, 0].unique()) > 2 and (all_counts[:, 1] == 2).all()
    assert ((means - (p @ v).flatten()).abs() < 4 * (errors / 600).sqrt() + 1e-4).all()
    assert (errors <= (p @ v.square()).flatten() / 8).all()


def test_sequences_and_layers_have_random_numbers_of_their_own(tokens: Tensor) -> None:
    model, exact = gpt("naive?samples=4").eval(), gpt(None).eval()
    errors = model(tokens)[0] - exact(tokens)[0]
    assert (errors[0, 2:] - errors[1, 2:]).abs().min() > 0  # the first sees one key
    first, second = (layer.sampling for layer in model.attention_layers())
    p, v = torch.full((1, 4, 12, 12), 1 / 12), torch.randn(1, 4, 12, 5)
    assert (first(p, v) != second(p, v)).all(-1).any(-1).all()


def test_the_mean_over_seeds_is_exact_attention() -> None:
    p, v = torch.randn(2, 3, 5, 9).softmax(-1), torch.randn(2, 3, 9, 4)
    for strategy in ("naive", "stratified", "hybrid"):
        found = torch.stack([SampledMean(Scheme.parse(f"{strategy}?samples=8&seed={n}"))(p, v) for n in range(400)])
        law = exact_variance(p, v, strategy, 8, 2)  # type: ignore[arg-type]
        errors = (found.mean(0) - p @ v).square().sum(-1) * 400 / law
        assert 0.5 < float(errors.mean()) < 1.5


@pytest.mark.parametrize("strategy", ["naive", "stratified", "hybrid"])
@pytest.mark.parametrize("samples", [16, 64, 256])
def test_variances_pass_a_chi_squared_test(strategy: str, samples: int, rng: np.random.Generator) -> None:
    """At 99.9 %, on 2000 rows with random numbers of their own, for one value of each key."""
    p = torch.from_numpy(rng.dirichlet([0.7] * 12)).expand(1, 1, 2000, -1)
    v = torch.from_numpy(rng.normal(size=(1, 1, 12, 1)))
    mean = SampledMean(Scheme.parse(f"{strategy}?samples={samples}"))
    errors = (mean(p, v, torch.arange(2000)[None]) - p @ v).square().sum()
    law = exact_variance(p[:, :, :1], v, strategy, samples, samples // 4)  # type: ignore[arg-type]
    if samples // 4 >= 12 and strategy == "hybrid":
        assert float(errors) < 1e-20 and float(law) < 1e-20  # all keys are exact ones
    elif strategy == "stratified":  # few strata hold two keys, so that errors are no Gaussian: their own spread counts
        assert float(errors / law / 2000) == pytest.approx(1, abs=0.15)
    else:
        assert chi2.ppf(0.0005, 2000) < float(errors / law) < chi2.ppf(0.9995, 2000)


@every_strategy
def test_all_weights_get_gradients(sampling: str, tokens: Tensor) -> None:
    for gradient in ("score", "exact"):
        model = gpt(f"{sampling}&gradient={gradient}")
        model(tokens, tokens)[1].backward()
        for name, parameter in model.named_parameters():
            if "wpe" not in name:
                assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_training_draws_anew_and_evaluation_does_not(tokens: Tensor) -> None:
    model = gpt("naive?samples=4")
    torch.manual_seed(5)
    first, second = model(tokens)[0], model(tokens)[0]
    torch.manual_seed(5)
    assert torch.equal(model(tokens)[0], first) and not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_recomputed_activations_are_of_the_same_draw(tokens: Tensor) -> None:
    from torch.utils.checkpoint import checkpoint

    model, x = gpt("stratified?samples=4"), torch.randn(2, 6, 16, requires_grad=True)
    attention = model.attention_layers()[0]
    gradients = []
    for call in (attention, lambda x: checkpoint(attention, x, use_reentrant=False)):
        torch.manual_seed(2)
        gradients += torch.autograd.grad(call(x).sin().sum(), x)
    torch.testing.assert_close(*gradients)


def test_a_schedule_doubles_the_samples(tokens: Tensor) -> None:
    scheme = Scheme.parse("naive?samples=8..64&steps=100")
    assert [scheme.samples_at(step) for step in (0, 24, 25, 50, 75, 99, 100, 10**6)] == [8, 8, 16, 32, 64, 64, 64, 64]
    assert [Scheme.parse("naive?samples=5..12&steps=10").samples_at(step) for step in (0, 4, 5, 10)] == [5, 5, 10, 12]
    model = gpt("naive?samples=2..8&steps=10")
    with pytest.raises(ConfigError, match=r"set_sampling_step\(model, step\) before each"):
        model(tokens)
    qa.set_sampling_step(model, 0)
    noisy = model(tokens)[0]
    exact = gpt(None)(tokens)[0]
    qa.set_sampling_step(model, 10)
    assert (model(tokens)[0] - exact).square().mean() < (noisy - exact).square().mean()
    model.eval()  # the last number of samples
    assert torch.equal(model(tokens)[0], gpt("naive?samples=8").eval()(tokens)[0])


def test_a_model_is_saved_with_its_sampling(tokens: Tensor, tmp_path: Path) -> None:
    model = gpt(" Hybrid?top=2&samples=006&gradient=exact").eval()
    assert model.config.sampling == "hybrid?gradient=exact&samples=6&top=2"
    assert gpt(None).state_dict().keys() == model.state_dict().keys()
    model.save_pretrained(tmp_path)
    loaded = qa.GPT.from_pretrained(tmp_path).eval()
    assert loaded.config == model.config and torch.equal(loaded(tokens)[0], model(tokens)[0])
    torch.testing.assert_close(qa.inference(model)(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize("sampling", STRATEGIES[:2])
def test_torchs_attention_is_sampled(sampling: str) -> None:
    mha = qa.QuantumMultiheadAttention(8, 2, batch_first=True, heads="classical", sampling=sampling).double().eval()
    exact = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64).eval()
    exact.load_state_dict(mha.state_dict())
    x, padding = torch.randn(3, 5, 8, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.bool)
    y, weights = mha(x, x, x)
    expected, of_keys = exact(x, x, x)
    torch.testing.assert_close(weights, of_keys)
    assert 1e-3 < (y - expected).abs().max() < 3
    padded = torch.cat([x, torch.full_like(x, 9.0)], 1)
    mask = torch.cat([padding, ~padding], 1)
    torch.testing.assert_close(mha(padded, padded, padded, key_padding_mask=mask)[0][:, :5], y)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float64).eval()
    before = layer(x)
    qa.replace_attention(layer, "classical", sampling=sampling)
    assert not torch.allclose(layer(x), before)  # torch's fast path does not pass it by


def test_replaced_layers_are_numbered() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3, enable_nested_tensor=False)
    qa.replace_attention(model, "classical", sampling="naive")
    assert [m.layer for m in model.modules() if isinstance(m, SampledMean)] == [0, 1, 2]


def test_places_do_not_count_padding_on_the_left() -> None:
    real = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    causal = torch.ones(4, 4, dtype=torch.bool).tril() & real[:, None]
    found = places(4, 4, causal[:, None], causal=True)
    assert found[real].tolist() == [0, 1, 2, 3, 0, 1, 0, 1]
    added = torch.zeros(3, 1, 4, 4).masked_fill(~causal[:, None], torch.finfo(torch.float32).min)
    assert torch.equal(places(4, 4, added, causal=True)[real], found[real])
    assert places(1, 4, causal[:, None, 3:], causal=True).tolist() == [[3], [1], [1]]
    both = real[:, None, None].expand(-1, 1, 4, -1)
    assert places(4, 4, both, causal=False)[real].tolist() == [0, 1, 2, 3, 0, 1, 0, 1]
    assert places(2, 5, None, causal=True) is None and places(2, 5, None, causal=False).tolist() == [[0, 1]]


def test_a_row_that_sees_no_key_is_zero() -> None:
    q, k, v = torch.randn(3, 1, 2, 4, 3)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    y, _ = attend(q, k, v, "dot", mask, mix=SampledMean(Scheme.parse("stratified")))
    assert not y[:, :, 2].any() and y[:, :, :2].any()


def test_dropped_samples_keep_the_mean() -> None:
    p, v = torch.full((1, 1, 4000, 6), 1 / 6), torch.randn(1, 1, 6, 2)
    mean = SampledMean(Scheme.parse("naive?samples=8"))(p, v, torch.arange(4000)[None], dropout=0.25).mean(
        2, keepdim=True
    )
    torch.testing.assert_close(mean, p[:, :, :1] @ v, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stratfied", "Unknown sampling 'stratfied'. Did you mean 'stratified'?"),
        ("naive:4", "'naive:4' is no sampling string; expected name[?key=value&…]."),
        ("naive?shots=4", "Unknown option of sampling 'naive': 'shots'."),
        ("naive?samples=0", "Sampling option samples must be a whole number from 1 to 1048576, or two such as 8..64"),
        ("naive?samples=64..8&steps=9", "Sampling option samples must be a whole number from 1 to 1048576"),
        ("naive?samples=8..64", "A schedule has samples=8..64 and steps=1000, say, but 'naive?samples=8..64' has only"),
        (
            "naive?steps=9",
            "A schedule has samples=8..64 and steps=1000, say, but 'naive?steps=9' has only one of them.",
        ),
        ("naive?top=2", "Sampling option top is for hybrid, but the strategy of 'naive?top=2' is naive."),
        ("hybrid?samples=4&top=4", "Of the samples of 'hybrid?samples=4&top=4', 4, more than top=4 must be drawn."),
        ("naive?pilot=8", "Sampling option pilot is for adaptive, but the strategy of 'naive?pilot=8' is naive."),
        ("adaptive?pilot=1", "Sampling option pilot must be an integer of at least 2"),
        ("naive?control=1", "Sampling option control must be an integer of at least 2"),
        ("naive?seed=x", "Sampling option seed must be an integer of at least 0 and at most 4294967295, got 'x'."),
        ("naive?gradient=none", "Unknown gradient of sampling 'none'. Known: exact, score."),
        ("naive?samples", "Sampling option 'samples' in 'naive?samples' must be of the form key=value."),
        (7, "sampling must be a string such as 'stratified?samples=32', or None; got 7."),
    ],
)
def test_bad_strings_are_told_in_a_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        qa.GPTConfig(sampling=text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, UnknownNameError) == message.startswith("Unknown")


@pytest.mark.parametrize("kind", ["qcsam", "quixer"])
def test_kinds_without_probabilities_refuse_sampling(kind: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{kind} heads have no probabilities of keys, so that 'naive' has none to draw"
    ):
        gpt("naive", heads=f"{kind}:2,classical:2")


@pytest.mark.parametrize("sampling", [*STRATEGIES, "stratified?samples=6&gradient=exact", "hybrid?samples=6&top=5"])
def test_a_row_without_keys_is_zero_with_weights_asked_for_too(sampling: str) -> None:
    mix, mask = SampledMean(Scheme.parse(sampling)), torch.ones(1, 1, 3, 4, dtype=torch.bool)
    mask[..., 1, :] = False
    q, k, v = (torch.randn(1, 1, size, 4, requires_grad=True) for size in (3, 4, 4))
    y, weights = attend(q, k, v, "dot", mask, mix=mix, need_weights=True)
    assert weights is not None and not y[0, 0, 1].any() and not weights[0, 0, 1].any()
    y.sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in (q, k, v))
