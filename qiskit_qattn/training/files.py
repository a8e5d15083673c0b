"""Writing files and folders atomically, with one clear error where the disk refuses."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from qiskit_qattn.errors import RunFolderError

_SCRATCH = ".qattn-tmp"
_STALE = 3600.0  # seconds after which a scratch file has no owner: no write takes as long


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader, crash or full disk ever leaves part of it there.

    The bytes go to a scratch file in the same folder, which then replaces ``path`` in one step. Missing parent
    folders are made, and scratch files that a killed process left there are removed.

    Args:
        path: The file to write or replace.
        content: The bytes of the file.

    Raises:
        OSError: Something could not be written; ``path`` is then as it was before.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), path.parent)
        raise NotADirectoryError(errno.ENOTDIR, f"{str(file)!r} is not a folder") from error
    remove_leftovers(path.parent)
    temporary = _scratch(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # there only if something failed


def remove_leftovers(folder: Path, older_than: float = _STALE) -> None:
    """Remove scratch files that killed processes left in ``folder``, if they are at least ``older_than`` seconds old.

    A process that owns the folder, such as one that resumes a run, may remove all of them.
    """
    for path in folder.glob(f".*{_SCRATCH}"):
        with suppress(OSError):  # another process removed it, or its owner is done
            if time.time() - path.stat().st_mtime >= older_than:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _scratch(path: Path) -> Path:
    """Return a random name beside ``path``: process ids repeat when a container restarts."""
    return path.with_name(f".{secrets.token_hex(8)}{_SCRATCH}")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Convert a failure to write ``path`` (full disk, read-only, file where a folder should be) into our error.

    Raises:
        RunFolderError: In place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error
    except SafetensorError as error:  # safetensors reports the operating system's errors as its own
        raise RunFolderError(f"Cannot write {str(path)!r}: {error}.") from error


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file completely or not at all.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))  # half a surrogate pair, as JSON escapes it


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as :func:`write_text` does."""
    with writing(path):
        write_atomically(path, content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder beside ``path``; it becomes ``path`` when the block succeeds, and is removed otherwise.

    Raises:
        RunFolderError: If something in it cannot be written.
    """
    scratch = _scratch(path)
    with writing(path):
        remove_leftovers(path.parent)
        try:
            scratch.mkdir(parents=True)
            yield scratch
            if path.exists():
                shutil.rmtree(path)
            scratch.rename(path)
        except RunFolderError as error:
            raise RunFolderError(str(error).replace(scratch.name, path.name)) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # there only if something failed
