"""The ledger: every job, recorded before it is sent and when it returns, shared by all processes of a user.

A row is a job. Its states, and who moves it from one to the next:

    sending ──> sent ──> done         the answer came, its result is stored
       │          ├────> failed       the device says so
       │          └────> cancelled    the device says so
       ├─────> failed                 the device refused the job, or it never reached it
       └─────> cancelled              given up before it reached the device

``sending`` means that the device may or may not have the job: look for its tag before sending it again. The owner of a
row is the run that sends the job or waits for it, and whose budget is charged; when its process has ended, the next run
of the same request becomes the owner.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from platformdirs import user_data_path

from qiskit_qattn.backends.jobs.device import Cost, Values
from qiskit_qattn.backends.jobs.ledger_file import (
    IN_FLIGHT,
    STATES,
    Row,
    cost_text,
    is_alive,
    select,
    select_row,
    transaction,
    update,
)
from qiskit_qattn.backends.jobs.request import Request, pack_values, unpack_values
from qiskit_qattn.errors import BackendError, UnknownNameError

_ANSWERS = "key = ? AND state IN ('done', 'sent', 'sending')"


class Ledger:
    """Jobs in an SQLite file, which is made when it is first used and readable by its owner alone.

    Every call is one transaction on a separate connection, so threads and processes may share a ledger.

    Args:
        path: The file; by default ``$QATTN_LEDGER``, else ``ledger.sqlite`` in the user's data folder.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_path() if path is None else Path(path)

    def claim(self, key: str, owner: str, *, cached: bool = True) -> Row | None:
        """Return the row that answers a request, or None if a new one has to be opened.

        A finished row comes first, then the newest in flight. A row in flight whose owner has ended gets this one.

        Args:
            key: The request's key.
            owner: The caller's owner mark; a row returned with it is the caller's to send or to wait for.
            cached: Whether finished rows, and rows in flight of other owners, may answer.
        """
        with transaction(self.path) as db:
            for row in select(db, _ANSWERS, [key], "state = 'done' DESC, id DESC"):
                if row.state == "done" or row.owner == owner or is_alive(row.owner, row.updated):
                    if cached or row.owner == owner:
                        return row
                else:
                    return update(db, row.id, owner=owner)
        return None

    def open(self, request: Request, owner: str, estimate: Cost, *, cached: bool = True) -> Row | None:
        """Record a request as about to be sent, and return its row; None if another owner has just done so.

        Args:
            request: The request.
            owner: Who will send it.
            estimate: Its estimated cost.
            cached: Whether another row of the same request, finished or in flight, may answer it instead.
        """
        packed, now = request.pack(), time.time()
        with transaction(self.path) as db:
            if cached and select(db, _ANSWERS, [request.key]):
                return None
            columns = {
                "key": request.key,
                "tag": "",
                "device": request.device,
                "settings": request.settings,
                "state": "sending",
                "owner": owner,
                "created": now,
                "updated": now,
                "shots": request.shots,
                "estimate": cost_text(estimate),
                "request": packed,
                "work": request.work,
            }
            names, places = ", ".join(columns), ", ".join("?" * len(columns))
            cursor = db.execute(f"INSERT INTO jobs ({names}) VALUES ({places})", tuple(columns.values()))
            number = cast(int, cursor.lastrowid)
            [ledger] = db.execute("SELECT ledger FROM about").fetchone()
            # Unique: numbers of deleted rows are not used again, and each ledger has a random name.
            return update(db, number, tag=f"qattn-{request.key[:16]}-{ledger}-{number}")

    def elsewhere(self, request: Request) -> list[Row]:
        """Return the rows, finished or in flight, of the same work on other devices of the provider, newest first."""
        provider = request.device.partition(":")[0]
        with transaction(self.path) as db:
            found = select(
                db, "work = ? AND device != ? AND state IN ('done', 'sent', 'sending')", [request.work, request.device]
            )
        return [row for row in found if row.device.partition(":")[0] == provider]

    def take(self, number: int, owner: str) -> Row:
        """Become the owner of a row in flight whose owner has ended, and return the row; other rows stay unchanged."""
        with transaction(self.path) as db:
            row = select_row(db, number)
            if row.state not in IN_FLIGHT or is_alive(row.owner, row.updated):
                return row
            return update(db, number, owner=owner)

    def sent(self, number: int, job_id: str, note: str = "") -> Row:
        """Record the id that a device gave to a job, and what else is to be known of it, and return its row."""
        return self._write(number, only=IN_FLIGHT, state="sent", job_id=job_id, error=note)

    def finish(self, number: int, values: Sequence[Values], used: Cost | None) -> Row:
        """Store a job's values and cost, and return its row; the first result of a job is final."""
        columns = {"state": "done", "result": pack_values(values), "used": cost_text(used)}
        return self._write(number, only=IN_FLIGHT, **columns)

    def close(self, number: int, state: Literal["failed", "cancelled"], error: str, used: Cost | None = None) -> Row:
        """Record that a job in flight will have no result, and return its row."""
        return self._write(number, only=IN_FLIGHT, state=state, error=error, used=cost_text(used))

    def touch(self, number: int) -> Row:
        """Record that a row's owner is still active, and return the row."""
        return self._write(number)

    def release(self, owner: str) -> None:
        """Give up all rows of an owner; the next run of the same request becomes the owner."""
        with transaction(self.path) as db:
            db.execute("UPDATE jobs SET owner = NULL WHERE owner = ?", (owner,))

    def row(self, number: int) -> Row:
        """Return a row by its number.

        Raises:
            BackendError: If there is none.
        """
        with transaction(self.path) as db:
            return select_row(db, number)

    def rows(
        self, *, states: Sequence[str] = STATES, device: str | None = None, before: float | None = None
    ) -> list[Row]:
        """Return the rows, newest first.

        Args:
            states: Those to return.
            device: Name of a device, or its beginning such as ``ibm:``; all by default.
            before: Only those that last changed before this time, in seconds since 1970.
        """
        with transaction(self.path) as db:
            return _filter(db, states, device, before)

    def find(self, text: str) -> Row:
        """Return the row of a number, or of the beginning of a key or job id; of one key's rows the newest.

        Raises:
            UnknownNameError: If no row, or rows of several keys or jobs, fit.
        """
        with transaction(self.path) as db:
            if text.isdecimal() and len(text) < 16 and (found := select(db, "id = ?", [int(text)])):
                return found[0]
            found = (
                select(db, "substr(key, 1, ?) = ? OR substr(job_id, 1, ?) = ?", [len(text), text] * 2) if text else []
            )
        if not found:
            raise UnknownNameError(f"No job in {str(self.path)!r} has the number, key or id {text!r}; list them first.")
        keys, ids = {row.key for row in found}, {row.job_id for row in found}
        if len(keys) > 1 and len(ids) > 1:
            raise UnknownNameError(
                f"{text!r} fits {len(found)} jobs in {str(self.path)!r}; give more of the key or id."
            )
        return found[0]

    def request(self, number: int) -> Request:
        """Return the request of a row."""
        return Request.unpack(self._blob(number, "request"))

    def values(self, number: int) -> list[Values]:
        """Return the values of a finished row's job, one entry per PUB."""
        return unpack_values(self._blob(number, "result"))

    def clear(
        self,
        *,
        states: Sequence[str] = STATES,
        device: str | None = None,
        before: float | None = None,
        force: bool = False,
    ) -> int:
        """Delete rows, and return how many.

        Args:
            states: Those to delete; rows in flight stay unless ``force`` is given.
            device: As for :meth:`rows`.
            before: As for :meth:`rows`.
            force: Also forget jobs that may still run and be billed.
        """
        wanted = [state for state in states if force or state not in IN_FLIGHT]
        with transaction(self.path) as db:
            numbers = [(row.id,) for row in _filter(db, wanted, device, before)]
            db.executemany("DELETE FROM jobs WHERE id = ?", numbers)
        return len(numbers)

    def _write(self, number: int, *, only: Sequence[str] = STATES, **columns: object) -> Row:
        with transaction(self.path) as db:
            return update(db, number, only=only, **columns)

    def _blob(self, number: int, column: str) -> bytes:
        with transaction(self.path) as db:
            found = db.execute(f"SELECT {column} FROM jobs WHERE id = ?", (number,)).fetchone()
        if found is None or found[0] is None:
            raise BackendError(f"Row {number} of the ledger {str(self.path)!r} has no {column}.")
        return found[0]


def default_path() -> Path:
    """Return ``$QATTN_LEDGER``, else ``ledger.sqlite`` in the user's data folder."""
    if named := os.environ.get("QATTN_LEDGER"):
        return Path(named).expanduser()
    return user_data_path("qiskit-qattn") / "ledger.sqlite"


def _filter(db: sqlite3.Connection, states: Sequence[str], device: str | None, before: float | None) -> list[Row]:
    found = select(db, f"state IN ({', '.join('?' * len(states))})", states)
    return [row for row in found if row.device.startswith(device or "") and (before is None or row.updated < before)]
