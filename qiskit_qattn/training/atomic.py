"""Files that are there in full or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader, crash or full disk ever leaves part of it there.

    The bytes go to a temporary file in the same folder, which then takes the place of ``path`` in one step.
    Missing parent folders are made.

    Args:
        path: The file to write or replace.
        content: All that it shall hold.

    Raises:
        OSError: Something could not be written; ``path`` is then as it was before.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), path.parent)
        raise NotADirectoryError(errno.ENOTDIR, f"{str(file)!r} is not a folder") from error
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # there only if something failed
