"""Requests and tokens that a key may have per minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.serving.failures import Refusal
from qiskit_qattn.serving.keys import Key, Keys, create_key
from qiskit_qattn.serving.limits import Limits
from qiskit_qattn.serving.settings import Settings

from .servers import Serve

ALICE, BOB = Key("alice", "0" * 64), Key("bob", "1" * 64, requests_per_minute=0, tokens_per_minute=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.lists(st.integers(1, 70), max_size=20))
def test_what_was_allowed_never_passes_the_limit_and_what_fits_is_allowed(most: int, costs: list[int]) -> None:
    async def charged() -> None:
        limits, left = Limits(Settings(tokens_per_minute=most)), most
        for cost in costs:
            if cost <= left:
                found = await limits.charge(ALICE, "tokens", cost)
                left -= cost
                assert found is not None and (found.most, found.left) == (most, left)
                assert 0 < found.seconds <= 60
            else:
                with pytest.raises(Refusal) as refused:
                    await limits.charge(ALICE, "tokens", cost)
                assert refused.value.status == 429
                assert ("retry-after" in refused.value.headers) == (cost <= most)
            assert await limits.charge(BOB, "tokens", cost) is None  # a key of its own
            assert await limits.charge(ALICE, "requests") is None  # without a limit

    asyncio.run(charged())


def test_limits_hold_for_many_at_once() -> None:
    async def allowed() -> int:
        limits = Limits(Settings(requests_per_minute=10))
        found = await asyncio.gather(*(limits.charge(ALICE, "requests") for _ in range(50)), return_exceptions=True)
        return sum(not isinstance(each, Refusal) for each in found)

    assert asyncio.run(allowed()) == 10


@pytest.mark.parametrize("uri", ["memory://", "async+nothing://", "nonsense"])
def test_a_storage_that_cannot_be_used_is_an_error(uri: str) -> None:
    with pytest.raises(ConfigError, match="limit_storage"):
        Limits(Settings(limit_storage=uri))


def test_a_client_is_told_when_to_come_again(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    alice, bob = create_key(file, "alice"), create_key(file, "bob", requests=0)
    served = serve(keys=Keys(file), requests_per_minute=3)
    with served.client(alice) as client, served.client(bob) as other:
        for left in (2, 1, 0):
            raw = client.completions.with_raw_response.create(model="verse", prompt="the", max_tokens=1)
            assert raw.headers["x-ratelimit-limit-requests"] == "3"
            assert raw.headers["x-ratelimit-remaining-requests"] == str(left)
        with pytest.raises(openai.RateLimitError, match="Rate limit reached for requests") as refused:
            client.models.list()
        assert refused.value.code == "rate_limit_exceeded"
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        for _ in range(5):
            other.models.list()


def test_tokens_are_charged_as_many_as_may_be(serve: Serve) -> None:
    served = serve(tokens_per_minute=100)
    with served.client() as client:
        raw = client.completions.with_raw_response.create(model="verse", prompt="good", max_tokens=16, n=3)
        assert raw.headers["x-ratelimit-remaining-tokens"] == str(100 - 3 * (4 + 16))
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(model="verse", prompt="good", max_tokens=37)
        assert "retry-after" in refused.value.response.headers
        with pytest.raises(openai.RateLimitError, match="Request too large") as refused:
            client.completions.create(model="verse", prompt="good", max_tokens=97)
        assert refused.value.response.headers["x-should-retry"] == "false"
        client.completions.create(model="verse", prompt="good", max_tokens=36)
    assert served.engine.stats()["requests"] == 4  # what was refused never reached the model
