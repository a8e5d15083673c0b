"""Where what can be made or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path

from qiskit_qattn.errors import missing_dependency


def cache_folder(extra: str = "train") -> Path:
    """Return ``$QATTN_CACHE_DIR``, or else the user's cache folder.

    Args:
        extra: The extra of this package that brings in platformdirs, for whoever asks.

    Raises:
        MissingDependencyError: Without platformdirs, where the variable is not set.
    """
    if chosen := os.environ.get("QATTN_CACHE_DIR"):
        return Path(chosen).expanduser()
    try:
        import platformdirs
    except ImportError as error:
        raise missing_dependency("platformdirs", extra) from error
    return Path(platformdirs.user_cache_dir("qiskit-qattn", appauthor=False))
