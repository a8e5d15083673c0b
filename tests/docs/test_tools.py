"""What turns docstrings into Markdown, and LaTeX into MathML."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from markdown import markdown

TOOLS = Path(__file__).parents[2] / "docs" / "tools"


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("docstring", "page"),
    [
        ("Return :math:`2^n` rows.", "Return $`2^n`$ rows."),
        ("As :func:`leakage` does.", "As `leakage` does."),
        ("See :class:`~a.b.Device` and :class:`a.b.Device`.", "See `Device` and `a.b.Device`."),
        (".. math:: a = b\n\nwith", "```math\na = b\n```\n\nwith"),
        ("Sum\n\n.. math:: a\n    + b\n\nand", "Sum\n\n```math\na\n    + b\n```\n\nand"),
    ],
)
def test_roles_and_mathematics_of_docstrings(docstring, page):
    assert load("docstrings").to_markdown(docstring) == page


@pytest.mark.parametrize(
    "source", [r"\sum_{j \le i} w_{ij} v_j", r"\langle 0 | E(x)^\dagger | 0 \rangle", r"\exp(-\lVert q\rVert^2)"]
)
def test_mathematics_is_well_formed_xml_and_says_how_it_stands(source):
    for display in ("inline", "block"):
        root = ET.fromstring(load("mathml").to_mathml(source, display))
        assert root.tag.endswith("}math") and root.get("display") == display


def test_code_in_a_line_stays_code():
    html = markdown("Two qubits have $`2^2`$ amplitudes, not `2**3`.", extensions=[load("mathml").MathExtension()])
    assert html.count("<math") == 1 and "<code>2**3</code>" in html
