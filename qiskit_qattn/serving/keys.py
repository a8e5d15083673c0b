"""Keys of an API: only their hashes are kept, in a file that may change while the server runs, or from the environment.

The file has one JSON object per line, so that a new key or a revocation is one line more, written in one step:
``{"name": "alice", "sha256": "…", "created": "2026-01-31T12:00:00+00:00"}``, optionally with ``requests_per_minute``
and ``tokens_per_minute``; ``{"name": "alice", "revoked": "2026-02-01T…"}`` revokes it. A key is 256 random bits, so a
plain hash of it cannot be inverted by guessing.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from qiskit_qattn import untrusted
from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.untrusted import shown

ENVIRONMENT = "QATTN_SERVE_API_KEYS"
_PREFIX = "qattn-"
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_MOST = 2**24  # bytes of a file of keys
_SHORTEST = 16  # characters of a key that a user chooses
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """A key, without its secret.

    Attributes:
        name: The name of its owner.
        sha256: Hash of the secret, in hexadecimal digits.
        created: When it was made, in ISO 8601; empty if that is not known.
        revoked: When it was revoked; empty while it is valid.
        requests_per_minute: Its own limit; None for the server's.
        tokens_per_minute: The same for tokens.
    """

    name: str
    sha256: str
    created: str = ""
    revoked: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Keys:
    """The keys of a server. The file is read again when it has changed; if it cannot be, the keys read last stay valid.

    Args:
        file: The file; empty for none.
        environment: Has keys as ``NAME=SECRET`` or ``NAME=sha256:HASH``, separated by commas, in
            ``QATTN_SERVE_API_KEYS``.

    Raises:
        ConfigError: If the file or the variable cannot be read.
    """

    def __init__(self, file: str | os.PathLike[str] = "", environment: Mapping[str, str] | None = None) -> None:
        self._file = Path(file) if file else None
        self._fixed = _from_environment((environment or {}).get(ENVIRONMENT, ""))
        self._seen = self._state()
        self._read: tuple[Key, ...] = () if self._file is None else read_keys(self._file)

    def valid(self) -> list[Key]:
        """Return the keys that are valid now."""
        self._read_again()
        return [key for key in (*self._fixed, *self._read) if not key.revoked]

    def __bool__(self) -> bool:
        """Whether a key is needed: whether a file or a variable of keys was given, even if all are revoked."""
        return self._file is not None or bool(self._fixed)

    def find(self, secret: str) -> Key | None:
        """Return the valid key of a secret, or None; the time does not tell how much of a hash is right."""
        given, found = _hashed(secret), None
        for key in self.valid():
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def _state(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read_again(self) -> None:
        state = self._state()
        if self._file is None or state == self._seen:
            return
        self._seen = state
        try:
            self._read = read_keys(self._file)
        except ConfigError as error:
            _LOG.error("%s The keys that were read before stay valid.", error)
        else:
            _LOG.info("Read %d keys from %s.", len(self._read), self._file)


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file, revoked ones included, in the order in which they were made.

    Raises:
        ConfigError: If the file cannot be read, or is not one of keys; the message names the line.
    """
    try:
        lines = untrusted.read_bytes(path, _MOST).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the keys in {str(path)!r}: {getattr(error, 'strerror', error)}.") from error
    found: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                _take(found, json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"Line {number} of the keys in {str(path)!r} is wrong: {error}.") from error
    return tuple(found.values())


def _take(found: dict[str, Key], record: Any) -> None:
    """Add the key of one line, or revoke one."""
    if not isinstance(record, dict) or not isinstance(record.get("name"), str):
        raise ValueError(f"it must be an object with a name, got {shown(record)}")
    name = record["name"]
    if "sha256" not in record:
        if name not in found:
            raise ValueError(f"it revokes {shown(name)}, which no line before it names")
        found[name] = replace(found[name], revoked=str(record.get("revoked")))
        return
    defaults: dict[str, Any] = {"created": "", "revoked": "", "requests_per_minute": None, "tokens_per_minute": None}
    key = untrusted.as_type(defaults | record, Key)
    if not _HASH.fullmatch(key.sha256):
        raise ValueError("sha256 must have 64 hexadecimal digits")
    if min(key.requests_per_minute or 0, key.tokens_per_minute or 0) < 0:
        raise ValueError("its limits must be 0, for none, or more")
    found[name] = key


def create_key(path: Path, name: str, *, requests: int | None = None, tokens: int | None = None) -> str:
    """Add a key to a file, which is made if it is missing, and return its secret, which is kept nowhere.

    Args:
        path: The file.
        name: The name of its owner. The name of a revoked key may be used again.
        requests: Requests per minute, in place of the server's limit; 0 for no limit.
        tokens: Tokens per minute, in the same way.

    Raises:
        ConfigError: For a name that is taken or cannot be one, or a file that cannot be read or written.
    """
    _check_name(name)
    for key in read_keys(path) if path.exists() else ():
        if key.name == name and not key.revoked:
            raise ConfigError(
                f"There is a key called {name!r} in {str(path)!r}; revoke it first, or choose another name."
            )
    secret = _PREFIX + secrets.token_urlsafe(32)
    record: dict[str, Any] = {"name": name, "sha256": _hashed(secret), "created": _now()}
    limits = {"requests_per_minute": requests, "tokens_per_minute": tokens}
    _append(path, record | {limit: value for limit, value in limits.items() if value is not None})
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Revoke a key; servers that run take note at the next request.

    Raises:
        UnknownNameError: If no valid key has the name.
        ConfigError: If the file cannot be read or written.
    """
    valid = [key.name for key in read_keys(path) if not key.revoked]
    if name not in valid:
        raise unknown_name("key", name, valid)
    _append(path, {"name": name, "revoked": _now()})


def _append(path: Path, record: dict[str, Any]) -> None:
    """Add a line in one step; only the user may read a new file."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            ended = not size or os.pread(handle, 1, size - 1) == b"\n"
            os.write(handle, f"{'' if ended else chr(10)}{json.dumps(record)}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigError(f"Cannot write the keys in {str(path)!r}: {error.strerror}.") from error


def _from_environment(text: str) -> tuple[Key, ...]:
    found: list[Key] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, secret = part.partition("=")
        _check_name(name)
        digest = secret.removeprefix("sha256:") if secret.startswith("sha256:") else _hashed(secret)
        if not _HASH.fullmatch(digest) or (len(secret) < _SHORTEST):
            raise ConfigError(
                f"The key {name!r} in {ENVIRONMENT} must be NAME=SECRET, with a secret of at least {_SHORTEST} "
                f"characters, or NAME=sha256:HASH, with 64 hexadecimal digits."
            )
        found.append(Key(name, digest))
    return tuple(found)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"The name of a key has 1 to 64 letters, digits and '_.@-'; got {shown(name)}.")


def _hashed(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
