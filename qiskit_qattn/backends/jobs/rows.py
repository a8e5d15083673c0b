"""The rows of the ledger: jobs, as SQLite keeps them, checked when they are read."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.errors import BackendError
from qiskit_qattn.untrusted import as_type, shown

T = TypeVar("T")
RowState = Literal["sending", "sent", "done", "failed", "cancelled"]
STATES: tuple[RowState, ...] = get_args(RowState)
IN_FLIGHT = ("sending", "sent")
_LAST_SECOND = 253_402_300_799  # of the year 9999


@dataclass(frozen=True)
class Row:
    """A job in the ledger.

    Attributes:
        id: Number of the row.
        key: Hash of the request; rows of the same request share it.
        tag: The tag that the job has on the device.
        device: Name of the device.
        settings: Everything else that changes what the device returns.
        state: One of ``STATES``.
        job_id: The device's id of the job, once it is known.
        owner: Mark of who sends it or waits for it, or None.
        created: When it was written, in seconds since 1970.
        updated: When it last changed.
        shots: Samples per circuit.
        estimate: Its estimated cost.
        used: Its actual cost, where the device reports it.
        error: Why it failed, or what else is to be known of it, such as a copy of its job.
        charge: Its place in the order in which jobs were charged to budgets, from 1; 0 for one that never was.
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
    charge: int

    @property
    def cost(self) -> Cost:
        """Its actual cost, or the estimate until that is known."""
        return self.estimate if self.used is None else self.used

    @property
    def is_final(self) -> bool:
        """Whether it has ended and its cost is known, so that neither changes any more."""
        return self.state not in IN_FLIGHT and self.used is not None

    @property
    def is_unsettled(self) -> bool:
        """Whether it has ended, and the device has not said what it cost."""
        return self.state not in IN_FLIGHT and self.used is None


_NUMBERS: tuple[tuple[str, type, int], ...] = (
    ("created", float, _LAST_SECOND),
    ("updated", float, _LAST_SECOND),
    ("shots", int, 2**63),
    ("charge", int, 2**63),
)
_COLUMNS = ", ".join(Row.__dataclass_fields__)


def select(db: sqlite3.Connection, where: str, values: Sequence[object], order: str = "id DESC") -> list[Row]:
    """Return the rows that satisfy a condition, newest first.

    Raises:
        BackendError: If one of them has contents that no ledger of ours has.
    """
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
    """Change columns of a row if it is in one of the given states, record the time, and return the row."""
    columns["updated"] = time.time()
    changes = ", ".join(f"{name} = ?" for name in columns)
    states = ", ".join(f"'{state}'" for state in only)
    db.execute(f"UPDATE jobs SET {changes} WHERE id = ? AND state IN ({states})", (*columns.values(), number))
    return select_row(db, number)


def next_charge(db: sqlite3.Connection) -> int:
    """Return a new number for the order in which jobs are charged; it is larger than all given before."""
    db.execute("UPDATE about SET charges = charges + 1")
    return about(db, "charges", int)


def about(db: sqlite3.Connection, column: str, kind: type[T]) -> T:
    """Return what the ledger says about itself: its random name, or the last charge.

    Raises:
        BackendError: If it says nothing of that type.
    """
    found = db.execute(f"SELECT {column} FROM about").fetchone()
    try:
        return as_type(None if found is None else found[0], kind, column)
    except ValueError as error:
        raise BackendError(
            f"The ledger has bad contents: {error}. Move it away, or name another with QATTN_LEDGER."
        ) from error


def cost_text(cost: Cost | None) -> str | None:
    """Return a cost as JSON, None for one that is not known.

    Raises:
        BackendError: For numbers that are negative or not finite.
    """
    if cost is None:
        return None
    if not cost.is_valid:
        raise BackendError(f"The cost of a job must have numbers that are finite and not negative, got {cost}.")
    return json.dumps(asdict(cost))


def _read(item: dict[str, Any]) -> Row:
    """Return a row as SQLite has it, with its contents checked: the file may have been written by anybody."""
    number = item["id"]
    try:
        for name in ("estimate", "used"):
            if name == "estimate" or item[name] is not None:
                item[name] = read_cost(item[name], name)
        for name in ("key", "tag", "device", "settings", "state", "error"):
            as_type(item[name], str, name)
        for name in ("job_id", "owner"):
            as_type(item[name], str | None, name)
        for name, kind, most in _NUMBERS:
            if not 0 <= as_type(item[name], kind, name) <= most:
                raise ValueError(f"{name} is {shown(item[name])}, but must be from 0 to {most}")
    except ValueError as error:
        raise BackendError(
            f"Row {number} of the ledger has bad contents: {error}. Delete it with qattn jobs clear, or use another "
            f"ledger."
        ) from error
    return Row(**item)


def read_cost(text: Any, name: str) -> Cost:
    """Return the cost that :func:`cost_text` wrote.

    Raises:
        ValueError: For anything else.
    """
    text = as_type(text, str, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    cost: Cost = as_type(content, Cost, name)
    if not cost.is_valid:
        raise ValueError(f"{name} has a number that is negative or not finite")
    return cost


def first_shares(db: sqlite3.Connection, work: str, shares: Sequence[float]) -> list[float]:
    """Return the shares that were recorded for a piece of work; these, which are recorded, if there are none.

    Raises:
        ValueError: For others than as many numbers between 0 and 1.
    """
    db.execute("CREATE TABLE IF NOT EXISTS shares (work TEXT PRIMARY KEY, shares TEXT NOT NULL)")
    db.execute("INSERT OR IGNORE INTO shares VALUES (?, ?)", (work, json.dumps(list(shares))))
    [text] = db.execute("SELECT shares FROM shares WHERE work = ?", (work,)).fetchone()
    try:
        found = as_type(json.loads(as_type(text, str, "shares")), list[float], "shares")
    except RecursionError as error:
        raise ValueError(f"shares is no JSON: {error}") from error
    if len(found) != len(shares) or not all(0 <= share <= 1 for share in found):
        raise ValueError(f"shares is {shown(found)}, but must be {len(shares)} numbers between 0 and 1")
    return found
