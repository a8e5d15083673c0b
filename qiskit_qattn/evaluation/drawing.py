"""How all figures look, and the files they are written to: PNG for the report, PDF and SVG for a paper.

Colours are those of Okabe and Ito (Color Universal Design, 2008) that are dark enough for lines on white: they differ
with every kind of colour blindness. Line styles and markers tell the same things apart in grey print.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from qiskit_qattn.errors import missing_dependency
from qiskit_qattn.training.files import write_bytes, writing
from qiskit_qattn.untrusted import printable

INK, QUIET, FAINT = "#161616", "#6f6f6f", "#c6c6c6"  # text and exact values, references, and what is behind
GRID = {"color": "#e0e0e0", "linewidth": 0.8}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (9, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PAPER = "paper"  # the folder, in that of a report, of its vector graphics and LaTeX tables
_FONT = "DejaVu Sans"  # comes with matplotlib, and has the signs that labels use
_FORMATS = ("svg", "pdf")
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}


class Style(NamedTuple):
    """What tells a series from others: by colour, and without colour by the other two."""

    color: str
    linestyle: Any
    marker: str


def style(index: int) -> Style:
    """Return the style of the series of a number from 0 on; 30 have different colours or dashes."""
    return Style(*(each[index % len(each)] for each in (COLORS, DASHES, MARKERS)))


def ends_at(name: str, values: Any) -> str:
    """Return the label of a curve, with the number that it ends at."""
    return f"{name}: " + f"{values[-1]:.3f}".replace("-", "−")  # the minus of the axes


def blank_figure(**options: Any) -> Any:
    """Return a matplotlib ``Figure``, which needs no display.

    Args:
        options: As for ``Figure``.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_dependency("matplotlib", "train") from error
    return Figure(dpi=144, layout="constrained", **options)


def note(figure: Any, text: str) -> None:
    """Write below a figure, in a line, what may be concluded from it."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=QUIET)


def visible(token: str) -> str:
    """Return a token with its white space visible."""
    return printable(_VISIBLE.get(token, token))


def legend(axes: Any, *entries: Any, **options: Any) -> None:
    """Add a legend without a frame; no line of the grid runs through its text."""
    looks = {"fontsize": 8, "alignment": "left", "facecolor": "white", "edgecolor": "none", "framealpha": 0.85}
    axes.legend(*entries, **{**looks, **options})


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write figures by name into a folder: ``NAME.png``, and ``paper/NAME.svg`` and ``paper/NAME.pdf``.

    Raises:
        RunFolderError: If they cannot be written.
    """
    with writing(folder):
        (folder / PAPER).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_bytes(folder / f"{name}.png", drawn(figure, "png"))
        for form in _FORMATS:
            write_bytes(folder / PAPER / f"{name}.{form}", drawn(figure, form))  # type: ignore[arg-type]


def drawn(figure: Any, form: Literal["png", "svg", "pdf"]) -> bytes:
    """Return a figure in a format: numbers on axes are plain, and no file says when it was drawn."""
    import matplotlib

    for axes in figure.axes:
        axes.set_axisbelow(True)  # no line of the grid upon bars
        axes.spines[["top", "right"]].set_visible(False)
        for axis in (axes.xaxis, axes.yaxis):
            _make_plain(axis)
    buffer = io.BytesIO()
    dates: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    options: Any = {"svg.hashsalt": "qiskit-qattn", "font.family": _FONT, "pdf.fonttype": 42}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        figure.savefig(buffer, format=form, metadata=dates[form])
    figure.set_layout_engine("none")  # another layout would start from this one, and may shrink the axes to nothing
    return buffer.getvalue()


def _make_plain(axis: Any) -> None:
    """Write the numbers of an axis without powers of ten and without an offset."""
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    class Plain(LogFormatter):
        def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
            return f"{x:,.10f}".rstrip("0").rstrip(".")

    if axis.get_scale() == "log":
        if isinstance(axis.get_major_formatter(), LogFormatter):
            axis.set_major_formatter(Plain())
        if isinstance(axis.get_minor_formatter(), LogFormatter):
            axis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
    elif isinstance(formatter := axis.get_major_formatter(), ScalarFormatter):
        formatter.set_scientific(False)
        formatter.set_useOffset(False)
