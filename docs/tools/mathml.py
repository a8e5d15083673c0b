"""LaTeX to MathML when the site is built, so that pages show mathematics without a network and without scripts.

The notation is the one that code hosts render by themselves: a fence named ``math``, and ``$`…`$`` within a line.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

_BAR = re.compile(r"<m[io][^>]*>(&#x(?:0007C|02016|02308|02309|027E8|027E9);)</m[io]>")
_NAME = re.compile(r"<mi>(\w{2,})</mi>")


def to_mathml(source: str, display: Literal["inline", "block"]) -> str:
    """Return LaTeX as MathML, with bars and brackets close to what they enclose and names such as exp upright."""
    text = convert(" ".join(source.split()), display=display)
    text = _BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', text)
    return _NAME.sub(r'<mi mathvariant="normal">\1</mi>', text)


def display(source: str, language: str, css_class: str, options: Any, md: Markdown, **_: Any) -> str:
    """Format a fence for SuperFences: mathematics on lines of its own."""
    return f'<p class="{css_class}">{to_mathml(source, "block")}</p>'


class _InlineMath(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        return self.md.htmlStash.store(to_mathml(m[1], "inline")), m.start(0), m.end(0)


class MathExtension(Extension):
    """Mathematics within a line."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Read ``$`…`$`` before code is read."""
        md.inlinePatterns.register(_InlineMath(r"\$`([^`]+)`\$", md), "math", 200)
