"""Tokens of several texts: torch's draws of each alone, with the masks of transformers."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.serving.sampling import Sampling, draw

OPTIONS = [
    Sampling(seed=1),
    Sampling(temperature=0, seed=2),
    Sampling(temperature=0.3, top_k=3, seed=3),
    Sampling(top_p=0.6, seed=4),
    Sampling(temperature=2.0, top_k=5, top_p=0.7, seed=5),
    Sampling(top_k=1000, top_p=1e-9, seed=6),
    Sampling(temperature=1e-3, seed=7),
]


def alone(logits: torch.Tensor, options: Sampling, generator: torch.Generator) -> int:
    """Return what transformers and torch draw, in double precision."""
    if options.temperature == 0:
        return int(logits.argmax())
    scores = TemperatureLogitsWarper(float(options.temperature))(None, logits[None].double())
    if options.top_k is not None:
        scores = TopKLogitsWarper(options.top_k)(None, scores)
    if options.top_p < 1:
        scores = TopPLogitsWarper(options.top_p)(None, scores)
    return int(torch.multinomial(scores.softmax(-1), 1, generator=generator))


def test_draws_are_those_of_each_text_alone():
    first = [each.generator(torch.device("cpu")) for each in OPTIONS]
    second = [each.generator(torch.device("cpu")) for each in OPTIONS]
    for _ in range(50):
        logits = 3 * torch.randn(len(OPTIONS), 40)
        expected = [alone(*each) for each in zip(logits, OPTIONS, second, strict=True)]
        assert draw(logits, OPTIONS, first) == expected


def test_without_a_seed_texts_differ():
    logits = torch.zeros(2, 1000)
    options = [Sampling(), Sampling()]
    texts = zip(*(draw(logits, options, [e.generator(logits.device) for e in options]) for _ in range(4)), strict=True)
    assert len(set(texts)) == 2


def test_the_likeliest_token_is_drawn_where_only_it_is_left():
    logits = torch.randn(3, 30)
    options = [Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-9)]
    assert draw(logits, options, [each.generator(logits.device) for each in options]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": -1}, "max_tokens must be at least 0, got -1."),
        ({"temperature": float("nan")}, "temperature must be finite and at least 0, got nan."),
        ({"temperature": -0.1}, "temperature must be finite and at least 0, got -0.1."),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0."),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1."),
        ({"top_k": 0}, "top_k must be at least 1, got 0."),
        ({"seed": 2**63}, f"seed must be between 0 and 2^63 - 1, got {2**63}."),
        ({"stop": ("a", "")}, "stop must be at most 16 strings, none of them empty, got 2."),
        ({"stop": ("a",) * 17}, "stop must be at most 16 strings, none of them empty, got 17."),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Sampling(**options)
