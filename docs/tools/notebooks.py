"""Notebooks as pages: text as it is, code and outputs as fences, pictures as files beside the page."""

from __future__ import annotations

import base64
import re
import textwrap
from pathlib import Path

import nbformat

_CODE_OR_MATH = re.compile(r"(```.*?```|`[^`\n]+`)|\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
_HEADING = re.compile(r"^#+ (?:\d+ · )?(.+)$", re.MULTILINE)


def to_page(path: Path, repository: str = "") -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by their names.

    The first heading is followed by links to the notebook itself and, with a repository on GitHub, to Colab.
    """
    blocks: list[str] = []
    pictures: dict[str, bytes] = {}
    topic = path.stem
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            topic = (_HEADING.findall(cell.source) or [topic])[-1]
            blocks.append(_mathematics(cell.source))
            continue
        parts = [_fence(cell.source, "python")]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                width = output.metadata.get("image/png", {}).get("width") or int.from_bytes(pictures[name][16:20])
                parts.append(f'![{topic}]({name}){{ width="{width}" }}')
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(_fence(text, ".text .output"))
        block = "\n\n".join(parts)
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        blocks.append(_folded(block) if hidden else block)
    title, *rest = blocks[0].split("\n", 1)
    return "\n\n".join([title, _links(path.name, repository), *rest, *blocks[1:]]) + "\n", pictures


def _mathematics(text: str) -> str:
    """Return Markdown with Jupyter's dollars as the notation of the other pages."""

    def written(match: re.Match[str]) -> str:
        code, block, inline = match.groups()
        return code or (f"\n```math\n{block}\n```\n" if block else f"$`{' '.join(inline.split())}`$")

    return _CODE_OR_MATH.sub(written, text)


def _fence(text: str, kind: str) -> str:
    return f"````{{ {kind if kind.startswith('.') else '.' + kind} }}\n{text.rstrip()}\n````"


def _folded(block: str) -> str:
    return '??? success "Solution"\n\n' + textwrap.indent(block, "    ")


def _links(name: str, repository: str) -> str:
    links = [f'<a href="{name}" download>Download this notebook</a>']
    if repository.startswith("https://github.com/"):
        place = repository.removeprefix("https://github.com/").strip("/")
        colab = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}"
        links.append(f'<a href="{colab}">Open it in Colab</a>')
    return " · ".join(links)
