"""What a call of a model tells of its sampling."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError


def gpt(sampling: str | None) -> qa.GPT:
    """Return a small model."""
    torch.manual_seed(3)
    sizes = {"vocab_size": 11, "block_size": 16, "n_layer": 2, "n_embd": 16, "n_head": 2, "num_qubits": 2}
    return qa.GPT(qa.GPTConfig(**sizes, heads="qisa:1,qsann:1", sampling=sampling))


@pytest.mark.parametrize("sampling", ["naive?samples=64", "hybrid?samples=64&top=4", "stratified?samples=64"])
def test_estimated_variances_are_those_of_the_errors(sampling: str) -> None:
    """Of the first layer, whose queries, keys and values are those of exact attention."""
    tokens = torch.randint(11, (16, 16))
    calls = qa.sampling_errors(gpt(sampling), tokens)
    assert [call.name for call in calls] == [f"blocks.{layer}.attn.sampling" for layer in (0, 0, 1, 1)]
    exact: list[torch.Tensor] = []
    model = gpt("hybrid?top=16&samples=17").eval()
    model.blocks[0].attn.sampling.watch = lambda _, p, v, y: exact.append(p @ v)
    with torch.no_grad():
        model(tokens)
    for call, mean in zip(calls[:2], exact, strict=True):
        assert call.samples is not None and 45 < call.samples <= 64  # rows of up to four keys draw no others
        errors = (call.estimate - mean).square().sum(-1).mean()
        ratio = float(errors / call.variance.mean())
        assert (0.7 < ratio < 1.4) if "stratified" not in sampling else ratio < 1.2
        assert call.relative_error == pytest.approx(
            float((call.variance.mean() / call.estimate.square().sum(-1).mean()).sqrt())
        )


def test_where_samples_tell_nothing_there_is_no_variance() -> None:
    tokens = torch.randint(11, (2, 16))
    assert all(
        call.variance is None and call.relative_error is None for call in qa.sampling_errors(gpt("systematic"), tokens)
    )
    model = gpt("amplitude?qubits=4&samples=8")
    assert qa.sampling_errors(model, tokens)[0].samples == 8
    with qa.to_backend(model.blocks[0].attn.sampling, "statevector?shots=256&seed=1"):
        call = qa.sampling_errors(model, tokens)[0]
        assert call.samples is None and call.discarded < 1e-5
        assert call.variance is not None and 0 < float(call.variance.mean()) < 1
    assert all(module.watch is None for module in model.modules() if hasattr(module, "watch"))


def test_discarded_outcomes_are_those_of_the_call_alone() -> None:
    """Rows of later calls do not count, nor those of calls between: outcomes without shots are the same each time."""
    model, tokens = gpt("amplitude?qubits=3&samples=8"), torch.randint(11, (2, 5))
    noisy = "density_matrix?noise=depolarizing&p1=0.01&p2=0.05"

    def told(tokens: torch.Tensor) -> list[float]:
        return [call.discarded for call in qa.sampling_errors(model, tokens)]

    with model.to_backend(noisy):
        first = told(tokens)
    assert min(first) > 0.01
    with model.to_backend(noisy):
        model(torch.randint(11, (1, 8)))  # rows of eight keys, of which the last discards nothing
        assert told(tokens[:1, :2]) != pytest.approx(first)
        assert told(tokens) == pytest.approx(first)


def test_models_without_sampling_are_told() -> None:
    with pytest.raises(ConfigError, match="GPT has no sampled attention; its sampling is None"):
        qa.sampling_errors(gpt(None), torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ConfigError, match=r"model must be a torch\.nn\.Module, got str"):
        qa.sampling_errors("model", None)
    assert not isinstance(gpt(None).blocks[0].attn.sampling, nn.Module)
