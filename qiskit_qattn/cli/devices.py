"""The devices of a command: opened once, agreed to where they cost money, and at the end what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import typer
from rich.console import Console, RenderableType

from qiskit_qattn.cli.cost import used_text

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.device import Cost
    from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
    from qiskit_qattn.backends.place import Place
    from qiskit_qattn.backends.registry import Backend

Asked = tuple[RenderableType, "Cost | None"]


@contextmanager
def open_devices(
    text: str, *, yes: bool, cost: Callable[[Backend], Asked]
) -> Iterator[tuple[Place, list[ManagedEstimator]]]:
    """Yield the opened place, and its estimators that send jobs to devices; close its sessions at the end.

    What a paid device will take is shown before anything is sent, and at the end what each device did.

    Args:
        text: A backend string, or a chain of them.
        yes: Whether any cost of a device without a budget is agreed to.
        cost: Returns what a paid device will take, to be shown, and the cost of the first job, None if there is none.

    Raises:
        BudgetError: For a paid device without a budget, where ``yes`` is not given.
    """
    from qiskit_qattn.backends.place import Place

    with Place.open(text) as place:
        for link in place.backends:
            if link.estimator in place.devices:
                estimator = cast("ManagedEstimator", link.estimator)
                if estimator.device.paid:
                    _agree(estimator, yes, *cost(link))
        try:
            yield place, place.devices
        finally:
            for estimator in place.devices:
                if estimator.jobs_sent or estimator.jobs_cached or estimator.jobs_attached:
                    typer.echo(_used(estimator), err=True)


def _agree(estimator: ManagedEstimator, yes: bool, shown: RenderableType, first: Cost | None) -> None:
    """Show what a paid device will take, and stop where nobody has agreed to that."""
    from qiskit_qattn.backends.jobs.budget import Budget, no_budget

    Console(stderr=True, highlight=False).print(shown)
    if estimator.budget is None and first is not None:
        if not yes:
            raise no_budget(estimator.device.name, first)
        estimator.budget = Budget()  # unlimited


def _used(estimator: ManagedEstimator) -> str:
    """Return a line with what was sent, what the ledger served, and what that took."""
    parts = [f"jobs sent: {estimator.jobs_sent}", f"served from the ledger: {estimator.jobs_cached}"]
    if estimator.jobs_attached:
        parts.append(f"picked up on their way: {estimator.jobs_attached}")
    if estimator.device.paid:
        parts.append(f"used: {used_text(estimator.spent)}")
    return f"{estimator.device.name}: {'; '.join(parts)}"
