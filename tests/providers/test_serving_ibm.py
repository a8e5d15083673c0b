"""A served model on a paid device: who paid what, and answers that still come while it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qiskit_qattn.errors import GenerationError
from qiskit_qattn.nn.audit import FallbackWarning
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.serving.engine import Engine, Generation, Sampling
from qiskit_qattn.serving.models import load
from qiskit_qattn.training.tokenizer import CharTokenizer

from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?budget=600s&resilience=0&shots=64"


@pytest.fixture
def model(tmp_path: Path) -> str:
    tokenizer = CharTokenizer("\nabc")
    GPT(GPTConfig(tokenizer.vocab_size, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    return str(tmp_path)


async def texts(engine: Engine, *lengths: int) -> list[Generation]:
    """Return requests at once, when all have ended."""
    generations = [engine.submit([i % 4], Sampling(each, seed=i)) for i, each in enumerate(lengths)]
    for each in generations:
        assert sum([len(piece.tokens) async for piece in each]) == each.sampling.max_tokens
    return generations


def test_requests_pay_equal_shares_of_the_passes_that_they_share(ibm_server: IBMServer, model: str) -> None:
    engine = Engine(load(model, backend=BACKEND))
    first, second = asyncio.run(texts(engine, 1, 3))
    engine.close()
    assert len(ibm_server.jobs) == engine.stats()["passes"] == 3
    [device] = engine.model.devices()
    assert (device["backend"], device["paid"], device["budget"]) == (BACKEND, True, "600s")
    assert device["breaker"] == "closed"
    costs = [each.backends["cost"][device["backend"]] for each in (first, second)]
    assert [cost["jobs"] for cost in costs] == [0.5, 2.5]
    for unit in ("jobs", "seconds", "usd"):
        assert sum(cost[unit] for cost in costs) == pytest.approx(device["spent"][unit])
    assert first.backends["calls"] == {device["backend"]: 1}
    assert [each.backends["shared"] for each in (first, second)] == [2, 2]


def test_answers_still_come_while_the_device_fails_and_say_so(ibm_server: IBMServer, model: str) -> None:
    ibm_server.fail_jobs("The fridge is warm.", times=2)
    with pytest.warns(FallbackWarning, match="The fridge is warm"):
        engine = Engine(load(model, backend=f"{BACKEND} -> statevector"))
        [generation] = asyncio.run(texts(engine, 5))
    engine.close()
    assert generation.backends["calls"] == {BACKEND: 3, "statevector": 2}
    [fall] = generation.backends["falls"]
    assert (fall["from"], fall["to"], fall["count"]) == (BACKEND, "statevector", 2)
    assert "The fridge is warm" in fall["reason"]
    assert generation.backends["cost"][BACKEND]["jobs"] >= 3


def test_without_a_budget_nothing_is_sent_and_the_request_is_told(ibm_server: IBMServer, model: str) -> None:
    engine = Engine(load(model, backend=BACKEND.replace("budget=600s&", "")))
    with pytest.raises(GenerationError, match="no budget is given, so nothing was sent"):
        asyncio.run(texts(engine, 2))
    assert not ibm_server.jobs
    assert engine.state == "running"
    engine.close()
