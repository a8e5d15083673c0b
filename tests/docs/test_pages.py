"""What the pages say about the package is what the package has."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from qiskit_qattn.nn.kinds import HEAD_KINDS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("kind", HEAD_KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_of_head_is_explained_and_drawn(kind):
    heads = (ROOT / "docs" / "heads.md").read_text("utf-8")
    assert re.search(rf"`{kind.name}`|^## .*\b{kind.name}\b", heads, re.MULTILINE)
    assert re.search(rf"^\|.*`{kind.name}`.*\|.*\|.*\|.*\|$", heads, re.MULTILINE)
    assert kind.circuit is None or (ROOT / "circuits" / kind.circuit / "4-qubits" / "circuit.svg").exists()


def test_the_readme_is_short_and_names_kinds_that_exist():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) < 150
    table = readme.split("| kind |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)) <= {*HEAD_KINDS, "qisa"}


def test_the_picture_of_the_layers_is_the_contract():
    drawn = re.findall(r"font-weight=\"bold\">(\w+)<", (ROOT / "docs" / "images" / "layers.svg").read_text("utf-8"))
    contract = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "layers")
    assert drawn == contract["layers"]


def test_supported_versions_are_those_of_the_project_and_its_constraints():
    project = PROJECT["project"]
    wanted = " ".join([*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    page = (ROOT / "docs" / "versions.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\S+) \| (\S+) \|", page, re.MULTILINE)
    assert len(rows) >= 12
    for name, oldest, tested in rows:
        assert re.search(rf"(?<![\w-]){name}(?:\[\w+\])?>={re.escape(oldest)}(?![.\d])", wanted), name
        assert f"{name}=={tested}" in pinned, name
    minors = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert f"Python {', '.join(minors[:-1])} and {minors[-1]}," in page


def test_the_changelog_keeps_its_form():
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
