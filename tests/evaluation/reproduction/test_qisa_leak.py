from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.evaluation.reproduction.qisa_leak import CorrectedGPT, PublishedAttention, PublishedGPT, run
from qiskit_qattn.evaluation.reproduction.runs import Options
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.kinds import HEAD_KINDS
from qiskit_qattn.training.progress import Progress

SHAPE = GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)


def test_the_certificate_fails_the_published_model_by_edits_and_by_gradients():
    found = leakage(PublishedGPT(SHAPE))
    assert (found.verdict, len(found.worst)) == ("failed", 5)
    assert found > 1e-3
    assert found.gradient > 1e-3


@pytest.mark.parametrize("model_class", [CorrectedGPT, GPT])
def test_it_passes_the_causal_ones(model_class: type[GPT]):
    assert leakage(model_class(SHAPE)).passed


def test_the_models_start_from_the_same_weights():
    states = []
    for model_class in (PublishedGPT, CorrectedGPT):
        torch.manual_seed(0)
        states.append(model_class(SHAPE).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_published_attention_transposes_causal_weights():
    q, k, v = torch.randn(3, 2, 1, 5, 4)  # (B, nh, T, h)
    squares = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)  # (B, nh, T, T)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    weights = torch.exp(-squares).masked_fill(mask, -math.inf).softmax(-1)
    attention = PublishedAttention(SHAPE, {"qisa-v3": 1})
    torch.testing.assert_close(attention._attend("linear", q, k, v, "dot", None), weights.mT @ v)


def test_the_last_position_has_nothing_to_read():
    attention = PublishedAttention(SHAPE, {"qisa-v3": 1}).eval()
    x = torch.randn(1, 6, 8)
    other = torch.cat([torch.randn(1, 5, 8), x[:, 5:]], 1)
    y, z = attention(x), attention(other)  # (B, T, d)
    # its own value, however much weight the last row gives to it
    cosine = torch.cosine_similarity(y[:, 5], z[:, 5])
    torch.testing.assert_close(cosine, torch.ones(1))


def test_it_is_no_kind_of_head():
    assert not [name for name in HEAD_KINDS if "published" in name or "leak" in name]


def test_the_leak_predicts_dice(dice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = {"n_layer": 1, "block_size": 8, "batch_size": 32, "learning_rate": 2e-2, "warmup_steps": 10}
    monkeypatch.setattr("qiskit_qattn.evaluation.reproduction.qisa_leak.SETTINGS", {**small, "eval_batches": 1})
    found = run(Options(tmp_path, str(dice), steps=60), Progress())
    entropy = math.log(4)
    figures = found.figures
    assert figures["published"]["val_loss"] < 0.6 * entropy
    assert figures["published"]["val_loss_last_position"] > 0.98 * entropy
    for causal in ("corrected", "qisa", "classical"):
        assert figures[causal]["val_loss"] > 0.98 * entropy
        assert figures[causal]["certificate"] == {"verdict": "passed", "edits": 0, "gradients": 0}
    assert figures["published"]["certificate"]["verdict"] == "failed"
    assert [row[0] for row in found.rows] == ["as published", "not transposed", "our `qisa`", "classical"]
    assert all(len(row) == len(found.head) for row in found.rows)
