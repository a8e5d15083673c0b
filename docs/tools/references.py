"""References from docs/references.bib: a page of them, and links from wherever a page names an arXiv number or DOI."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pylatexenc.latex2text import LatexNodes2Text

_ENTRY = re.compile(r"^@(\w+)\{(\w+),\n(.*?)\n\}$|^% ([^\n]+)$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*?)\},?$", re.MULTILINE | re.DOTALL)
_SKIPPED = re.compile(r"<(a|pre|code|script|style|h[1-6]|title)\b.*?</\1>|<[^>]+>", re.DOTALL)
_NUMBER = re.compile(r"arXiv[:\s](\d{4}\.\d{4,5}|quant-ph/\d{7})(?:v\d+)?|doi\s(10\.\d{4,}/[\w./-]*\w)")


@dataclass(frozen=True)
class Reference:
    """One entry: its key, the heading it stands under, its fields without LaTeX, and its BibTeX."""

    key: str
    topic: str
    fields: Mapping[str, str]
    bibtex: str

    def page_entry(self, cited_in: str = "") -> str:
        """Return title, authors, where it was published, links and BibTeX as Markdown."""
        found = self.fields
        names = [" ".join(reversed(name.split(", "))) for name in found["author"].split(" and ")]
        where = found.get("journal") or found.get("booktitle") or found.get("howpublished")
        volume = " ".join(found[name] for name in ("volume", "pages") if name in found).replace(" ", ", ")
        place = " ".join(part for part in (f"*{where}*" if where else "", volume, f"({found['year']})") if part)
        place = ", ".join(names) + (". " if where else " ") + place
        links = {
            "arXiv " + found.get("eprint", ""): "https://arxiv.org/abs/" + found.get("eprint", ""),
            "DOI": "https://doi.org/" + found.get("doi", ""),
            "paper": found.get("url", ""),
        }
        known = [name in found for name in ("eprint", "doi", "url")]
        listed = " · ".join(f"[{text}]({links[text]})" for text, is_known in zip(links, known, strict=True) if is_known)
        cited = f"\n\nCited in {cited_in}." if cited_in else ""
        bibtex = "\n".join(f"    {line}" for line in ["```bibtex", *self.bibtex.splitlines(), "```"])
        return f'### {found["title"]} {{ #{self.key} }}\n\n{place}. {listed}{cited}\n\n??? quote "BibTeX"\n\n{bibtex}\n'


def read(text: str) -> list[Reference]:
    """Return the entries of a .bib file; a comment line is the heading of those below it."""
    entries, topic = [], ""
    for match in _ENTRY.finditer(text):
        if match[4]:
            topic = match[4]
            continue
        plain = LatexNodes2Text().latex_to_text
        fields = {name: " ".join(plain(value).split()) for name, value in _FIELD.findall(match[3])}
        fields |= {name: value.replace("--", "–") for name, value in fields.items() if name == "pages"}
        entries.append(Reference(match[2], topic, fields, match[0]))
    return entries


def page(references: list[Reference], cited_in: Mapping[str, str]) -> str:
    """Return all entries as Markdown, under their headings."""
    blocks, topic = [], None
    for reference in references:
        if reference.topic != topic:
            topic = reference.topic
            blocks.append(f"## {topic}\n")
        blocks.append(reference.page_entry(cited_in.get(reference.key, "")))
    return "\n".join(blocks)


def link_numbers(html: str, references: list[Reference], address: Callable[[str], str]) -> str:
    """Link arXiv numbers and DOIs in a page's text: to the entry here if there is one, else to the paper.

    Args:
        html: The page; links, code and headings in it are left alone.
        references: The entries.
        address: From a key to the address of its entry.
    """
    by_number = {each.fields[name]: each for each in references for name in ("eprint", "doi") if name in each.fields}

    def linked(match: re.Match[str]) -> str:
        reference = by_number.get(match[1] or match[2])
        if reference is None:
            place = f"https://arxiv.org/abs/{match[1]}" if match[1] else f"https://doi.org/{match[2]}"
            return f'<a href="{place}">{match[0]}</a>'
        title = reference.fields["title"].replace('"', "&quot;")
        return f'<a href="{address(reference.key)}" title="{title}">{match[0]}</a>'

    pieces, end = [], 0
    for skipped in _SKIPPED.finditer(html):
        pieces += [_NUMBER.sub(linked, html[end : skipped.start()]), skipped[0]]
        end = skipped.end()
    return "".join([*pieces, _NUMBER.sub(linked, html[end:])])


def citation(cff: Mapping[str, Any]) -> str:
    """Return a CITATION.cff as BibTeX."""
    authors = " and ".join(
        f"{each['family-names']}, {each['given-names']}" if "family-names" in each else f"{{{each['name']}}}"
        for each in cff["authors"]
    )
    fields = {
        "title": cff["title"],
        "author": authors,
        "version": cff["version"],
        "year": str(cff.get("date-released", ""))[:4],
        "doi": cff.get("doi", ""),
        "url": cff.get("repository-code", ""),
    }
    lines = [f"  {name:7} = {{{value}}}" for name, value in fields.items() if value]
    return "@software{qiskit_qattn,\n" + ",\n".join(lines) + "\n}"
