"""A cell in a process of its own. Imports nothing heavy, so that waiting for a cell costs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_in_process(folder: str, kind: str, seed: int, threads: int, log: str) -> str | None:
    """Run a cell in a process of its own, and return why it failed, or None.

    The process stops when this one ends, however it ends: it reads from a pipe that nobody writes to.

    Args:
        folder: The study's folder.
        kind: The cell's kind of head.
        seed: Its seed.
        threads: CPU threads it may use.
        log: A file for what the process has to say; it stays if the cell fails.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "qiskit_qattn.evaluation.comparison.cell", folder, kind, str(seed)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
        )
        with process:
            code = process.wait()
    if code == 0:
        path.unlink(missing_ok=True)  # another comparison in the same folder may have been first
        return None
    said = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1] if said else f"its process ended with exit code {code}"
