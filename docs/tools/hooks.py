"""What the site needs besides docs/: pages that live elsewhere, notebooks, commands, references, mathematics."""

from __future__ import annotations

import base64
import posixpath
import re
import tomllib
from functools import cache
from pathlib import Path

import references
import typer
from mathml import MathExtension, display
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from notebooks import to_page
from qiskit_qattn.cli.app import app

PUBLISHED = (
    "*.md",
    "LICENSE",
    "benchmarks/*.md",
    "benchmarks/*.png",
    "benchmarks/peers/*.txt",
    "circuits/**/*.*",
    "notebooks/*.ipynb",
    "notebooks/*.md",
)
RENAMED = {"README.md": "overview.md"}  # docs/index.md is the first page
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_COMMAND = re.compile(r"^\* `([a-z][a-z-]*)`: ")


@event_priority(100)  # before mkdocstrings, which reads the same settings
def on_config(config: MkDocsConfig) -> None:
    """Write mathematics as MathML, in pages and docstrings alike, and link to where the project lives."""
    config.markdown_extensions.append(MathExtension())  # type: ignore[arg-type]  # Markdown takes instances too
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": display}]
    }
    config.theme.static_templates.discard("404.html")  # its links are those of a server's root
    link_project(config, _root(config))


def link_project(config: MkDocsConfig, root: Path) -> None:
    """Take the repository and the issues, for header and footer, from ``[project.urls]`` of pyproject.toml."""
    urls = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    if "Repository" in urls:
        config.repo_url = urls["Repository"]
        config.repo_name = "/".join(urls["Repository"].rstrip("/").split("/")[-2:])
    config.extra["links"] = {name: urls[name] for name in ("Repository", "Issues") if name in urls}
    if "Issues" in urls:
        config.nav.append({"Issues": urls["Issues"]})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Publish pages that live outside docs/, notebooks, the help of ``qattn``, and the font of formulas."""
    root = _root(config)
    for path in sorted(path for pattern in PUBLISHED for path in root.glob(pattern)):
        place = path.relative_to(root).as_posix()
        files.append(File.generated(config, RENAMED.get(place, place), abs_src_path=str(path)))
        if path.suffix == ".ipynb":
            page, pictures = to_page(path, config.repo_url or "")
            files.append(File.generated(config, _place(place), content=page))
            for name, picture in pictures.items():
                files.append(File.generated(config, f"notebooks/{name}", content=picture))
    files.append(File.generated(config, "reference/cli.md", content=_command_line()))
    files.append(File.generated(config, "stylesheets/formulas.css", content=_font(root)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Point the links of a page, which lead through the repository, to the places that the site has for them."""
    here = page.file.src_uri
    origins = {place: origin for origin, place in RENAMED.items()}
    home = origins.get(here, here) if page.file.generated_by else f"docs/{here}"

    def follow(match: re.Match[str]) -> str:
        target = _place(posixpath.normpath(posixpath.join(posixpath.dirname(home), match[1])))
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    if here == "references.md":
        markdown = markdown.replace("<!-- references -->", _references(_root(config)))
    return _LINK.sub(follow, markdown)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link the arXiv numbers of docstrings, help texts and pages to their references."""
    target = files.get_file_from_path("references.md")
    assert target is not None

    def address(key: str) -> str:
        return f"{target.url_relative_to(page.file)}#{key}"

    return references.link_numbers(html, _bibliography(_root(config)), address)


@cache
def _bibliography(root: Path) -> list[references.Reference]:
    return references.read((root / "docs/references.bib").read_text("utf-8"))


def _references(root: Path) -> str:
    """Return the list of references, each with the pages of docs/ that link to it."""
    entries = _bibliography(root)
    cited: dict[str, list[str]] = {entry.key: [] for entry in entries}
    for path in sorted((root / "docs").rglob("*.md")):
        text = path.read_text("utf-8")
        title = text.split("\n", 1)[0].removeprefix("# ")
        for key in set(re.findall(r"references\.md#(\w+)", text)):
            cited[key].append(f"[{title}]({path.relative_to(root / 'docs').as_posix()})")
    return references.page(entries, {key: ", ".join(pages) for key, pages in cited.items()})


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _place(path: str) -> str:
    """Return where the site has a file of the repository: notebooks are pages."""
    path = re.sub(r"\.ipynb$", ".md", path)
    return RENAMED.get(path, path.removeprefix("docs/"))


def _command_line() -> str:
    """Return the help of every command as Markdown."""
    command = typer.main.get_command(app)
    _shorten(command)
    context = typer.Context(command, info_name="qattn")
    text = get_docs_for_click(obj=command, ctx=context, name="qattn", title="Command line")
    lines, here = [], "qattn"
    for line in text.replace("][", "]\\[").split("\n"):  # no link
        if heading := re.fullmatch(r"#+ `(.+)`", line):
            here = heading[1].replace(" ", "-")
        lines.append(_COMMAND.sub(rf"* [`\1`](#{here}-\1): ", line))
    return "\n".join(lines)


def _shorten(command: object) -> None:
    """Let lists of commands show whole sentences, the first of each command's help."""
    for each in getattr(command, "commands", {}).values():
        each.short_help = " ".join((each.help or "").split("\n\n")[0].split())
        _shorten(each)


def _font(root: Path) -> str:
    """Return the style sheet of the font of formulas, with the font in it: some browsers load none from a file."""
    font = base64.b64encode((root / "docs/assets/formulas.woff2").read_bytes()).decode()
    return f'@font-face {{ font-family: Formulas; src: url("data:font/woff2;base64,{font}") format("woff2"); }}\n'
