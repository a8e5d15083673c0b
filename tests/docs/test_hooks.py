"""The site links to where the project lives, which one setting says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from mkdocs.config.defaults import MkDocsConfig

TOOLS = Path(__file__).parents[2] / "docs" / "tools"


@pytest.fixture
def hooks(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    before = set(sys.modules)
    yield importlib.import_module("hooks")
    for name in {"hooks", "mathml", "notebooks", "references"} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("urls", "name", "links"),
    [
        ("", None, {}),
        (
            '[project.urls]\nRepository = "https://github.com/a/b"\nIssues = "https://github.com/a/b/issues"\n',
            "a/b",
            {"Repository": "https://github.com/a/b", "Issues": "https://github.com/a/b/issues"},
        ),
    ],
)
def test_addresses_of_the_project_appear_in_header_and_footer(hooks, tmp_path, urls, name, links):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\n{urls}')
    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "nav": [{"Home": "index.md"}], "extra": {}})
    hooks.link_project(config, tmp_path)
    assert config.repo_url == links.get("Repository") and config.repo_name == name
    assert config.extra["links"] == links
    assert config.nav[1:] == [{name: link} for name, link in links.items() if name == "Issues"]
