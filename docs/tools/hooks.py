"""What the site needs besides the pages in docs/: pages that live elsewhere, the command line's help, mathematics."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import typer
from mathml import MathExtension, display
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

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


@event_priority(100)  # before mkdocstrings, which reads the same settings
def on_config(config: MkDocsConfig) -> None:
    """Write mathematics as MathML, in pages and docstrings alike."""
    config.markdown_extensions.append(MathExtension())  # type: ignore[arg-type]  # Markdown takes instances too
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": display}]
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Publish pages that live outside docs/, and the help of ``qattn``."""
    root = Path(config.config_file_path).parent
    for path in sorted(path for pattern in PUBLISHED for path in root.glob(pattern)):
        files.append(File.generated(config, _place(path.relative_to(root).as_posix()), abs_src_path=str(path)))
    files.append(File.generated(config, "reference/cli.md", content=_command_line()))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Point the links of a page, which lead through the repository, to the places that the site has for them."""
    here = page.file.src_uri
    origins = {place: origin for origin, place in RENAMED.items()}
    home = origins.get(here, here) if page.file.generated_by else f"docs/{here}"

    def follow(match: re.Match[str]) -> str:
        target = _place(posixpath.normpath(posixpath.join(posixpath.dirname(home), match[1])))
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return _LINK.sub(follow, markdown)


def _place(path: str) -> str:
    """Return where the site has a file of the repository."""
    return RENAMED.get(path, path.removeprefix("docs/"))


def _command_line() -> str:
    """Return the help of every command as Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="qattn")
    text = get_docs_for_click(obj=command, ctx=context, name="qattn", title="Command line")
    return text.replace("][", "]\\[")  # no link
