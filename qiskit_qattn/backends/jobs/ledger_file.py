"""The ledger on disk: an SQLite file that is ours, and transactions on it."""

from __future__ import annotations

import errno
import glob
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from qiskit_qattn.backends.jobs.owners import LockedFile, remove_unlocked
from qiskit_qattn.backends.jobs.rows import read_cost
from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import no_fork
from qiskit_qattn.untrusted import shown

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
    remove_unlocked(path.parent, f".{glob.escape(path.name)}.*.tmp", "-wal", "-shm", "-journal")
    scratch = LockedFile.new(path.parent, f".{path.name}.", ".tmp")
    try:
        with closing(_connect(scratch.path)) as connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            # Last: a log is moved into the file when it is closed, and on a full disk that fails without an error.
            connection.execute("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):
            os.link(scratch.path, path)
    finally:
        scratch.remove()


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
                read_cost(used, "used")
            except ValueError:  # written as a device reported it, NaN say: then it is not known
                connection.execute("UPDATE jobs SET used = NULL WHERE id = ?", (number,))
        connection.execute(f"PRAGMA user_version={VERSION}")
