"""The ledger on disk: its SQLite file and its rows."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import no_fork
from qiskit_qattn.untrusted import as_type, shown

T = TypeVar("T")
VERSION = 2
_APPLICATION = 0x5141544E  # "QATN", where SQLite keeps whose file it is
_MAGIC = b"SQLite format 3\0"
_BUSY_SECONDS = 60.0
_ADVICE = "Move it away, or name another with the environment variable QATTN_LEDGER."
_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    tag TEXT NOT NULL,
    device TEXT NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sending', 'sent', 'done', 'failed', 'cancelled')),
    job_id TEXT,
    owner TEXT,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    shots INTEGER NOT NULL,
    estimate TEXT NOT NULL,
    used TEXT,
    error TEXT NOT NULL DEFAULT '',
    request BLOB NOT NULL,
    result BLOB,
    work TEXT,
    charge INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE INDEX jobs_by_work ON jobs (work);
CREATE INDEX jobs_by_charge ON jobs (charge);
CREATE TABLE about (ledger TEXT NOT NULL, charges INTEGER NOT NULL DEFAULT 0);
INSERT INTO about (ledger) VALUES (lower(hex(randomblob(4))));
"""
_FROM_VERSION_1 = (
    "ALTER TABLE jobs ADD COLUMN charge INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE about ADD COLUMN charges INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX jobs_by_charge ON jobs (charge)",
    "UPDATE jobs SET owner = NULL",  # of the version before, whose processes cannot write any more
)
RowState = Literal["sending", "sent", "done", "failed", "cancelled"]
STATES: tuple[RowState, ...] = get_args(RowState)
IN_FLIGHT = ("sending", "sent")
_LAST_SECOND = 253_402_300_799  # of the year 9999


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger, made where there is none, and run a block in one transaction, which locks out other processes.

    Raises:
        BackendError: For a file that is damaged, another program's, of a newer version, or that cannot be used.
    """
    # Also one connection at a time: closing a file drops the locks of this process's other connections to it.
    with no_fork, _clear_errors(path):
        if not _is_ledger(path):
            _make(path)
        with closing(_connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                _check_version(path, connection)
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


def is_there(path: Path) -> bool:
    """Return whether there is a ledger; False where there is nothing.

    Raises:
        BackendError: If there is anything else.
    """
    with no_fork, _clear_errors(path):
        return _is_ledger(path)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except sqlite3.OperationalError as error:
        raise _unusable(path, str(error)) from error
    except sqlite3.DatabaseError as error:
        raise BackendError(f"The ledger {_name(path)} is damaged: {error}. Nothing was changed. {_ADVICE}") from error


def _is_ledger(path: Path) -> bool:
    """Return whether there is a ledger, which only its owner can read from then on; False where there is nothing.

    Raises:
        BackendError: For anything else. It was not changed.
        OSError: For a path that cannot be looked at.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)  # before it is opened: that alone can act on a device
    except FileNotFoundError:
        if os.path.lexists(path):
            raise BackendError(f"{_name(path)} is a link to nothing, so it is no ledger. {_ADVICE}") from None
        return False
    except ValueError as error:  # of a NUL character, or what no file name can have
        raise OSError(errno.EINVAL, f"no file can have this name ({error})") from error
    if kind != stat.S_IFREG:
        what = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(kind, "a device")
        raise _no_ledger(path, f"it is {what}")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        start = os.read(descriptor, 100)
        if not start.startswith(_MAGIC):
            raise _no_ledger(path, "it is not an SQLite file" if start else "it is empty")
        if len(start) < 100:
            raise _no_ledger(path, "its header is cut off")
        if int.from_bytes(start[68:72], "big") != _APPLICATION:
            raise _no_ledger(path, "it is another program's database")
        if os.name == "posix" and os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return True


def _name(path: Path) -> str:
    text = str(path)
    return repr(text) if len(text) < 256 else shown(text)


def _no_ledger(path: Path, why: str) -> BackendError:
    return BackendError(f"{_name(path)} is no ledger: {why}. Nothing was changed. {_ADVICE}")


def _unusable(path: Path, why: str) -> BackendError:
    return BackendError(f"Cannot use the ledger {_name(path)}: {why}. {_ADVICE}")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _make(path: Path) -> None:
    """Make an empty ledger that only its owner can read, unless another process has just made it.

    It is linked to its name once it is complete: SQLite has no lock for switching a file to write-ahead logging.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(_connect(scratch)) as connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute(
                "PRAGMA journal_mode=WAL"
            )  # last: closing moves a log into the file, silent if that fails
        with suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    """Raise for a ledger of a newer version, and bring one of an older version up to date."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise BackendError(
            f"The ledger {_name(path)} has version {version}, this release reads up to {VERSION}. Update "
            f"qiskit-qattn, or name another ledger with the environment variable QATTN_LEDGER."
        )
    if version < 2:
        columns = {column["name"] for column in connection.execute("PRAGMA table_info(jobs)")}
        if "work" not in columns:
            connection.execute("ALTER TABLE jobs ADD COLUMN work TEXT")
            connection.execute("CREATE INDEX jobs_by_work ON jobs (work)")
        for statement in _FROM_VERSION_1:
            connection.execute(statement)
        for number, used in connection.execute("SELECT id, used FROM jobs WHERE used IS NOT NULL").fetchall():
            try:
                _cost(used, "used")
            except ValueError:  # written as a device reported it, NaN say: then it is not known
                connection.execute("UPDATE jobs SET used = NULL WHERE id = ?", (number,))
        connection.execute(f"PRAGMA user_version={VERSION}")


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
        raise BackendError(f"The ledger has bad contents: {error}. {_ADVICE}") from error


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
                item[name] = _cost(item[name], name)
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


def _cost(text: Any, name: str) -> Cost:
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
