"""What jobs may cost, checked before each is sent, and what they did cost."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from itertools import takewhile
from operator import add
from typing import Literal

from qiskit_qattn.backends.jobs.client import JobClient
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.ledger import Allow, Ledger
from qiskit_qattn.backends.jobs.owners import Owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.rows import Row
from qiskit_qattn.errors import BackendError, BudgetError, ConfigError
from qiskit_qattn.forks import ForkLock

_ASKED_AT_ONCE = 8  # jobs whose cost is asked for before another is sent
_FORM = re.compile(r"(?P<limit>\d{1,9}(\.\d{1,9})?)(?P<unit>s|usd)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """A limit on the cost of all jobs together.

    Attributes:
        limit: Seconds on the quantum processor, or US dollars; infinite for no limit.
        unit: Which of the two.
        shared: Whether jobs count that other processes send meanwhile; without, those of one estimator only.
    """

    limit: float = math.inf
    unit: Literal["seconds", "usd"] = "seconds"
    shared: bool = True

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget of ``60s``, ``5usd`` or ``unlimited``.

        Raises:
            ConfigError: For anything else, and for a budget of 0.
        """
        if text.strip().lower() == "unlimited":
            return cls()
        match = _FORM.fullmatch(text.strip())
        if match is None or not float(match["limit"]):
            raise ConfigError(
                f"A budget is seconds on the processor or US dollars, above 0, such as 60s or 5usd, or unlimited; "
                f"got {text!r}."
            )
        return cls(float(match["limit"]), "seconds" if match["unit"].lower() == "s" else "usd")

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        return "unlimited" if math.isinf(self.limit) else f"{self.limit:.9g}{'s' if self.unit == 'seconds' else 'usd'}"

    def misfit(self, device: str, estimate: Cost, *, paid: bool) -> BudgetError | None:
        """Return the error for a device that is not paid in the budget's unit, so that nothing would be limited."""
        if math.isinf(self.limit):
            return None
        if self.unit == "usd" and estimate.usd is None:
            why, instead = "publishes no price", "in seconds on the processor, such as budget=60s"
        elif self.unit == "seconds" and paid and not estimate.seconds:
            why, instead = "is not paid by the second", "in US dollars, such as budget=5usd"
        else:
            return None
        return BudgetError(
            f"{device} {why}, so the budget of {self} cannot be kept. Nothing was sent. Give the budget {instead}."
        )

    def check(self, device: str, estimate: Cost, spent: Cost) -> None:
        """Raise unless a job may be sent.

        Args:
            device: Name of the device.
            estimate: The estimated cost of the job.
            spent: The cost of earlier jobs, as estimated for those in flight.

        Raises:
            BudgetError: If the job would pass the limit, or has no known price where the limit is in dollars.
        """
        if math.isinf(self.limit):
            return
        if misfit := self.misfit(device, estimate, paid=False):
            raise misfit
        if self.unit == "usd":
            more, before = estimate.usd or 0.0, spent.usd or 0.0
        else:
            more, before = estimate.seconds, spent.seconds
        if not before + more <= self.limit * (1 + 1e-12):  # NaN included
            unit = "USD" if self.unit == "usd" else "s"
            raise BudgetError(
                f"The next job on {device} would pass the budget of {self}: it would take about {more:.4g} {unit}, and "
                f"{before:.4g} {unit} of {self.limit:.9g} {unit} are spent or on their way. It was not sent; all that "
                f"was paid for is in the ledger. Raise the budget to go on."
            )


def no_budget(device: str, estimate: Cost) -> BudgetError:
    """Return the error for a job on a paid device without a budget."""
    price = "" if estimate.usd is None else f" and {estimate.usd:.4g} USD"
    return BudgetError(
        f"Jobs on {device} are paid for and no budget is given, so nothing was sent. The next job would take about "
        f"{estimate.seconds:.4g} s on the processor{price}. Add budget=60s or budget=5usd to the backend string, as in "
        f"?budget=60s, or agree to any cost with budget=unlimited, or with --yes where a command has it."
    )


def check_choice(ledger: Ledger, request: Request, choice: str) -> None:
    """Raise for a request to a device that was chosen, if another device has been sent the same work.

    Args:
        ledger: Where the other device's jobs are.
        request: What would be sent.
        choice: What the device was chosen by, such as ``ibm:least_busy``; empty for a device that was named.

    Raises:
        ConfigError: With the names of both devices.
    """
    rows = ledger.elsewhere(request) if choice else []
    if not rows:
        return
    other = rows[0].device
    states = Counter("stored" if row.state == "done" else "on its way" for row in rows if row.device == other)
    found = ", ".join(f"{count} {state}" for state, count in states.items())
    when = datetime.fromtimestamp(rows[0].updated).strftime("%Y-%m-%d %H:%M")
    raise ConfigError(
        f"{choice} is {request.device} now, but the next job was sent to {other} before (results: {found}, {when}). "
        f"Nothing was sent. Name the device: {other} takes those results at no further cost, {request.device} runs the "
        f"job again."
    )


