"""The errors this package raises.

Every one is a :class:`QattnError`, and every message says what was given, what was expected and what is
allowed. Kinds that correspond to a Python built-in also inherit from it, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches


class QattnError(Exception):
    """Base class of all errors of this package."""


class ConfigError(QattnError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class UnknownNameError(ConfigError):
    """A name that is not in the list it was looked up in."""


class CircuitError(QattnError, ValueError):
    """A circuit, observable or parameter that cannot be built or simulated."""


class EncodingError(QattnError, ValueError):
    """A classical vector that cannot be encoded, for example one that holds NaN."""


class DivergenceError(ConfigError, EncodingError):
    """A training whose loss is no longer a finite number, or whose values can no longer be encoded."""


class DataError(QattnError, ValueError):
    """A text corpus that cannot be fetched, read or used."""


class TokenError(DataError):
    """Text with characters, or tokens, outside a model's vocabulary."""


class CheckpointError(QattnError):
    """A checkpoint that is missing, damaged or not one of ours."""


class RunFolderError(QattnError):
    """A run folder that exists already, is missing, or cannot be written."""


class BackendError(QattnError):
    """A backend that is unknown, not installed, or failed."""


class TransientBackendError(BackendError):
    """A failure that may pass by itself: a dropped connection, a busy service.

    Attributes:
        retry_after: Seconds the service asked to wait, or None; a number that is negative or not finite counts as none.
        unsent: Whether a job that was to be sent has certainly not been taken.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after if retry_after is not None and 0 <= retry_after < math.inf else None
        self.unsent = unsent


class JobError(BackendError):
    """A job that failed, or was cancelled, on the device."""


class BudgetError(BackendError):
    """A call that would pass its budget, or a paid device without one; nothing was sent."""


class QueueFull(QattnError):
    """A request that came while as many others waited as may wait."""


class StoppedError(QattnError):
    """A request to a server that is stopping, or that it could not finish by then."""


class GenerationError(QattnError):
    """A text that could not be finished because a pass of the model failed; its cause is the error of that pass."""


class MissingDependencyError(QattnError, ImportError):
    """An optional dependency that is not installed; the message holds the command that installs it."""


def counted(n: float, noun: str) -> str:
    """Return a number of things in words: ``1 seed``, ``8 seeds``."""
    return f"{f'{n:,}' if isinstance(n, int) else f'{n:g}'} {noun}{'' if n == 1 else 's'}"


def unknown_name(what: str, given: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for ``given``, which is no known ``what``, naming the nearest and all known names."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"Unknown {what} {given!r}.{hint} Known: {', '.join(names)}.")


def missing_dependency(package: str, extra: str) -> MissingDependencyError:
    """Return the error for an absent optional ``package``, with the extra that brings it."""
    return MissingDependencyError(f'{package} is not installed. Install it with: pip install "qiskit-qattn[{extra}]"')
