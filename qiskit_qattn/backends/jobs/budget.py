"""What jobs may cost, checked before each is sent."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import BudgetError, ConfigError

_FORM = re.compile(r"(?P<limit>\d{1,9}(\.\d{1,9})?)(?P<unit>s|usd)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """A limit on the cost of all jobs together.

    Attributes:
        limit: Seconds on the quantum processor, or US dollars; infinite for no limit.
        unit: Which of the two.
    """

    limit: float = math.inf
    unit: Literal["seconds", "usd"] = "seconds"

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
        if self.unit == "usd":
            if estimate.usd is None:
                raise BudgetError(
                    f"{device} publishes no price, so the budget of {self} cannot be kept. Nothing was sent. Give the "
                    f"budget in seconds on the processor, such as budget=60s."
                )
            more, before = estimate.usd, spent.usd or 0.0
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
