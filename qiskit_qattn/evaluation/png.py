"""Figures that become PNG files without a display."""

from __future__ import annotations

import io
from typing import Any

from qiskit_qattn.errors import missing_dependency


def blank_figure(**options: Any) -> Any:
    """Return a matplotlib ``Figure``.

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


def png(figure: Any) -> bytes:
    """Return a figure as PNG, its axes without a frame above and to the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
