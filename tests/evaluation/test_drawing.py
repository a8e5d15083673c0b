from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import qiskit_qattn
from qiskit_qattn.evaluation.drawing import (
    COLORS,
    FAINT,
    GRID,
    INK,
    QUIET,
    blank_figure,
    drawn,
    legend,
    note,
    style,
    write_figures,
)

START = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def plot(x: list[float], y: list[float], scale: str = "linear"):
    figure = blank_figure(figsize=(4, 3))
    axes = figure.add_subplot()
    axes.plot(x, y, label="a")
    axes.set_xscale(scale)
    axes.set_xlabel("x")
    return figure


def labels(figure) -> list[str]:
    """Return what is written at the ticks of the x axis."""
    drawn(figure, "png")
    return [text for tick in figure.axes[0].get_xticklabels(which="both") if (text := tick.get_text())]


def test_each_figure_is_a_png_beside_the_report_and_vector_graphics_for_a_paper(tmp_path: Path):
    write_figures(tmp_path / "new", {"one": plot([0, 1], [0, 1]), "two": plot([0, 2], [1, 0])})
    files = {path.relative_to(tmp_path / "new").as_posix(): path for path in (tmp_path / "new").rglob("*.*")}
    assert set(files) == {
        *("one.png", "two.png"),
        *(f"paper/{name}.{form}" for name in ("one", "two") for form in ("svg", "pdf")),
    }
    for name, path in files.items():
        assert path.read_bytes().startswith(START[name.rpartition(".")[2]])


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_figure_drawn_again_has_the_same_bytes(form):
    assert drawn(plot([0, 1], [0, 1]), form) == drawn(plot([0, 1], [0, 1]), form)


def test_a_pdf_has_one_font_and_embeds_it():
    figure = plot([1e-3, 1e5], [0, 1], "log")
    note(figure, "One seed.")
    fonts = set(re.findall(rb"/BaseFont /([\w+-]+)", drawn(figure, "pdf")))
    assert {name.rpartition(b"+")[2] for name in fonts} == {b"DejaVuSans"}


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("ends", [(1e-4, 1e-2), (1, 100_000), (1_000_000.1, 1_000_000.3), (20, 70)])
def test_numbers_on_axes_are_plain(scale: str, ends: tuple[float, float]):
    figure = plot(list(ends), [0, 1], scale)
    found = labels(figure)
    assert found and all(re.fullmatch(r"[−-]?[\d,]+(\.\d+)?", text) for text in found), found
    assert not figure.axes[0].xaxis.get_offset_text().get_text()


def test_no_line_of_the_grid_runs_through_a_legend():
    figure = plot([0, 1], [0, 1])
    figure.axes[0].grid(**GRID)
    legend(figure.axes[0])
    drawn(figure, "png")
    frame = figure.axes[0].get_legend().get_frame()
    assert frame.get_visible() and frame.get_facecolor()[:3] == (1, 1, 1) and frame.get_alpha() > 0.8
    package = Path(qiskit_qattn.__file__).parent
    bare = [path.name for path in package.rglob("*.py") if ".legend(" in path.read_text("utf-8")]
    assert bare == ["drawing.py"]


def luminance(color: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_lines_are_seen_on_white():
    for color in (*COLORS, QUIET, INK):
        assert 1.05 / (luminance(color) + 0.05) > 2.0, color
    assert luminance(GRID["color"]) > luminance(FAINT) > luminance(QUIET)


def seen(color: str, kind: str) -> np.ndarray:
    """Return a colour as somebody without one kind of cone sees it (Viénot, Brettel and Mollon 1999)."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    missing = {
        "protan": [[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]],
        "deutan": [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]],
    }[kind]
    return np.linalg.inv(lms) @ np.array(missing) @ lms @ rgb**2.2


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_colours_differ_without_a_kind_of_cone(kind: str):
    for one, other in itertools.combinations(COLORS, 2):
        assert np.abs(seen(one, kind) - seen(other, kind)).max() > 0.08, (one, other)


def test_styles_differ_without_colour():
    looks = [style(i) for i in range(30)]
    assert len({(look.color, str(look.linestyle)) for look in looks}) == 30
    for one, other in itertools.combinations(looks[:10], 2):
        assert (str(one.linestyle), one.marker) != (str(other.linestyle), other.marker)


def test_all_formats_of_a_figure_have_one_layout():
    figure = plot([0, 1], [0, 1])
    figure.axes[0].annotate("a long name beside it", (1, 1), xytext=(4, 3), textcoords="offset points")
    drawn(figure, "png")
    place = figure.axes[0].get_position().bounds
    for form in ("svg", "pdf", "png"):
        drawn(figure, form)
        assert figure.axes[0].get_position().bounds == place
