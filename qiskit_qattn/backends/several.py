"""Several devices at once: which of them computes a row, decided before anything is sent.

A row is one set of inputs and weights of a circuit, for instance a token's. Its device follows from its own numbers and
from the devices' shares, so neither the rest of a batch nor the order of answers matters.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.spec import PLUS, check_distinct
from qiskit_qattn.errors import BackendError, ConfigError

_SPREAD = 1e3  # turns differences of a thousandth of a radian into other devices
_LOG = logging.getLogger("qiskit_qattn.backends")


@dataclass(frozen=True)
class Figures:
    """What decides a device's share.

    Attributes:
        queue: Jobs that wait there, or None where it does not tell.
        seconds: Time that it takes for a number of rows, the same on each device, or None where that is not known.
    """

    queue: int | None = None
    seconds: float | None = None


@dataclass(eq=False)
class Group:
    """Backends that share the rows of each call.

    Attributes:
        members: Name and backend of each, at least two; the error in place of a backend that could not be opened.

    Raises:
        ConfigError: If two of them are the same device.
    """

    members: tuple[tuple[str, Backend | BackendError], ...]
    _shares: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        devices: list[Any] = [getattr(each.estimator, "device", None) for each in self.backends]
        check_distinct([each.name for each in devices if hasattr(each, "name")], self.name)

    @property
    def name(self) -> str:
        """The backend strings in normal form."""
        return f" {PLUS} ".join(name for name, _ in self.members)

    @property
    def backends(self) -> list[Backend]:
        """The backends that could be opened."""
        return [each for _, each in self.members if isinstance(each, Backend)]

    def shares(self, sample: Callable[[int], Sequence[EstimatorPubLike]], work: str = "") -> np.ndarray:
        """Return the share of the rows that each member computes; their sum is 1.

        Queues and speeds are asked for once. What was split before is split in the same way again, in every process, so
        that its results are found: a ledger that a member has remembers how.

        Args:
            sample: Returns PUBs of the same rows on the member of a number, none where it takes none.
            work: What is computed, the same in every process; empty to remember nothing.

        Raises:
            ConfigError: For a budget in a unit that the device is not paid by.
            BackendError: If the ledger cannot be used.
        """
        if self._shares is None:
            self._shares = shares_of([self._figures(i, sample(i)) for i in range(len(self.members))])
            told = ", ".join(f"{name} {share:.0%}" for (name, _), share in zip(self.members, self._shares, strict=True))
            _LOG.info("Shares of the rows: %s.", told)
        ledgers = [each.estimator.ledger for each in self.backends if hasattr(each.estimator, "ledger")]
        if not (work and ledgers):
            return self._shares
        places = [name.partition("?")[0] for name, _ in self.members]
        key = hashlib.sha256(json.dumps([places, work]).encode()).hexdigest()
        return np.array(ledgers[0].shares(key, self._shares.tolist()))

    def _figures(self, index: int, sample: Sequence[EstimatorPubLike]) -> Figures:
        """Return a member's figures, and check its budget's unit against what rows cost."""
        backend = self.members[index][1]
        if not isinstance(backend, Backend):
            return Figures()
        estimator: Any = backend.estimator
        device = getattr(estimator, "device", None)
        if device is None:
            return Figures(queue=0)
        queue, cost = None, None
        try:
            queue = device.queue() if hasattr(device, "queue") else None
            if sample and hasattr(device, "estimate"):
                coerced = [EstimatorPub.coerce(pub, backend.precision) for pub in sample]
                cost = device.estimate(coerced, backend.precision)
        except BackendError as error:
            _LOG.info("%s tells no more of its queue and its speed: %s", backend.name, error)
        budget = getattr(estimator, "budget", None)
        if budget is not None and cost is not None and (misfit := budget.misfit(device.name, cost, paid=device.paid)):
            raise ConfigError(str(misfit))  # not a failure of the device, after which the others would pay
        return Figures(queue, None if cost is None else cost.seconds or None)


def shares_of(figures: Sequence[Figures]) -> np.ndarray:
    r"""Return the share of each device.

    .. math:: w_d \propto \frac{1}{(1 + q_d) \, t_d}

    with q jobs before ours, each taken to last as long as ours, and t seconds for the same rows. A figure that one of
    the devices does not tell counts for none of them.
    """
    queues, seconds = [each.queue for each in figures], [each.seconds for each in figures]
    rates = np.ones(len(figures))
    if None not in queues:
        rates /= 1 + np.array(queues, dtype=float)
    if None not in seconds:
        rates /= np.array(seconds, dtype=float)
    return rates / rates.sum()


def assigned(rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
    r"""Return the number of the device that computes each row, shape ``(N,)``.

    .. math:: u_n = 1000 \sum_k \sqrt{k + 1} \, x_{nk} \bmod 1

    is uniform for rows that differ, and decides. Equal rows have the same device; rounding changes that of one row in
    thousands.

    Args:
        rows: Inputs and weights x, shape ``(N, K)``.
        shares: Share of each device.
    """
    direction = np.sqrt(np.arange(2, rows.shape[1] + 2))
    u = np.nan_to_num(_SPREAD * (rows @ direction) % 1.0)
    return np.minimum(np.searchsorted(np.cumsum(shares), u, side="right"), len(shares) - 1)
