"""The devices of a command: opened once, with consent to their cost, and a summary of their jobs at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import typer
from rich.console import Console, RenderableType

from qiskit_qattn.cli.cost import used_text

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.device import Cost
    from qiskit_qattn.backends.jobs.managed import ManagedEstimator
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.nn.fallback import Chain

#: The cost on a device, to be shown, and that of the first job, None if there is none.
Quote = tuple[RenderableType, "Cost | None"]


@contextmanager
def open_devices(
    text: str, *, yes: bool, cost: Callable[[Backend], Quote]
) -> Iterator[tuple[Backend | Chain, list[ManagedEstimator]]]:
    """Yield a backend, or a chain, and the estimators in it that send jobs to devices; close them at the end.

    The cost of a paid device is shown before anything is sent, and a summary of each device's jobs at the end.

    Args:
        text: A backend string, or a chain of them.
        yes: Whether the user agrees to any cost of a device without a budget.
        cost: Returns the quote of a paid device.

    Raises:
        BudgetError: For a paid device without a budget, unless ``yes``.
    """
    from qiskit_qattn.backends.session import Opened
    from qiskit_qattn.nn.fallback import backends_of, open_backend

    target = open_backend(text)
    with Opened(backends_of(target)) as opened:
        devices = [link for link in opened.backends if hasattr(link.estimator, "device")]
        estimators = [cast("ManagedEstimator", link.estimator) for link in devices]
        for link, estimator in zip(devices, estimators, strict=True):
            if estimator.device.paid:
                _agree(estimator, yes, *cost(link))
        try:
            yield target, estimators
        finally:
            for estimator in estimators:
                if estimator.jobs_sent or estimator.jobs_cached or estimator.jobs_attached:
                    typer.echo(_used(estimator), err=True)


def _agree(estimator: ManagedEstimator, yes: bool, shown: RenderableType, first: Cost | None) -> None:
    """Show the cost on a paid device, and stop if the user has not agreed to it."""
    from qiskit_qattn.backends.jobs.budget import Budget, no_budget

    Console(stderr=True, highlight=False).print(shown)
    if estimator.budget is None and first is not None:
        if not yes:
            raise no_budget(estimator.device.name, first)
        estimator.budget = Budget()  # unlimited


def _used(estimator: ManagedEstimator) -> str:
    """Return a line with the jobs that were sent and served from the ledger, and their cost."""
    parts = [f"jobs sent: {estimator.jobs_sent}", f"served from the ledger: {estimator.jobs_cached}"]
    if estimator.jobs_attached:
        parts.append(f"picked up in flight: {estimator.jobs_attached}")
    if estimator.device.paid:
        parts.append(f"used: {used_text(estimator.spent)}")
    return f"{estimator.device.name}: {'; '.join(parts)}"
