"""What all reports are made of: tables in Markdown, files, and the versions and machine of a result."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from qiskit_qattn import __version__
from qiskit_qattn.errors import missing_dependency
from qiskit_qattn.training.files import write_text
from qiskit_qattn.untrusted import one_line, printable

PACKAGES = ("torch", "qiskit", "qiskit-machine-learning", "accelerate", "numpy")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#161616}"
    "h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}img{max-width:100%}"
    "table{border-collapse:collapse;font-size:.9rem;margin:1rem 0;display:block;overflow-x:auto}"
    "th,td{border-bottom:1px solid #e0e0e0;padding:.2rem .8rem .2rem 0;"
    "text-align:left;vertical-align:top}code{background:#f4f4f4;padding:0 .2em;overflow-wrap:anywhere}"
    "pre{background:#f4f4f4;padding:.8rem;white-space:pre-wrap}"
    "@media(max-width:40rem){p:has(>img){overflow-x:auto}img{max-width:none;width:36rem}}"  # their letters stay legible
    "@media print{body{margin:0;max-width:none}}"
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""


def code(text: str) -> str:
    """Return a text as code in a line of Markdown, however many backticks it has."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Return a text as a block of code in Markdown."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def escaped(text: str) -> str:
    """Return a text as itself in a line of Markdown: nothing in it is a mark, a link or HTML."""
    return re.sub(r"([\\`*\[\]<>&]|(?<!\w)_|_(?!\w))", r"\\\1", one_line(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])


def pairs(values: Mapping[str, Any]) -> str:
    """Return a Markdown table of names and values, without those that are None or empty."""
    return table(
        ["", ""], [[escaped(name), code(str(value))] for name, value in values.items() if value not in (None, "")]
    )


def number(value: float | None, form: str) -> str:
    """Return a number in a format such as ``{:.4f}``, and a dash for None."""
    return "–" if value is None else form.format(value)


def heads_text(heads: str | Sequence[str]) -> str:
    """Return a model's ``heads`` as one string: those of all layers, or those of each layer."""
    return heads if isinstance(heads, str) else " | ".join(heads)


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header, restricted to the given columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_json(path: Path, value: Any) -> None:
    """Write plain values as a JSON file.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def html_page(title: str, markdown: str, images: Mapping[str, bytes]) -> str:
    """Return a Markdown document as one HTML page with its images inside; HTML in the text is shown, not used.

    Args:
        title: The page's title.
        markdown: The document.
        images: The content of the SVG images it shows, by the name that it shows them under.

    Raises:
        MissingDependencyError: If ``markdown-it-py``, which Rich needs, is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise missing_dependency("markdown-it-py", "train") from error
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, content in images.items():
        data = base64.b64encode(content).decode("ascii")
        body = body.replace(f'src="{name}"', f'src="data:image/svg+xml;base64,{data}"')
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)


def versions(packages: Sequence[str] = ()) -> dict[str, str | None]:
    """Return the versions of Python, of the packages that affect results and of more; None for one not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "qiskit-qattn": __version__}
    for package in (*PACKAGES, *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def machine() -> dict[str, Any]:
    """Return the properties of this machine that affect speed."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
