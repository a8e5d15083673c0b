"""The devices of a command: opened with consent to their cost, the cost as a table, and a summary of their jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from qiskit_qattn.errors import BackendError, BudgetError, counted
from qiskit_qattn.untrusted import one_line, printable

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.device import Cost, Device
    from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
    from qiskit_qattn.backends.place import Place
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.evaluation.device_cost import RunCost

#: The cost on a device, to be shown, and that of the first job, None if there is none.
Quote = tuple[RenderableType, "Cost | None"]


@contextmanager
def open_devices(
    text: str, *, yes: bool, cost: Callable[[Backend], Quote], ask: bool = False
) -> Iterator[tuple[Place, list[ManagedEstimator]]]:
    """Yield the place of a backend string, and its estimators that send jobs to devices; close it at the end.

    The cost of a paid device is shown before anything is sent, and a summary of each device's jobs at the end.

    Args:
        text: A backend string, or a chain of them.
        yes: Whether the user agrees to any cost of a device without a budget.
        cost: Returns the quote of a paid device.
        ask: Whether the user has to agree to a budget, too: by ``yes``, or at the terminal.

    Raises:
        BudgetError: For a paid device whose cost the user has not agreed to.
    """
    from qiskit_qattn.backends.place import Place

    with Place.open(text) as place:
        for link, estimator in place.devices:
            if estimator.device.paid:
                _agree(estimator, yes, ask, *cost(link))
        estimators = [estimator for _, estimator in place.devices]
        try:
            yield place, estimators
        finally:
            for estimator in estimators:
                if estimator.jobs_sent or estimator.jobs_cached or estimator.jobs_attached:
                    with suppress(BackendError):  # of the ledger; the jobs are done
                        estimator.update_usage()
                    typer.echo(_used(estimator), err=True)


def _agree(estimator: ManagedEstimator, yes: bool, ask: bool, shown: RenderableType, first: Cost | None) -> None:
    """Show the cost on a paid device, and stop if the user has not agreed to it."""
    from qiskit_qattn.backends.jobs.budget import Budget, no_budget

    Console(stderr=True, highlight=False).print(shown)
    if ask and not yes and first is not None:
        name = estimator.device.name
        if not _is_terminal():
            raise BudgetError(
                f"Jobs on {name} cost money or metered time: agree with --yes, or run the command at a terminal, where"
                f" it asks. Nothing was sent."
            )
        if not typer.confirm(f"Send these jobs to {name}?", err=True):
            raise BudgetError(f"You did not agree to the cost on {name}. Nothing was sent.")
        yes = True
    if estimator.budget is None and first is not None:
        if not yes:
            raise no_budget(estimator.device.name, first)
        estimator.budget = Budget()  # unlimited


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _used(estimator: ManagedEstimator) -> str:
    """Return a line with the jobs that were sent and served from the ledger, and their cost."""
    parts = [f"jobs sent: {estimator.jobs_sent}", f"served from the ledger: {estimator.jobs_cached}"]
    if estimator.jobs_attached:
        parts.append(f"picked up in flight: {estimator.jobs_attached}")
    if estimator.device.paid:
        parts.append(f"used: {used_text(estimator.spent)}")
    return one_line(f"{estimator.device.name}: {'; '.join(parts)}")


def seconds_text(seconds: float) -> str:
    """Return a duration as ``12.3 s``, or with minutes, or with hours."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def usd_text(usd: float) -> str:
    """Return a price, to the cent or, below a dollar, with two significant digits."""
    return f"{usd:,.2f} USD" if usd >= 1 or usd == 0 else f"{usd:.2g} USD"


def used_text(cost: Cost) -> str:
    """Return the time and the price of jobs that ran."""
    return seconds_text(cost.seconds) + ("" if cost.usd is None else f", {usd_text(cost.usd)}")


def text_row(prompt: int, tokens: int) -> tuple[str, str]:
    """Return the row that says how many tokens are generated after a prompt."""
    return "text", f"{counted(tokens, 'token')} after a prompt of {prompt:,}"