class Account:
    """What the jobs of an estimator cost, and what its budget still allows.

    A budget counts the jobs on the device that were charged in the ledger since this account was opened, whoever sent
    them: processes that share a ledger, forked workers included, share the budget too. A job whose cost is not known
    counts as estimated. What no longer changes is added up, so that an account does not grow with all jobs of a process
    that runs for months.

    Args:
        client: The client of the device, with the ledger.
    """

    def __init__(self, client: JobClient) -> None:
        self._client, self._ledger, self._device = client, client.ledger, client.device
        self._own: dict[str, Row] = {}  # by tag: own jobs that are not added up yet
        self._spent = Cost()  # of own jobs that are
        self._asked: Counter[str] = Counter()
        self._lock = ForkLock()
        self._since: int | None = None  # the ledger's last charge when it was opened, or the last that is added up
        self._charged = Cost()  # of all jobs charged in between, whoever sent them
        with suppress(BackendError):  # of a ledger that cannot be used, which its next use tells
            self._start()

    @property
    def spent(self) -> Cost:
        """What the estimator's own jobs cost, as estimated for those in flight."""
        with self._lock:
            return _total(self._own.values(), self._spent)

    def open(self, request: Request, owner: Owner, estimate: Cost, budget: Budget | None, cached: bool) -> Row | None:
        """Record a request as about to be sent, if the budget allows; None if another process has just done so.

        Raises:
            BudgetError: If the job would pass the budget, or the device is paid and there is none.
        """
        with self._lock:  # check and charge together
            allow = self._allow(budget, estimate)
            row = self._ledger.open(request, owner, estimate, cached=cached, allow=allow)
            return None if row is None else self._take(row)

    def reserve(self, row: Row, budget: Budget | None) -> Row:
        """Charge for a row that is about to be sent, if the budget allows; otherwise the row stays as it is.

        Raises:
            BudgetError: As for :meth:`open`.
        """
        with self._lock:
            return self._take(self._ledger.reserve(row.id, self._allow(budget, row.estimate, row.tag)))

    def charge(self, row: Row) -> None:
        """Charge for a job that was sent earlier and is taken over now."""
        with self._lock:
            self._take(row if row.tag in self._own else self._ledger.charge(row.id))

    def settle(self, row: Row) -> None:
        """Take note of what became of a row, if it was charged here."""
        with self._lock:
            if row.tag in self._own:
                self._take(row)

    def ask_usage(self, budget: Budget | None) -> None:
        """Ask once what the jobs cost that the budget counts, have ended and were not accounted for until now.

        Of many only some are asked for, in turn, so that a device that never tells costs no time.
        """
        with self._lock:
            rows = [*self._own.values()]
            if budget is not None and budget.shared:
                rows += self._ledger.charged(self._device.name, self._start())
            unknown = {row.tag: row for row in rows if row.is_unsettled}
            turn = sorted(unknown.values(), key=lambda row: self._asked[row.tag])[:_ASKED_AT_ONCE]
            self._asked = Counter({tag: self._asked[tag] for tag in unknown})  # the others are not asked for again
            self._asked.update(row.tag for row in turn)
        for row in turn:
            self.settle(self._client.ask_usage(row))

    def _start(self) -> int:
        if self._since is None:
            self._since = self._ledger.last_charge()
        return self._since

    def _take(self, row: Row) -> Row:
        self._own[row.tag] = row
        return row

    def _allow(self, budget: Budget | None, estimate: Cost, tag: str = "") -> Allow:
        """Return what raises unless a job may be sent; ``tag`` is that of its own row, if it has one."""
        self._start()  # outside the ledger's transaction

        def allow(charged: Callable[[int], list[Row]]) -> None:
            if budget is not None:
                if misfit := budget.misfit(self._device.name, estimate, paid=self._device.paid):
                    raise misfit
                before, counted = self._counted(charged(self._start()) if budget.shared else None)
                spent = _total((row for row in counted if row.tag != tag), before)
                budget.check(self._device.name, estimate, spent)
            elif self._device.paid:
                raise no_budget(self._device.name, estimate)
            else:
                self._counted(None)

        return allow

    def _counted(self, charged: Sequence[Row] | None) -> tuple[Cost, list[Row]]:
        """Return what a budget counts: the cost of jobs that are added up, and the rows of the others.

        Final rows are added up first; of jobs that others send too, those charged before the first that is not final.

        Args:
            charged: Rows of the ledger that were charged since the last that is added up; None for own jobs only.
        """
        rows = list(self._own.values())
        if charged is None:
            final = [row for row in rows if row.is_final]
        else:
            # Own ones may have been deleted from the ledger.
            rows = sorted((self._own | {row.tag: row for row in charged}).values(), key=lambda row: row.charge)
            final = list(takewhile(lambda row: row.is_final, rows))
            self._charged = _total(final, self._charged)
            self._since = max([self._start(), *(row.charge for row in final)])
        self._spent = _total((row for row in final if row.tag in self._own), self._spent)
        for row in final:
            self._own.pop(row.tag, None)
        if charged is None:
            return self._spent, [*self._own.values()]
        return self._charged, rows[len(final) :]


def _total(rows: Iterable[Row], before: Cost) -> Cost:
    return reduce(add, (row.cost for row in rows), before)
