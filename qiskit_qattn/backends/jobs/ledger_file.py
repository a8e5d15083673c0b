"""The ledger on disk: its SQLite file, its rows, and which process works on a row."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.errors import BackendError

VERSION = 1
_APPLICATION = 0x5141544E  # "QATN", where SQLite keeps whose file it is
_MAGIC = b"SQLite format 3\0"
_BUSY_SECONDS = 60.0
# One connection at a time: closing a file drops the locks of this process's other connections to it.
_LOCK = threading.Lock()
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
    work TEXT
);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE INDEX jobs_by_work ON jobs (work);
CREATE TABLE about (ledger TEXT NOT NULL);
INSERT INTO about VALUES (lower(hex(randomblob(4))));
"""
RowState = Literal["sending", "sent", "done", "failed", "cancelled"]
STATES: tuple[RowState, ...] = ("sending", "sent", "done", "failed", "cancelled")
IN_FLIGHT = ("sending", "sent")
_COLUMNS = "id, key, tag, device, settings, state, job_id, owner, created, updated, shots, estimate, used, error"
_START_TOLERANCE = 2.0  # seconds by which two readings of one process's start may differ
_REMOTE_TIMEOUT = 900.0  # seconds after which an owner on another host that writes nothing counts as ended


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger, made where there is none, and run a block in one transaction, which locks out other processes.

    Raises:
        BackendError: For a file that is damaged, another program's, of a newer version, or that cannot be used.
    """
    try:
        with _LOCK:
            if not path.exists():
                _make(path)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            _check_header(path)
            with closing(_connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    _check_ours(path, connection)
                    _add_work(connection)
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
    except OSError as error:
        raise BackendError(f"Cannot use the ledger {str(path)!r}: {error.strerror or error}. {_ADVICE}") from error
    except sqlite3.OperationalError as error:
        raise BackendError(f"Cannot use the ledger {str(path)!r}: {error}. {_ADVICE}") from error
    except sqlite3.DatabaseError as error:
        raise BackendError(f"The ledger {str(path)!r} is damaged: {error}. Nothing was changed. {_ADVICE}") from error


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
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        with suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _check_header(path: Path) -> None:
    """Raise for a file that is not an SQLite database, before SQLite opens it."""
    with path.open("rb") as stream:
        start = stream.read(len(_MAGIC))
    if start != _MAGIC:
        what = "it is not an SQLite file" if start else "it is empty"
        raise BackendError(f"{str(path)!r} is no ledger: {what}. Nothing was changed. {_ADVICE}")


def _check_ours(path: Path, connection: sqlite3.Connection) -> None:
    """Raise for a database that is not a ledger, or of a newer version."""
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise BackendError(f"{str(path)!r} is no ledger but another program's database. Nothing was changed. {_ADVICE}")
    if version > VERSION:
        raise BackendError(
            f"The ledger {str(path)!r} has version {version}, this release reads up to {VERSION}. Update "
            f"qiskit-qattn, or name another ledger with the environment variable QATTN_LEDGER."
        )


def _add_work(db: sqlite3.Connection) -> None:
    """Add the column ``work`` to a ledger of a release that had none; that release can still use it."""
    if not db.execute("SELECT 1 FROM pragma_table_info('jobs') WHERE name = 'work'").fetchone():
        db.execute("ALTER TABLE jobs ADD COLUMN work TEXT")
        db.execute("CREATE INDEX jobs_by_work ON jobs (work)")


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
        owner: Who sends it or waits for it, or None.
        created: When it was written, in seconds since 1970.
        updated: When it last changed.
        shots: Samples per circuit.
        estimate: Its estimated cost.
        used: Its actual cost, where the device reports it.
        error: Why it failed, or what else is to be known of it, such as a copy of its job.
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
        """Its actual cost, or the estimate until that is known."""
        return self.estimate if self.used is None else self.used


def select(db: sqlite3.Connection, where: str, values: Sequence[object], order: str = "id DESC") -> list[Row]:
    """Return the rows that satisfy a condition, newest first."""
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


def cost_text(cost: Cost | None) -> str | None:
    """Return a cost as JSON."""
    return None if cost is None else json.dumps(asdict(cost))


def _read(item: dict[str, Any]) -> Row:
    item["estimate"] = Cost(**json.loads(item["estimate"]))
    item["used"] = None if item["used"] is None else Cost(**json.loads(item["used"]))
    return Row(**item)


def new_owner() -> str:
    """Return a new owner mark: host, process id, start time of the process, and a random part."""
    start = psutil.Process().create_time()
    return f"{socket.gethostname()} {os.getpid()} {start:.2f} {secrets.token_hex(4)}"


def is_alive(owner: str | None, updated: float) -> bool:
    """Return whether the process of an owner mark still runs.

    Processes on other hosts cannot be checked; they count as running for 15 minutes after they last wrote.

    Args:
        owner: A mark of :func:`new_owner`, or None for a row without an owner.
        updated: When the owner last wrote, in seconds since 1970.
    """
    if owner is None:
        return False
    host, pid, start, _ = owner.split(" ")
    if host != socket.gethostname():
        return time.time() - updated < _REMOTE_TIMEOUT
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(start)) < _START_TOLERANCE
    except psutil.NoSuchProcess:
        return False
