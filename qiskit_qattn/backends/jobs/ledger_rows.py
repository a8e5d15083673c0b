"""A row of the ledger, read and changed within a transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.errors import BackendError

RowState = Literal["sending", "sent", "done", "failed", "cancelled"]
STATES: tuple[RowState, ...] = ("sending", "sent", "done", "failed", "cancelled")
IN_FLIGHT = ("sending", "sent")

_COLUMNS = "id, key, tag, device, settings, state, job_id, owner, created, updated, shots, estimate, used, error"


@dataclass(frozen=True)
class Row:
    """A job in the ledger.

    Attributes:
        id: Number of the row.
        key: Hash of the request; rows of the same request share it.
        tag: What marks the job on the device.
        device: Name of the device.
        settings: All that changes what the device returns besides the PUBs.
        state: One of ``STATES``.
        job_id: The device's id of the job, once it is known.
        owner: Who sends it or waits for it, or None.
        created: When it was written, in seconds since 1970.
        updated: When it last changed.
        shots: Samples a circuit.
        estimate: What it was expected to take.
        used: What it took, where the device said so.
        error: Why it failed.
    """

    id: int
    key: str
    tag: str
    device: str
    settings: str
    state: RowState
    job_id: str | None
    owner: str | None
    created: float
    updated: float
    shots: int
    estimate: Cost
    used: Cost | None
    error: str

    @property
    def cost(self) -> Cost:
        """What it took, or until that is known what it was expected to take."""
        return self.estimate if self.used is None else self.used


def select(db: sqlite3.Connection, where: str, values: Sequence[object], order: str = "id DESC") -> list[Row]:
    """Return the rows that fit a condition, newest first."""
    found = db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {where} ORDER BY {order}", tuple(values))
    return [_read(dict(item)) for item in found]


def select_row(db: sqlite3.Connection, number: int) -> Row:
    """Return a row by its number.

    Raises:
        BackendError: If it is gone.
    """
    found = select(db, "id = ?", [number])
    if not found:
        raise BackendError(f"Row {number} of the ledger is gone: it was cleared while its job was on the way.")
    return found[0]


def update(db: sqlite3.Connection, number: int, *, only: Sequence[str] = STATES, **columns: object) -> Row:
    """Change columns of a row that is in one of some states, note the time, and return the row as it then is."""
    columns["updated"] = time.time()
    changes = ", ".join(f"{name} = ?" for name in columns)
    states = ", ".join(f"'{state}'" for state in only)
    db.execute(f"UPDATE jobs SET {changes} WHERE id = ? AND state IN ({states})", (*columns.values(), number))
    return select_row(db, number)


def cost_text(cost: Cost | None) -> str | None:
    """Return a cost as JSON."""
    return None if cost is None else json.dumps(asdict(cost))


def _read(item: dict[str, Any]) -> Row:
    item["estimate"] = Cost(**json.loads(item["estimate"]))
    item["used"] = None if item["used"] is None else Cost(**json.loads(item["used"]))
    return Row(**item)
