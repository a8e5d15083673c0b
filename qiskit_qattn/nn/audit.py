"""What heads on a chain of backends write down: where their calls were computed, and every fall."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from qiskit_qattn.errors import BackendError

Pass = Literal["forward", "backward"]

_LOG = logging.getLogger("qiskit_qattn.backends.fallback")


class FallbackWarning(UserWarning):
    """A link of a chain failed, and the next one computed what it was asked for."""


@dataclass(frozen=True)
class Fall:
    """One call that went from a link of a chain to the next.

    Attributes:
        layer: The head's layer, or None for a head without a model.
        kind: The head's kind.
        call: Number of the head's call on the chain, from 1.
        during: The pass that failed; the backward pass of a call may fall though its forward pass did not.
        link: The backend that failed.
        to: The one that was tried next.
        reason: Its error, in one line.
    """

    layer: int | None
    kind: str
    call: int
    during: Pass
    link: str
    to: str
    reason: str


@dataclass
class Audit:
    """Where the calls of one head on a chain were computed.

    Attributes:
        layer: The head's layer, or None for a head without a model.
        kind: The head's kind, or ``EstimatorQNN`` for the network of a connector.
        calls: Number of calls whose values each backend computed.
        gradients: Number of calls whose gradients each backend computed.
        falls: What failed, in order.
    """

    layer: int | None
    kind: str
    calls: Counter[str] = field(default_factory=Counter)
    gradients: Counter[str] = field(default_factory=Counter)
    falls: list[Fall] = field(default_factory=list)

    def fall(self, call: int, during: Pass, link: str, to: str, error: BackendError) -> None:
        """Write a fall down and log it; the first from each link is a :class:`FallbackWarning` too."""
        fall = Fall(self.layer, self.kind, call, during, link, to, " ".join(str(error).split()))
        first = all(link != other.link for other in self.falls)
        self.falls.append(fall)
        where = self.kind if self.layer is None else f"Layer {self.layer}, {self.kind} heads"
        text = f"{where}, call {call}, {during} pass: {link} failed, {to} is next. {fall.reason}"
        _LOG.warning("%s", text)
        if first:
            more = "(Later ones from this link are in the log and in audit() only.)"
            warnings.warn(FallbackWarning(f"{text} {more}"), stacklevel=2)
