"""The record of a head on a chain or a group of backends: what was computed where, and what failed."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from qiskit_qattn.errors import BackendError

Pass = Literal["forward", "backward"]
_INSIDE = (__name__.partition(".")[0], "torch")
_LOG = logging.getLogger("qiskit_qattn.backends.fallback")


class FallbackWarning(UserWarning):
    """A backend of a chain or a group failed, and another one computed the values instead."""


@dataclass(frozen=True)
class Fall:
    """One call, or a share of one, that went from a backend of a chain or a group to the next.

    Attributes:
        name: The circuit's path in the module that was moved; empty if it was moved itself.
        layer: The head's layer in a GPT, else None.
        kind: The head's kind.
        call: Number of the head's call on the chain, from 1.
        during: The pass that failed; the backward pass of a call may fail though its forward pass did not.
        link: The backend that failed.
        to: The one that was tried next.
        reason: Its error, in one line.
    """

    name: str
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
        layer: The head's layer in a GPT, else None.
        kind: The head's kind, or ``EstimatorQNN`` for the network of a connector.
        name: The circuit's path in the module that was moved; empty if it was moved itself.
        calls: Number of calls whose values each backend computed; calls that several devices computed a share of are
            under the names of these, with ``+`` between them.
        gradients: Number of calls whose gradients each backend computed, in the same way.
        rows: In groups, the number of rows that each device computed; a row is one set of inputs and weights.
        row_labels: The device that computed each row of the last call on a group.
        falls: What failed, in order.
        count: Number of calls so far.
        warned: The links and reasons, without their numbers, that were warned of; circuits that were moved together
            share it.
    """

    layer: int | None
    kind: str
    name: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    gradients: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    row_labels: list[str] = field(default_factory=list)
    falls: list[Fall] = field(default_factory=list)
    count: int = 0
    warned: set[tuple[str, str]] = field(default_factory=set)

    def fall(self, call: int, during: Pass, link: str, to: str, error: BackendError) -> None:
        """Record a fall and log it in a line; the first from a link for a reason is a :class:`FallbackWarning` too."""
        fall = Fall(
            name=self.name,
            layer=self.layer,
            kind=self.kind,
            call=call,
            during=during,
            link=link,
            to=to,
            reason=" ".join(str(error).split()),
        )
        kind = (link, re.sub(r"\d+(\.\d+)?", "", fall.reason))  # such as a budget that is passed by other amounts
        first = kind not in self.warned
        self.warned.add(kind)
        self.falls.append(fall)
        where = f"{self.name} ({self.kind})" if self.name else self.kind
        if self.layer is not None:
            where = f"Layer {self.layer}, {self.kind} heads"
        text = f"{where}, call {call}, {during} pass: {link} failed"
        whole = f"{text}, {to} is next. {fall.reason}"
        _LOG.warning("%s", whole, extra={"brief": whole if first else f"{text} as before, {to} is next."})
        if first:
            more = "(Later ones of this kind are in the log and in audit() only.)"
            warnings.warn(FallbackWarning(f"{whole} {more}"), stacklevel=_caller_level())


def _caller_level() -> int:
    """Return the stack level, for the caller's ``warnings.warn``, of the first frame outside this package and torch."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    return level
