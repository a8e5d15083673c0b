"""From a play in Markdown to plain text of the kind character models are trained on.

The layout read here is the one of the default corpus: ``#`` headings for the title, acts and scenes, a speaker
as a bold line, the speech below it with two trailing spaces for each line break, and stage directions in italics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SPEAKER = re.compile(r"^\*\*(.+?)\*\*$")
_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")
_NUMBERED_LIST = re.compile(r"^\d+\\?\.")
# In the order of trial: _text_ (also __text_), *text* but not **text**, and what an unbalanced mark leaves of [text]_.
_DIRECTION = re.compile(r"_+[^_]+_|(?<!\*)\*(?!\*)[^*]+\*(?!\*)|\\?\[[^]_]*[]_]+")
_ESCAPE = re.compile(r"\\([^\w\s])")
_ETCETERA = re.compile(r"&(?:amp;)?(?: &)? c\b", flags=re.IGNORECASE)
# Slips of the source, and the one typographic character in it: the other plays write the dash as two hyphens.
_REPAIRS = {"sha$l": "shall", "\N{EM DASH}": "--"}


def plain_text(markdown: str) -> str:
    r"""Return the speeches of a play as plain text.

    Each speech is a line ``NAME:``, written as the source has it, then its lines, then one blank line::

        **ROMEO**                     ROMEO:
        _\[Aside]_                    Shall I hear more,
        Shall I hear more,     ->     or shall I speak at this?
        or shall I speak at this?

    Titles, act and scene headings, stage directions and lists (an order of procession, say) are dropped, as they
    are in the well-known smaller Shakespeare corpus; a speech they interrupt goes on in one piece. The few lines
    between a heading and the first name that follows it go too. Backslash escapes are undone, ``& c`` and
    ``&amp; c`` become ``&c``, the em dash becomes ``--`` and one misprint is mended, so that only ASCII is left of
    an ASCII play. All else, spelling and capitals included, stays as it is.

    Args:
        markdown: One play.

    Returns:
        The speeches, with a newline at the end; the empty string where there are none.
    """
    for wrong, right in _REPAIRS.items():
        markdown = markdown.replace(wrong, right)
    return "\n".join(f"{name}:\n" + "\n".join(lines) + "\n" for name, lines in _speeches(markdown))


def _speeches(markdown: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (speaker, lines) for each speech that has lines."""
    name, lines = "", list[str]()
    for paragraph in _PARAGRAPH_BREAK.split(markdown):
        if paragraph.startswith("#"):
            if lines:
                yield name, lines
            name, lines = "", []  # what follows a heading belongs to nobody until someone speaks
            continue
        if _NUMBERED_LIST.match(paragraph):
            continue
        for line in _DIRECTION.sub("", paragraph).split("\n"):
            line = " ".join(_ETCETERA.sub("&c", _ESCAPE.sub(r"\1", line)).split())
            if speaker := _SPEAKER.match(line):
                if lines:
                    yield name, lines
                name, lines = speaker[1].replace(":", ""), []
            elif name and line:
                lines.append(line)
    if lines:
        yield name, lines
