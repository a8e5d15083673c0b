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
_FUNCTION = r"<mi>(?:cos|exp|ln|log|sin|tan)</mi>"
_APPLIED = re.compile(rf"({_FUNCTION}|<msub>{_FUNCTION}<mn>2</mn></msub>)(?=<m(?:i|sub|sup|over|frac)>)")
_SIGN = re.compile(r"(<mo[^>]*>(?:&#x0(?:0028|003D|002C);|[(])</mo>)<mo>(&#x02212;)</mo>")
_SIZED_BAR = re.compile(r"(\\[bB]igg?)\\[lr](v|V)ert")


def to_mathml(source: str, display: Literal["inline", "block"]) -> str:
    """Return LaTeX as MathML, spaced as TeX does: bars close to what they enclose, signs close to their numbers."""
    source = _SIZED_BAR.sub(lambda match: match[1] + ("|" if match[2] == "v" else "‖"), " ".join(source.split()))
    text = convert(source, display=display)
    text = _BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', text)
    text = text.replace("<mo minsize=", '<mo lspace="0" rspace="0" minsize=')
    text = _SIGN.sub(r'\1<mo form="prefix">\2</mo>', text)
    text = _APPLIED.sub(r'\1<mspace width="0.17em"></mspace>', text)
    return _NAME.sub(r'<mi mathvariant="normal">\1</mi>', text)


def display(source: str, language: str, css_class: str, options: Any, md: Markdown, **_: Any) -> str:
    r"""Format a fence for SuperFences: mathematics on lines of its own, which a narrow page may break at ``\qquad``."""
    parts = "".join(to_mathml(part, "block") for part in source.split(r"\qquad"))
    return f'<div class="{css_class}">{parts}</div>'


class _InlineMath(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        return self.md.htmlStash.store(to_mathml(m[1], "inline")), m.start(0), m.end(0)


class MathExtension(Extension):
    """Mathematics within a line."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Read ``$`…`$`` before code is read."""
        md.inlinePatterns.register(_InlineMath(r"\$`([^`]+)`\$", md), "math", 200)
