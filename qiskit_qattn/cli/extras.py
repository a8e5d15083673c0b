"""What a command needs besides what the package always has."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from qiskit_qattn.errors import missing_dependency

TRAINING = ("accelerate", "matplotlib", "rapidfuzz", "rich")


def require(packages: Iterable[str], extra: str) -> None:
    """Raise for the first package that is not installed, before any work.

    Args:
        packages: Names under which they are imported.
        extra: The extra of this package that brings them in.

    Raises:
        MissingDependencyError: If one is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise missing_dependency(package, extra)
