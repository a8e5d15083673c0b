"""What turns docstrings into Markdown, and LaTeX into MathML."""

from __future__ import annotations

import base64
import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from markdown import markdown

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x02\x80\x00\x00\x01\xe0"  # 640 × 480, without the rest
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
        ("As here::\n\n    leak()", "As here:\n\n    leak()"),
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


@pytest.mark.parametrize(
    ("source", "mark"),
    [
        (r"\big\lvert \langle m | x \rangle \big\rVert", "|</mo>"),  # latex2mathml knows no bars of a size
        (r"\cos x_i", "</mi><mspace"),
        (r"\log_2 n", "</msub><mspace"),
        (r"f(-x)", '<mo form="prefix">&#x02212;</mo>'),
        (r"a - x", "<mo>&#x02212;</mo>"),
    ],
)
def test_mathematics_is_spaced_as_by_tex(source, mark):
    text = load("mathml").to_mathml(source, "inline")
    assert mark in text and "\\" not in text


def test_formulas_side_by_side_may_stand_below_each_other():
    html = load("mathml").display(r"a = b, \qquad c = d", "math", "math", {}, None)
    assert html.count("<math") == 2 and "qquad" not in html


def test_code_in_a_line_stays_code():
    html = markdown("Two qubits have $`2^2`$ amplitudes, not `2**3`.", extensions=[load("mathml").MathExtension()])
    assert html.count("<math") == 1 and "<code>2**3</code>" in html


def test_a_notebook_is_a_page(tmp_path):
    picture = nbformat.v4.new_output(
        "display_data", {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}
    )
    shown = nbformat.v4.new_output("display_data", picture.data, metadata={"image/png": {"width": 320}})
    printed = nbformat.v4.new_output("stream", name="stdout", text="5 $\n")
    cells = [
        nbformat.v4.new_markdown_cell("# 1 · Title\n\nOf $2^n$, `$x$` and\n\n$$a\n= b$$"),
        nbformat.v4.new_code_cell("plot()", outputs=[printed, picture, shown]),
        nbformat.v4.new_code_cell("# Solution\n1", metadata={"jupyter": {"source_hidden": True}}),
    ]
    path = tmp_path / "03-x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    page, pictures = load("notebooks").to_page(path, "https://github.com/someone/project")
    assert pictures == {"03-x-1.png": PNG, "03-x-2.png": PNG}
    assert '![Title](03-x-1.png){ width="640" }' in page and '![Title](03-x-2.png){ width="320" }' in page
    assert "Of $`2^n`$, `$x$` and" in page and "```math\na\n= b\n```" in page
    assert "{ .python }\nplot()\n" in page and "{ .text .output }\n5 $\n" in page
    assert '??? success "Solution"\n\n    ````' in page
    assert "colab.research.google.com/github/someone/project/blob/main/notebooks/03-x.ipynb" in page
    assert "colab" not in load("notebooks").to_page(path)[0]
