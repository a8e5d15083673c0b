"""Follows the pages of docs/start word for word in an empty folder: ``python -m tests.docs.follow [PAGE ...]``.

It prints the seconds by the clock and those of the processor: on a machine that does nothing else they are about equal.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs/start").glob("*.md") if path.stem != "index")
_BLOCK = re.compile(r"^```(python|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(page: Path, folder: Path) -> tuple[float, float]:
    """Run a page's Python, in one process, and its commands; return the seconds by the clock and of the processor.

    Raises:
        AssertionError: Something ended with an error, or printed other text than the page shows.
    """
    blocks = _BLOCK.findall(page.read_text("utf-8"))
    code = "".join(text for kind, text in blocks if kind == "python")
    shown = "".join(text for kind, text in blocks if kind == "text")
    start, before = time.perf_counter(), _processor()
    if code:
        (folder / "page.py").write_text(code, encoding="utf-8")
        printed = _run([sys.executable, "page.py"], folder)
        assert printed == shown, f"{page.name} shows:\n{shown}\nand printed:\n{printed}"
    for line in (line for kind, text in blocks if kind == "console" for line in text.splitlines()):
        if not line.startswith("pip install"):
            _run(["sh", "-ec", line], folder)
    return time.perf_counter() - start, _processor() - before


def _processor() -> float:
    """Return the processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], folder: Path) -> str:
    """Run a command with this interpreter's ``python`` and ``qattn`` first, and return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "QATTN_LEDGER": str(folder / "ledger.sqlite")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    for each in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        with tempfile.TemporaryDirectory() as empty:
            clock, processor = follow(each, Path(empty))
            print(f"{each.stem:20}{clock:5.0f} s by the clock{processor:5.0f} s of the processor", flush=True)
