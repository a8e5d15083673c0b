"""The SQLite file of the ledger: made, checked and opened."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from qiskit_qattn.errors import BackendError

VERSION = 1
_APPLICATION = 0x5141544E  # "QATN", where SQLite keeps whose file it is
_MAGIC = b"SQLite format 3\0"
_BUSY_SECONDS = 60.0
# One connection at a time: closing a file drops the locks that other connections of the process hold on it.
_ALONE = threading.Lock()
_ELSE = "Move it away, or name another with the environment variable QATTN_LEDGER."
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
    result BLOB
);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE TABLE about (ledger TEXT NOT NULL);
INSERT INTO about VALUES (lower(hex(randomblob(4))));
"""


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger, made where there is none, and run a block in one transaction, alone among all processes.

    Raises:
        BackendError: For a file that is damaged, another program's, of a newer version, or that cannot be used.
    """
    try:
        with _ALONE:
            if not path.exists():
                _make(path)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            _check_header(path)
            with closing(_connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    _check_ours(path, connection)
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
    except OSError as error:
        raise BackendError(f"Cannot use the ledger {str(path)!r}: {error.strerror or error}. {_ELSE}") from error
    except sqlite3.OperationalError as error:
        raise BackendError(f"Cannot use the ledger {str(path)!r}: {error}. {_ELSE}") from error
    except sqlite3.DatabaseError as error:
        raise BackendError(f"The ledger {str(path)!r} is damaged: {error}. Nothing was changed. {_ELSE}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _make(path: Path) -> None:
    """Make an empty ledger that only its owner can read, unless another process is faster.

    It appears under its name in one step: SQLite does not make others wait while a file turns to write-ahead logging.
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
    """Raise for a file that is no SQLite database, before SQLite sees it."""
    with path.open("rb") as stream:
        start = stream.read(len(_MAGIC))
    if start != _MAGIC:
        what = "it is not an SQLite file" if start else "it is empty"
        raise BackendError(f"{str(path)!r} is no ledger: {what}. Nothing was changed. {_ELSE}")


def _check_ours(path: Path, connection: sqlite3.Connection) -> None:
    """Raise for a database that is not a ledger of a version we can read."""
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise BackendError(f"{str(path)!r} is no ledger but another program's database. Nothing was changed. {_ELSE}")
    if version > VERSION:
        raise BackendError(
            f"The ledger {str(path)!r} has version {version}, this release reads up to {VERSION}. Update "
            f"qiskit-qattn, or name another ledger with the environment variable QATTN_LEDGER."
        )
