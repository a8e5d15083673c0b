"""Which backends computed a request's passes, and what that cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qiskit_qattn.nn.audit import Fall

if TYPE_CHECKING:
    from qiskit_qattn.serving.served_model import ServedModel


@dataclass
class Tally:
    """The passes of one request, or of all.

    Attributes:
        passes: The number of passes that did not fail.
        shared: The largest number of requests that shared one pass.
        calls: For each circuit on a chain or a group, the number of calls that each backend computed.
        falls: Calls that fell back to the next backend, by circuit and backends: the first one, and their number.
        cost: What the passes cost on each device; a request bears an equal share of each pass.
    """

    passes: int = 0
    shared: int = 0
    calls: dict[str, Counter[str]] = field(default_factory=dict)
    falls: dict[tuple[str, str, str], tuple[Fall, int]] = field(default_factory=dict)
    cost: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, reading: Reading, requests: int) -> None:
        """Count a pass that several requests share."""
        self.passes += reading.complete
        self.shared = max(self.shared, requests)
        for name, calls in reading.calls.items():
            self.calls.setdefault(name, Counter()).update(calls)
        for fall in reading.falls:
            key = (fall.name, fall.link, fall.to)
            first, count = self.falls.get(key, (fall, 0))
            self.falls[key] = first, count + 1
        for device, cost in reading.cost.items():
            own = self.cost.setdefault(device, Counter())
            for unit, amount in cost.items():
                own[unit] += amount / requests  # type: ignore[assignment]


@dataclass
class Reading:
    """What one pass did: calls by circuit and backend, fallbacks, cost by device, and whether it was completed."""

    complete: bool = False
    calls: dict[str, Counter[str]] = field(default_factory=dict)
    falls: list[Fall] = field(default_factory=list)
    cost: dict[str, Counter[str]] = field(default_factory=dict)


class Meter:
    """Reads what a model's passes did from the audits of its circuits and the spending on its devices.

    Args:
        model: The model.

    Attributes:
        total: The tally of all passes.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model, self.total = model, Tally()
        self._chains = [part for part in model.parts if (place := part.module.execution.place) and not place.single]
        self._devices = [] if model.place is None else model.place.devices

    @contextmanager
    def reading(self, tallies: Sequence[Tally]) -> Iterator[None]:
        """Count what the block computes as one pass, shared by the requests of these tallies."""
        calls = [Counter(part.module.execution.audit.calls) for part in self._chains]
        falls = [len(part.module.execution.audit.falls) for part in self._chains]
        cost = self._cost()
        found = Reading()
        try:
            yield
            found.complete = True
        finally:
            for part, before, start in zip(self._chains, calls, falls, strict=True):
                audit = part.module.execution.audit
                found.calls[part.name] = audit.calls - before
                found.falls += audit.falls[start:]
                _forget(audit.falls)
            found.cost = {name: after - cost[name] for name, after in self._cost().items() if after != cost[name]}
            self.total.add(found, 1)
            for tally in tallies:
                tally.add(found, len(tallies))

    def summary(self, tally: Tally) -> dict[str, Any]:
        """Return which backend computed which heads, as plain data for JSON; from any thread."""
        places = {part.name: place.name for part in self.model.parts if (place := part.module.execution.place)}
        calls = {name: {place: tally.passes} if tally.passes else {} for name, place in places.items()}
        calls |= {part.name: dict(tally.calls.get(part.name, {})) for part in self._chains}
        heads = []
        for head in self.model.heads:
            own = sum((Counter(calls[name]) for name in head["circuits"]), Counter())
            about = {key: head[key] for key in ("layer", "head", "kind")}
            heads.append(about | {"calls": dict(own) if head["circuits"] else {"torch": tally.passes}})
        return {
            "heads": heads,
            "calls": dict(sum((Counter(each) for each in calls.values()), Counter())),
            "falls": [
                {"layer": fall.layer, "kind": fall.kind, "circuit": fall.name, "from": fall.link, "to": fall.to}
                | {"reason": fall.reason, "count": count}
                for fall, count in list(tally.falls.values())
            ],
            "cost": {device: dict(cost) for device, cost in list(tally.cost.items())},
            "passes": tally.passes,
            "shared": tally.shared,
        }

    def _cost(self) -> dict[str, Counter[str]]:
        """Return what each device's jobs cost so far."""
        found = {}
        for backend, estimator in self._devices:
            spent = estimator.spent
            found[backend.name] = Counter({"jobs": spent.jobs, "seconds": spent.seconds, "usd": spent.usd or 0.0})
        return found


def _forget(falls: list[Fall]) -> None:
    """Keep the first fall from each backend only, by which a circuit tells whether it has warned of it."""
    falls[:] = {fall.link: fall for fall in reversed(falls)}.values()
