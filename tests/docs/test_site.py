"""The documentation builds without a warning, needs no network, and has every public name."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import qiskit_qattn as qa

ROOT = Path(__file__).parents[2]


def pages(site):
    return {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in sorted(site.rglob("*.html"))}


def test_no_page_loads_anything_from_the_network(site):
    for name, html in pages(site).items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?((?:https?:)?//[^\s\">]+)", html)
        loaded += re.findall(r"<link[^>]*\shref=\"?((?:https?:)?//[^\s\">]+)", html)
        assert not loaded, name


def test_pages_have_titles_of_their_own(site):
    titles = [re.search(r"<title>(.*?)</title>", html)[1] for name, html in pages(site).items() if name != "404.html"]
    assert len(set(titles)) == len(titles) > 50
    assert all('references.html">Cite</a>' in html for html in pages(site).values())


def test_docstrings_leave_no_markup_of_other_tools(site):
    for name, html in pages(site).items():
        assert not re.search(r":(math|func|class|meth|attr|data|mod):|\.\. math::|\$<code>", html), name
    assert "<math" in (site / "heads.html").read_text("utf-8")


def test_the_reference_has_every_public_name(site):
    content = (site / "objects.inv").read_bytes()
    entries = zlib.decompress(content.split(b"\n", 4)[4]).decode().splitlines()
    documented = {entry.split()[0] for entry in entries}
    missing = {name for name in qa.__all__ if f"{getattr(qa, name).__module__}.{name}" not in documented}
    assert not missing


def test_notebooks_are_pages_with_their_outputs(site):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        html = (site / "notebooks" / f"{notebook.stem}.html").read_text("utf-8")
        assert f'href="{notebook.name}" download' in html.replace('=""', "")
        assert 'class="language-python highlight"' in html and "output highlight" in html
        pictures = re.findall(rf'src="({notebook.stem}-\d+\.png)"', html)
        assert pictures and all((site / "notebooks" / name).stat().st_size > 1000 for name in pictures)
        text = re.sub(r"(?s)<(pre|code|script).*?</\1>", "", html)
        assert ".ipynb)" not in text and not re.search(r"\$[^<$]*\$", text)


def test_the_search_reads_its_index_from_a_file(site):
    assert (site / "search" / "search_index.js").read_text("utf-8").startswith("var __index")
    assert "iframe-worker.js" in (site / "index.html").read_text("utf-8")


def test_the_command_line_has_every_command(site):
    html = (site / "reference" / "cli.html").read_text("utf-8")
    for command in ("train", "generate", "draw", "jobs-list"):
        assert f'id="qattn-{command}"' in html
    assert not re.search(r"<li>[^<]*<code>[a-z-]+</code>[^<]*\.\.\.", html), "a sentence is cut"
