"""Writing into a run folder: whole or not at all, and one clear line when the disk says no."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from qiskit_qattn.errors import RunFolderError
from qiskit_qattn.training.atomic import write_atomically


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn a failure to write ``path`` (full disk, read-only, file where a folder should be) into our error.

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
    """Write a UTF-8 text file, in full or not at all.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_bytes(path, content.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as :func:`write_text` does."""
    with writing(path):
        write_atomically(path, content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder beside ``path`` that becomes ``path`` when the block ends well, and else vanishes.

    Raises:
        RunFolderError: If something in it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
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
