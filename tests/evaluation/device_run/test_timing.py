"""How long a generation and its comparison will take is found out from a few tokens."""

from __future__ import annotations

import pytest
import torch

from qiskit_qattn.backends.place import Place
from qiskit_qattn.evaluation.device_run import timing
from qiskit_qattn.evaluation.device_run.timing import token_seconds
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT

PROMPT = torch.tensor([[1, 2, 3]])
OPTIONS = {"temperature": 0.8, "top_k": 6, "seed": 3}


@pytest.fixture
def model() -> GPT:
    return GPT(GPTConfig(11, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=3))


@pytest.mark.parametrize(("backend", "parts"), [("statevector?shots=50&seed=1", 2), ("density_matrix", 1)])
def test_the_tokens_and_with_shots_their_comparison_are_timed(model: GPT, backend: str, parts: int):
    place = Place.open(backend)
    with model.to_backend(place):
        found = token_seconds(model, PROMPT, 100, place, **OPTIONS)
    assert found is not None and len(found) == parts and min(found) > 0


def test_what_is_timed_changes_no_token(model: GPT):
    texts = []
    for timed in (False, True):
        place = Place.open("statevector?shots=50&seed=1")
        with model.to_backend(place):
            if timed:
                token_seconds(model, PROMPT, 100, place, **OPTIONS)
            texts.append(model.generate(PROMPT, 9, **OPTIONS).tolist())
    assert texts[0] == texts[1]


def test_what_cannot_be_timed_in_advance(model: GPT, monkeypatch: pytest.MonkeyPatch):
    chain, place = Place.open("density_matrix -> statevector"), Place.open("density_matrix")
    assert token_seconds(model, PROMPT, 100, chain, **OPTIONS) == []
    assert token_seconds(model, PROMPT, 5, place, **OPTIONS) == []
    monkeypatch.setattr(timing, "waits_in_queue", lambda place: True)
    assert token_seconds(model, PROMPT, 100, place, **OPTIONS) is None
