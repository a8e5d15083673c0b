"""Runs the Python blocks of README.md and docs/ as tests, compares what they print, and leaves notebooks to test-more.

A block of another language is not run. To leave a Python block out, put the comment ``<!--- skip: next -->`` on a
line of its own before it.
"""

import contextlib
import io

import pytest
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


@pytest.fixture(scope="session")
def own_ledger(tmp_path_factory):
    """Keep the jobs of documents out of the user's ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QATTN_LEDGER", str(tmp_path_factory.mktemp("ledger") / "ledger.sqlite"))
        yield


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", run_python), CodeBlockParser("text", compare_text), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    excludes=["docs/third-party-backend.md"],  # tests/backends/test_registry.py installs and runs it
    fixtures=["own_ledger"],
).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave notebooks to ``make test-more``: each starts a process of its own, and some train a model."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.more)
