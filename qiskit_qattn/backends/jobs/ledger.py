"""The ledger: every job, recorded before it is sent and when it returns, shared by all processes of a user.

A row is a job. Its states, and who moves it from one to the next:

    sending ──> sent ──> done         the answer came, its result is stored
       │          ├────> failed       the device says so
       │          └────> cancelled    the device says so
       ├─────> failed                 the device refused the job, or it never reached it
       └─────> cancelled              given up before it reached the device

``sending`` means that the device may or may not have the job: look for its tag before sending it again. The owner of a
row is the run that sends the job or waits for it, and whose budget is charged; when that run or its process has ended,
the next run of the same request becomes the owner.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, cast

from platformdirs import user_data_path

from qiskit_qattn.backends.folders import absolute, path_from
from qiskit_qattn.backends.jobs.device import Bits, Cost, Values
from qiskit_qattn.backends.jobs.ledger_file import is_there, transaction
from qiskit_qattn.backends.jobs.owners import Owner, is_alive
from qiskit_qattn.backends.jobs.request import Request, pack_values, unpack_values
from qiskit_qattn.backends.jobs.rows import (
    IN_FLIGHT,
    STATES,
    Row,
    about,
    cost_text,
    first_shares,
    next_charge,
    select,
    select_row,
    update,
)
from qiskit_qattn.errors import BackendError, UnknownNameError
from qiskit_qattn.untrusted import one_line

T = TypeVar("T")
Allow = Callable[[Callable[[int], list[Row]]], None]
_ANSWERS = "key = ? AND state IN ('done', 'sent', 'sending')"


class Ledger:
    """Jobs in an SQLite file, which is made when it is first used and readable by its owner alone.

    Every call is one transaction on a separate connection, so threads and processes may share a ledger.

    Args:
        path: The file; by default ``$QATTN_LEDGER``, else ``ledger.sqlite`` in the user's data folder.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_path() if path is None else absolute(Path(path))

    def new_owner(self) -> Owner:
        """Return an owner of rows of this ledger, for one piece of work; it ends when nothing refers to it any more.

        Raises:
            BackendError: If there is something else in the ledger's place, or no file can be locked beside it.
        """
        is_there(self.path)
        return Owner(self.path)

    def is_alive(self, mark: str | None) -> bool:
        """Return whether the owner of a mark is at work, in this process or another."""
        return is_alive(mark, self.path)

    def claim(self, key: str, owner: Owner, *, cached: bool = True) -> Row | None:
        """Return the row that answers a request, or None if a new one has to be opened.

        A finished row comes first, then the newest in flight. A row in flight whose owner has ended gets this one.

        Args:
            key: The request's key.
            owner: The caller; a row returned with its mark is the caller's to send or to wait for.
            cached: Whether finished rows, and rows in flight of other owners, may answer.
        """
        with transaction(self.path) as db:
            for row in select(db, _ANSWERS, [key], "state = 'done' DESC, id DESC"):
                if row.state == "done" or row.owner == owner.mark or self.is_alive(row.owner):
                    if cached or row.owner == owner.mark:
                        return row
                else:
                    return update(db, row.id, owner=owner.mark)
        return None

    def answers(self, key: str, *, cached: bool = True) -> bool:
        """Return whether a job of a request is on its way or, with ``cached``, has a stored result."""
        if not is_there(self.path):
            return False
        with transaction(self.path) as db:
            return any(cached or row.state != "done" for row in select(db, _ANSWERS, [key]))

    def shares(self, work: str, shares: Sequence[float]) -> list[float]:
        """Return the devices' shares with which work was divided first: these, from now on, if it is new."""
        with transaction(self.path) as db:
            try:
                return first_shares(db, work, shares)
            except ValueError as error:
                raise BackendError(f"The shares in the ledger {str(self.path)!r} are damaged: {error}.") from error

    def open(
        self, request: Request, owner: Owner, estimate: Cost, *, cached: bool = True, allow: Allow | None = None
    ) -> Row | None:
        """Record a request as about to be sent, and return its row; None if another owner has just done so.

        Args:
            request: The request.
            owner: Who will send it.
            estimate: Its estimated cost.
            cached: Whether another row of the same request, finished or in flight, may answer it instead.
            allow: Raises an error if the job must not be sent; see :meth:`reserve`.

        Raises:
            BackendError: For an estimate that is negative or not finite.
        """
        packed, now = request.pack(), time.time()
        columns = {
            "key": request.key,
            "tag": "",
            "device": request.device,
            "settings": request.settings,
            "state": "sending",
            "owner": owner.mark,
            "created": now,
            "updated": now,
            "shots": request.shots,
            "estimate": cost_text(estimate),
            "request": packed,
            "work": request.work,
        }
        names, places = ", ".join(columns), ", ".join("?" * len(columns))
        with transaction(self.path) as db:
            if cached and select(db, _ANSWERS, [request.key]):
                return None
            if allow is not None:
                allow(partial(_charged, db, request.device))
            cursor = db.execute(f"INSERT INTO jobs ({names}) VALUES ({places})", tuple(columns.values()))
            number = cast(int, cursor.lastrowid)
            # Unique: numbers of deleted rows are not used again, and each ledger has a random name.
            tag = f"qattn-{request.key[:16]}-{about(db, 'ledger', str)}-{number}"
            return update(db, number, tag=tag, charge=next_charge(db))

    def reserve(self, number: int, allow: Allow) -> Row:
        """Charge for a row that will be sent now, and return the row.

        Args:
            number: Its number.
            allow: Called before that with a function that returns the rows of the device charged after a given charge;
                it raises an error if the job must not be sent. Nobody else charges for a job meanwhile.
        """
        with transaction(self.path) as db:
            allow(partial(_charged, db, select_row(db, number).device))
            return update(db, number, charge=next_charge(db))

    def charge(self, number: int) -> Row:
        """Charge for a row whose job was sent, by whoever takes it over now, and return the row."""
        with transaction(self.path) as db:
            return update(db, number, charge=next_charge(db))

    def charged(self, device: str, after: int) -> list[Row]:
        """Return the rows of a device that were charged after a given charge."""
        with transaction(self.path) as db:
            return _charged(db, device, after)

    def last_charge(self) -> int:
        """Return the number of the last charge, 0 where there is no ledger yet; none is made."""
        if not is_there(self.path):
            return 0
        with transaction(self.path) as db:
            return about(db, "charges", int)

    def elsewhere(self, request: Request) -> list[Row]:
        """Return the rows, finished or in flight, of the same work on other devices of the provider, newest first."""
        provider = request.device.partition(":")[0]
        with transaction(self.path) as db:
            found = select(
                db, "work = ? AND device != ? AND state IN ('done', 'sent', 'sending')", [request.work, request.device]
            )
        return [row for row in found if row.device.partition(":")[0] == provider]

    def take(self, number: int, owner: Owner) -> Row:
        """Become the owner of a row in flight whose owner has ended, and return the row; other rows stay unchanged."""
        with transaction(self.path) as db:
            row = select_row(db, number)
            if row.state not in IN_FLIGHT or self.is_alive(row.owner):
                return row
            return update(db, number, owner=owner.mark)

    def sent(self, number: int, job_id: str, note: str = "") -> Row:
        """Record the id that a device gave to a job, and what else is to be known of it, and return its row."""
        return self._write(number, only=IN_FLIGHT, state="sent", job_id=job_id, error=note)

    def finish(self, number: int, values: Sequence[Values | Bits], used: Cost | None) -> Row:
        """Store a job's values and cost, and return its row; the first result of a job is final."""
        columns = {"state": "done", "result": pack_values(values), "used": _known(used)}
        return self._write(number, only=IN_FLIGHT, **columns)

    def close(self, number: int, state: Literal["failed", "cancelled"], error: str, used: Cost | None = None) -> Row:
        """Record that a job in flight will have no result, and return its row."""
        return self._write(number, only=IN_FLIGHT, state=state, error=error, used=_known(used))

    def settle(self, number: int, used: Cost) -> Row:
        """Record what a job that has ended cost, once that is known, and return its row."""
        return self._write(number, only=("done", "failed", "cancelled"), used=_known(used))

    def release(self, owner: Owner) -> None:
        """End an owner's work, and give up its rows; the next run of the same request becomes the owner."""
        owner.end()  # which frees the rows even if the file cannot be written
        with transaction(self.path) as db:
            db.execute("UPDATE jobs SET owner = NULL WHERE owner = ?", (owner.mark,))

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
            states: The states whose rows are returned.
            device: Name of a device, or its beginning such as ``ibm:``; all by default.
            before: Only those that last changed before this time, in seconds since 1970.
        """
        with transaction(self.path) as db:
            return select(db, *_filter(states, device, before))

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
        """Return the request of a row.

        Raises:
            BackendError: If it is gone, or not what this package writes.
        """
        return self._unpacked(number, "request", Request.unpack)

    def values(self, number: int) -> Sequence[Values | Bits]:
        """Return the values of a finished row's job, one entry per PUB.

        Raises:
            BackendError: If they are not there, or not what this package writes.
        """
        return self._unpacked(number, "result", unpack_values)

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
            states: The states whose rows are deleted; rows in flight stay unless ``force`` is given.
            device: As for :meth:`rows`.
            before: As for :meth:`rows`.
            force: Also forget jobs that may still run and be billed.
        """
        where, values = _filter([state for state in states if force or state not in IN_FLIGHT], device, before)
        with transaction(self.path) as db:
            return db.execute(f"DELETE FROM jobs WHERE {where}", values).rowcount

    def _write(self, number: int, *, only: Sequence[str] = STATES, **columns: object) -> Row:
        with transaction(self.path) as db:
            return update(db, number, only=only, **columns)

    def _unpacked(self, number: int, column: str, unpack: Callable[[bytes], T]) -> T:
        with transaction(self.path) as db:
            found = db.execute(f"SELECT {column} FROM jobs WHERE id = ?", (number,)).fetchone()
        what = f"The {column} of row {number} of the ledger {str(self.path)!r}"
        if found is None or found[0] is None:
            raise BackendError(f"{what} is not there.")
        try:
            return unpack(found[0])
        except ValueError as error:
            raise BackendError(f"{what} has bad contents: {one_line(str(error))}.") from error


def default_path() -> Path:
    """Return ``$QATTN_LEDGER``, else ``ledger.sqlite`` in the user's data folder; absolute.

    Raises:
        ConfigError: For a path in the folder of a user who is not there.
    """
    return path_from("QATTN_LEDGER") or absolute(user_data_path("qiskit-qattn") / "ledger.sqlite")


def _charged(db: sqlite3.Connection, device: str, after: int) -> list[Row]:
    return select(db, "charge > ? AND device = ?", [after, device])


def _known(used: Cost | None) -> str | None:
    """Return a cost as JSON, None for one that is not known or cannot be."""
    return cost_text(used) if used is not None and used.is_valid else None


def _filter(states: Sequence[str], device: str | None, before: float | None) -> tuple[str, list[object]]:
    """Return the condition on rows, with its values."""
    where, values = [f"state IN ({', '.join('?' * len(states))})"], list[object](states)
    if device:
        where.append("substr(device, 1, ?) = ?")
        values += [len(device), device]
    if before is not None:
        where.append("updated < ?")
        values.append(before)
    return " AND ".join(where), values
