"""Who works on a row of a ledger, and whether they still do.

A process that works on a ledger locks a file of its own in the folder ``<ledger>.owners``. The operating system
releases the lock when the process ends, in whatever way, so that no clock, process number or host name is compared. An
owner's mark names that file, and one piece of work in the process.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
import weakref
from contextlib import suppress
from pathlib import Path

from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import in_forked_process, no_fork

_MARK = re.compile(r"(?P<token>[0-9a-f]{16}) [0-9a-f]{8}")
_SUFFIX = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)


class Owner:
    """A piece of work of this process: a job that it sends, waits for or cancels.

    It is at work until :meth:`end` is called, nothing refers to it any more, or the process ends. In a forked process
    it is the parent's.

    Args:
        ledger: The ledger's file.

    Attributes:
        mark: What the ledger's rows say of it.

    Raises:
        BackendError: If no file can be locked beside the ledger.
    """

    def __init__(self, ledger: Path) -> None:
        folder = _folder(ledger)
        with no_fork:
            try:
                self._file: LockedFile | None = _own_file(folder)
            except OSError as error:
                raise BackendError(
                    f"Cannot lock a file in {str(folder)!r}, beside the ledger: {error.strerror or error}."
                ) from error
            self.mark = f"{self._file.path.name.removesuffix(_SUFFIX)} {secrets.token_hex(4)}"
            _AT_WORK[self.mark] = self

    @property
    def at_work(self) -> bool:
        """Whether the work goes on, in this process."""
        return _AT_WORK.get(self.mark) is self

    def end(self) -> None:
        """Say that the work is over; rows that still have the mark are free for others."""
        with no_fork:
            if self.at_work:
                del _AT_WORK[self.mark]
                self._file = None


def is_alive(mark: str | None, ledger: Path) -> bool:
    """Return whether an owner is at work, in this process or another.

    Args:
        mark: The owner's mark, or None for a row without one. Marks of another form are those of ended owners.
        ledger: The ledger's file.
    """
    found = _MARK.fullmatch(mark or "")
    if found is None:
        return False
    folder = _folder(ledger)
    with no_fork:
        own, path = _FILES.get(folder), folder / (found["token"] + _SUFFIX)
        if mark in _AT_WORK or (own is not None and own.path == path):
            return mark in _AT_WORK
        return _is_locked(path)


class LockedFile:
    """A new file that this process holds locked, and removes when nothing refers to it any more.

    Args:
        path: Its name, which no other process chooses.

    Attributes:
        path: As given.

    Raises:
        OSError: If it cannot be made; a ``BlockingIOError`` if another process was about to remove it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self.remove = weakref.finalize(self, _remove, path, self.descriptor)
        try:
            if _is_held(self.descriptor, shared=False) or not self.is_in_place():
                raise BlockingIOError(errno.EAGAIN, "another process removes it")
        except OSError:
            self.remove()
            raise

    @classmethod
    def new(cls, folder: Path, before: str, after: str) -> LockedFile:
        """Return one in a folder, with a name that begins and ends as given."""
        while True:
            with suppress(BlockingIOError):
                return cls(folder / f"{before}{secrets.token_hex(8)}{after}")

    def is_in_place(self) -> bool:
        """Return whether the file still has its name, under which others look for it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def leave_to_parent(self) -> None:
        """Drop a forked process's share of the lock, which it would otherwise hold on after its parent."""
        self.remove.detach()
        os.close(self.descriptor)


_FILES: weakref.WeakValueDictionary[Path, LockedFile] = weakref.WeakValueDictionary()  # of this process, by folder
_AT_WORK: weakref.WeakValueDictionary[str, Owner] = weakref.WeakValueDictionary()  # by mark


@in_forked_process
def _leave_to_parent() -> None:
    for file in list(_FILES.values()):
        file.leave_to_parent()
    _FILES.clear()
    _AT_WORK.clear()


def _folder(ledger: Path) -> Path:
    """Return the folder of a ledger's owners, the same by whichever link the ledger is named."""
    real = Path(os.path.realpath(ledger))
    return real.with_name(f"{real.name}.owners")


def _own_file(folder: Path) -> LockedFile:
    """Return the file of this process, locked now if it has none."""
    file = _FILES.get(folder)
    if file is None or not file.is_in_place():
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        remove_unlocked(folder, f"*{_SUFFIX}")
        file = _FILES[folder] = LockedFile.new(folder, "", _SUFFIX)
    return file


def remove_unlocked(folder: Path, pattern: str, *besides: str) -> None:
    """Remove the files in a folder whose processes have ended, and others of the same names with a suffix."""
    for path in folder.glob(pattern):
        if not _is_locked(path):
            for suffix in (*besides, ""):
                with suppress(OSError):
                    os.unlink(f"{path}{suffix}")


def _remove(path: Path, descriptor: int) -> None:
    with suppress(OSError):  # it is no longer there, or the system removes no open files
        path.unlink()
    os.close(descriptor)


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's: then it cannot be told
        return True
    try:
        return _is_held(descriptor, shared=True)  # so that two that look do not see each other
    finally:
        os.close(descriptor)


def _is_held(descriptor: int, *, shared: bool) -> bool:
    """Return whether another open file has the lock; this one has it from now on if not."""
    try:
        _lock(descriptor, shared=shared)
    except OSError as error:
        if error.errno in _HELD:
            return True
        raise
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, *, shared: bool) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int, *, shared: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
