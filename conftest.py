"""Runs the Python blocks of README.md as tests, and compares what they print with the text block that follows.

A block of another language is not run. To leave a Python block out, put the comment ``<!--- skip: next -->`` on a
line of its own before it.
"""

import contextlib
import io

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

_run = PythonEvaluator()


def run_python(example: Example) -> None:
    """Run a block in the namespace of its document, and keep what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        _run(example)
    example.namespace["printed"] = printed.getvalue()


def compare_text(example: Example) -> str | None:
    """Return a message if the block is not what the last Python block printed."""
    printed = example.namespace.pop("printed", "")
    if printed.rstrip("\n") != example.parsed.rstrip("\n"):
        return f"the block above printed:\n{printed}"
    return None


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", run_python), CodeBlockParser("text", compare_text), SkipParser()],
    patterns=["README.md"],
).pytest()
