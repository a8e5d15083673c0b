"""How many requests and tokens a key may have per minute."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.serving.failures import Refusal
from qiskit_qattn.serving.keys import Key
from qiskit_qattn.serving.settings import Settings

_NOBODY = Key("", "")  # a client of a server without keys


@dataclass(frozen=True)
class Limit:
    """What is left of a limit.

    Attributes:
        kind: ``requests`` or ``tokens``.
        most: The limit, per minute.
        left: What is left of it.
        seconds: When it starts anew.
    """

    kind: str
    most: int
    left: int
    seconds: float

    @property
    def headers(self) -> dict[str, str]:
        """The headers that OpenAI's API has."""
        return {
            f"x-ratelimit-limit-{self.kind}": str(self.most),
            f"x-ratelimit-remaining-{self.kind}": str(self.left),
            f"x-ratelimit-reset-{self.kind}": f"{self.seconds:.3g}s",
        }


class Limits:
    """Counts requests and tokens of keys. A minute begins with a key's first request after the last one ended.

    Tokens are charged before they are generated, as many as may be, as OpenAI does; what would pass the limit is not
    charged.

    Args:
        settings: The server's settings; their limits apply to keys that have none of their own.

    Raises:
        ConfigError: For a storage that the package limits does not know.
    """

    def __init__(self, settings: Settings) -> None:
        self._defaults = {"requests": settings.requests_per_minute, "tokens": settings.tokens_per_minute}
        try:
            self._limiter = FixedWindowRateLimiter(storage_from_string(settings.limit_storage))
        except (ConfigurationError, AssertionError) as error:
            raise ConfigError(
                f"limit_storage is {settings.limit_storage!r}, but must be an asynchronous storage of the package "
                f"limits, such as async+memory:// or async+redis://host:6379. {error}".rstrip()
            ) from error

    async def charge(self, key: Key | None, kind: str, cost: int = 1) -> Limit | None:
        """Charge a key, and return what is left, or None without a limit.

        Args:
            key: The client's key; None on a server without keys.
            kind: ``requests`` or ``tokens``.
            cost: The number of requests or tokens.

        Raises:
            Refusal: With status 429 if the limit would be passed.
        """
        key = key or _NOBODY
        own = key.requests_per_minute if kind == "requests" else key.tokens_per_minute
        most = self._defaults[kind] if own is None else own
        if not most:
            return None
        item, names = RateLimitItemPerMinute(most), (kind, key.name, key.sha256[:16])
        allowed = await self._limiter.test(item, *names, cost=cost) and await self._limiter.hit(item, *names, cost=cost)
        stats = await self._limiter.get_window_stats(item, *names)
        limit = Limit(kind, most, max(0, stats.remaining), max(0.0, stats.reset_time - time.time()))
        if not allowed:
            raise _refusal(limit, cost)
        return limit


def _refusal(limit: Limit, cost: int) -> Refusal:
    headers, wait = limit.headers, max(1, math.ceil(limit.seconds))
    if cost > limit.most:
        text = f"Request too large: it may take {cost:,} {limit.kind}, and the limit is {limit.most:,} per minute."
        headers["x-should-retry"] = "false"
    else:
        text = (
            f"Rate limit reached for {limit.kind}: limit {limit.most:,} per minute, left {limit.left:,}, requested "
            f"{cost:,}. Please try again in {wait} s."
        )
        headers["retry-after"] = str(wait)
    return Refusal(429, text, kind=limit.kind, code="rate_limit_exceeded", headers=headers)
