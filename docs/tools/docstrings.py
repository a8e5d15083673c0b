"""Docstrings are written for Python's tools, with Sphinx's roles; the site's pages are Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(\w+):`~?([^`]+)`")
_DISPLAY = re.compile(r"^\.\. math::[ ]*((?:.+)(?:\n[ ]+.+)*)", re.MULTILINE)


def to_markdown(text: str) -> str:
    """Return a docstring with its mathematics as ``$`…`$`` and ``math`` fences, and other roles as code."""
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)  # what follows is indented, so code in Markdown too
    text = _DISPLAY.sub(lambda match: f"```math\n{match[1]}\n```", text)
    return _ROLE.sub(_inline, text)


def _inline(match: re.Match[str]) -> str:
    role, target = match[1], match[2]
    if role == "math":
        return f"$`{target}`$"
    return f"`{target.rsplit('.', 1)[-1] if match[0].startswith(f':{role}:`~') else target}`"


class Docstrings(Extension):
    """Rewrite every docstring that Griffe reads."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