def cost_table(backend: Backend, cost: RunCost, what: tuple[str, str], alone: Cost | None = None) -> Table:
    """Return the cost of running circuits, one figure per row.

    Args:
        backend: Where it would run.
        cost: The counted cost.
        what: The row that describes what runs.
        alone: The cost of the same circuits one at a time, where they would run side by side.
    """
    total, device = cost.total, getattr(backend.estimator, "device", None)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    rows = [("backend", backend.name), what]
    if not total.jobs:
        rows.append(("jobs", "none: no head of the model is a circuit"))
    else:
        stage = "transpiled" if backend.pass_manager is not None else "not transpiled"
        rows += [
            ("jobs", f"{total.jobs:,}"),
            ("circuits", f"{total.circuits:,}" + ("" if total.shots else ", of exact values")),
            ("two-qubit depth", f"{cost.depth:,}, {stage}"),
            ("shots", f"{total.shots:,}" if total.shots else "none"),
            *_precision(backend, total),
            *([("mitigation", backend.mitigation.description)] if backend.mitigation is not None else []),
            *_time_and_price(device, total),
        ]
        if cost.tiles > 1:
            rows.insert(2, ("side by side", f"up to {cost.tiles:,} circuits of heads in one circuit of the device"))
        if alone is not None:
            price = "" if alone.usd is None else f", {usd_text(alone.usd)}"
            time = f", {seconds_text(alone.seconds)}" if alone.seconds else ""
            rows.append(
                ("one at a time", f"{counted(alone.circuits, 'circuit')}, {counted(alone.shots, 'shot')}{time}{price}")
            )
    for name, value in rows:
        table.add_row(Text(name), Text(printable(value)))
    return table


def _precision(backend: Backend, total: Cost) -> list[tuple[str, str]]:
    """Return the row that says which shots follow from a precision, if they do."""
    if backend.shots is not None or not backend.precision or not total.circuits:
        return []
    each = f"{total.shots / total.circuits:,.0f} shots per circuit"
    return [("precision", f"standard errors of at most {backend.precision:g}: {each}")]


def parts_table(title: str, backend: Backend, parts: Mapping[str, Cost | str], *, total: bool = True) -> Group:
    """Return the costs of several parts, one per row.

    Args:
        title: The line above the table.
        backend: Where they would run.
        parts: The cost of each part, or a text that says why it has none.
        total: Whether the last row is their sum.
    """
    device = getattr(backend.estimator, "device", None)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(style="bold", overflow="fold")
    for name in ("jobs", "circuits", "shots", *(() if device is None else ("processor", "price"))):
        table.add_column(name, justify="right", no_wrap=True)
    costs = [cost for cost in parts.values() if not isinstance(cost, str)]
    rows = {**parts, **({"total": reduce(add, costs)} if total and costs else {})}
    for name, cost in rows.items():
        if isinstance(cost, str):
            table.add_row(Text(printable(f"{name}: {cost}")))
            continue
        numbers = [f"{cost.jobs:,}", f"{cost.circuits:,}", f"{cost.shots:,}" if cost.shots else "none"]
        if device is not None:
            price = "free" if not device.paid else "not published" if cost.usd is None else usd_text(cost.usd)
            numbers += [seconds_text(cost.seconds) if cost.seconds else "not known", price]
        table.add_row(Text(name), *map(Text, numbers))
    return Group(Text(printable(title)), table)


def _time_and_price(device: Device | None, total: Cost) -> list[tuple[str, str]]:
    """Return the rows that only a device has, and the row of the price."""
    if device is None:
        return [("price", "free: it runs in this process")]
    time = seconds_text(total.seconds) if total.seconds else "not known before it runs"
    if not device.paid:
        return [("processor", f"{time} on the device itself"), ("price", "free")]
    if total.usd is None:
        return [("processor", time), ("price", "not published")]
    note = ""
    if device.name.startswith("ibm:"):
        from qiskit_qattn.backends.prices import ibm_price_note

        note = f" ({ibm_price_note()})"
    return [("processor", time), ("price", usd_text(total.usd) + note)]
