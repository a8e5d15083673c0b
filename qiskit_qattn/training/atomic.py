"""Files that are there in full or not at all."""

from __future__ import annotations

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
