"""Where files are kept: paths from the environment, and the folder of what can be made or fetched again."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from qiskit_qattn.errors import ConfigError, missing_dependency

_DIGEST = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


def path_from(variable: str) -> Path | None:
    """Return the path that an environment variable names, absolute; None where it is not set.

    Raises:
        ConfigError: For ``~user`` where there is no such user, or a relative path where the current folder is gone.
    """
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return absolute(Path(text).expanduser())
    except (RuntimeError, OSError) as error:  # no such user, or no current folder any more
        raise ConfigError(f"{variable}={text!r} names no folder: {error}") from error


@lru_cache(maxsize=256)
def absolute(path: Path) -> Path:
    """Return a path as it was meant when this process first read it, whichever folder is the current one by now."""
    return path.absolute()


def cache_folder(extra: str = "train") -> Path:
    """Return ``$QATTN_CACHE_DIR``, or else the user's cache folder; absolute.

    Args:
        extra: The extra of this package that brings in platformdirs, for whoever asks.

    Raises:
        ConfigError: As :func:`path_from` does.
        MissingDependencyError: Without platformdirs, where the variable is not set.
    """
    if (chosen := path_from("QATTN_CACHE_DIR")) is not None:
        return chosen
    try:
        import platformdirs
    except ImportError as error:
        raise missing_dependency("platformdirs", extra) from error
    return absolute(Path(platformdirs.user_cache_dir("qiskit-qattn", appauthor=False)))


def read_entry(entry: Path) -> bytes | None:
    """Return the content of an entry of the cache folder, or None if it is missing or damaged."""
    try:
        content = entry.read_bytes()
    except OSError:
        return None
    digest, stored = content[:_DIGEST], content[_DIGEST:]
    return stored if hashlib.sha256(stored).digest() == digest else None


def write_entry(entry: Path, content: bytes) -> None:
    """Write an entry atomically; without a writable folder it is made again each time."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=entry.parent, suffix=".tmp")
        scratch = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(hashlib.sha256(content).digest() + content)
            scratch.replace(entry)
        finally:
            scratch.unlink(missing_ok=True)  # there only if something failed
    except OSError as error:
        _log.warning("%s cannot be cached: %s.", entry, error.strerror or error)
