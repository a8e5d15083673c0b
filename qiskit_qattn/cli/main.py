"""The entry point of ``qattn``."""

from __future__ import annotations

import io
import sys
import warnings
from importlib.util import find_spec

from qiskit_qattn.errors import missing_dependency


def main() -> None:
    """Run ``qattn``, or print which package is missing."""
    if find_spec("typer") is None:
        sys.stderr.write(f"error: {missing_dependency('typer', 'train')}\n")
        sys.exit(2)
    from qiskit_qattn.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")  # a code page without a letter costs the letter, not the output
    warnings.formatwarning = lambda message, *_args, **_options: f"warning: {' '.join(str(message).split())}\n"
    app()
