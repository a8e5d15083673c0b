"""Notebooks run with ``make test-more``: each starts a process of its own, and some train a model."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them so."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.more)
