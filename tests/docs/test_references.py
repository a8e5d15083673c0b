"""References: every paper that is named has an entry, every head its source, and the package a citation."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OURS = {"All kinds", "What all kinds share", "probabilities", "The controls", "In torch's MultiheadAttention"}
_NUMBER = re.compile(
    r"(?:arXiv[:\s]+|arxiv\.org/abs/)(\d{4}\.\d{4,5}|quant-ph/\d{7})|(?:doi\s+|doi\.org/)(10\.\d{4,}/[\w./-]*\w)"
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("site_references", DOCS / "tools" / "references.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def entries(tool):
    return tool.read((DOCS / "references.bib").read_text("utf-8"))


def test_entries_are_whole(entries):
    text = (DOCS / "references.bib").read_text("utf-8")
    assert len(entries) == text.count("\n@") and len({entry.key for entry in entries}) == len(entries)
    for entry in entries:
        assert {"title", "author", "year"} <= set(entry.fields) and {"eprint", "doi", "url"} & set(entry.fields), (
            entry.key
        )
        assert entry.bibtex.count("{") == entry.bibtex.count("}"), entry.key
        assert not re.search(r"[{}\\]", "".join(entry.fields.values())), entry.key


def test_every_paper_that_is_named_has_an_entry(entries):
    known = {entry.fields.get(name) for entry in entries for name in ("eprint", "doi")}
    folders = [ROOT / name for name in ("docs", "qiskit_qattn", "benchmarks", "notebooks", "circuits")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".md", ".py", ".ipynb")]
    files += ROOT.glob("*.md")
    found = [(path, pair) for path in files for pair in _NUMBER.findall(path.read_text("utf-8"))]
    named = {arxiv or doi: path for path, (arxiv, doi) in found}
    assert len(named) > 20 and {number: path for number, path in named.items() if number not in known} == {}


def test_links_to_entries_lead_to_one_and_name_its_paper(entries):
    by_key = {entry.key: entry for entry in entries}
    for path in DOCS.rglob("*.md"):
        text = path.read_text("utf-8")
        for key in re.findall(r"references\.md#(\w+)", text):
            fields = by_key[key].fields
            assert any(fields.get(name, "none") in text for name in ("eprint", "doi", "url")), (path, key)


def test_every_head_names_its_source():
    sections = re.split(r"^## (.+)$", (DOCS / "heads.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    missing = [title for title, text in zip(sections[::2], sections[1::2], strict=True) if "references.md#" not in text]
    assert set(missing) <= OURS


def test_numbers_in_text_become_links_and_others_stay(tool, entries):
    html = "<p>By arXiv 2406.04305, arXiv 1234.56789; <a>arXiv 2406.04305</a> <code>arXiv 2406.04305</code></p>"
    linked = tool.link_numbers(html, entries, lambda key: f"../references.html#{key}")
    title = 'title="Quixer: A Quantum Transformer Model"'
    assert linked.count(f'<a href="../references.html#khatri2024quixer" {title}>arXiv 2406.04305</a>,') == 1
    assert '<a href="https://arxiv.org/abs/1234.56789">arXiv 1234.56789</a>' in linked and linked.count("<a ") == 2


def test_an_entry_is_shown_with_its_links_and_bibtex(entries):
    shown = next(entry for entry in entries if entry.key == "havlicek2019supervised").page_entry(
        "[The heads](heads.md)"
    )
    assert "{ #havlicek2019supervised }" in shown and "Vojtěch Havlíček, Antonio D. Córcoles" in shown
    assert "*Nature* 567, 209–212 (2019). [arXiv 1804.11326](https://arxiv.org/abs/1804.11326)" in shown
    assert "Cited in [The heads](heads.md)." in shown and "    @article{havlicek2019supervised," in shown


def test_the_citation_is_the_one_of_the_repository(tool):
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert f"```bibtex\n{tool.citation(cff)}\n```" in (DOCS / "references.md").read_text("utf-8")
    person = {"family-names": "Lovelace", "given-names": "Ada"}
    full = tool.citation(
        {**cff, "authors": [person], "date-released": "2027-01-02", "repository-code": "https://x.y/z"}
    )
    assert "{Lovelace, Ada}" in full and "year    = {2027}" in full and "url     = {https://x.y/z}" in full
