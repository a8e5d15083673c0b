"""CITATION.cff keeps to the rules of the Citation File Format 1.2.0, and to the version of the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import qiskit_qattn as qa

ROOT = Path(__file__).parents[2]
KNOWN = [
    "abstract",
    "authors",
    "cff-version",
    "commit",
    "contact",
    "date-released",
    "doi",
    "identifiers",
    "keywords",
    "license",
    "license-url",
    "message",
    "preferred-citation",
    "references",
    "repository",
    "repository-artifact",
    "repository-code",
    "title",
    "type",
    "url",
    "version",
]


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def test_it_has_what_the_format_asks_for_and_nothing_it_does_not_know(citation):
    assert {"authors", "cff-version", "message", "title"} <= set(citation) <= set(KNOWN)
    assert citation["cff-version"] == "1.2.0" and citation["type"] in ("software", "dataset")
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert all(isinstance(word, str) for word in citation["keywords"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(citation.get("date-released", "2026-01-01")))


def test_it_agrees_with_the_package(citation):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert str(citation["version"]) == qa.__version__
    assert citation["title"] == project["name"]
    assert citation["license"] == project["license"]
    assert citation.get("repository-code") == project.get("urls", {}).get("Repository")
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
