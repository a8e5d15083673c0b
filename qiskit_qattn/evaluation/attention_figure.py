"""Attention maps as a figure, small multiples of layers and heads, and as a record for CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.attention_maps import FIGURES, AttentionMap, AttentionMaps
from qiskit_qattn.evaluation.drawing import blank_figure, visible

COLUMNS = ("layer", "head", "kind", "quantum", "backend", *FIGURES)
_COLORS = "cividis_r"  # even in lightness, so that it prints in grey; the same with and without colour blindness
_UNSEEN = "#ffffff"
_MOST_LABELS = 48
_CELL, _MARGIN = 0.115, 0.55  # inches for a token's label, and beside the map


def attention_figure(maps: AttentionMaps, tokens: Sequence[str], sequence: int = 0) -> Any:
    """Return a matplotlib figure of the maps of one sequence: a row for each layer, quantum heads left of classical.

    The darker, the larger the weight; the scale is that of square roots, so that small weights are seen. Heads without
    weights are left out.

    Args:
        maps: What :func:`attention_maps` gave, or a selection of it.
        tokens: The text of each token.
        sequence: Which one of the batch.

    Raises:
        ConfigError: If no head has weights, for weights of another number of tokens, and for a sequence that is not
            there.
        MissingDependencyError: If matplotlib is not installed.
    """
    drawn = [each for each in maps if each.weights is not None]
    if not drawn:
        raise ConfigError("No head has weights to draw.")
    for each in drawn:
        _check(each, len(tokens), sequence)
    rows = [
        sorted((each for each in drawn if each.layer == layer), key=lambda each: not each.quantum)
        for layer in dict.fromkeys(each.layer for each in drawn)
    ]
    figure = blank_figure()
    from matplotlib import colormaps, colors

    columns = max(map(len, rows))
    size = max(1.3, min(len(tokens), _MOST_LABELS) * _CELL)
    figure.set_size_inches(columns * (size + 0.25) + 2 * _MARGIN + 0.5, len(rows) * (size + _MARGIN) + 0.9)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    palette = colormaps[_COLORS].with_extremes(bad=_UNSEEN)
    norm = colors.PowerNorm(0.5, 0, 1)
    for row, heads in zip(panels, rows, strict=True):
        for panel in row[len(heads) :]:
            panel.set_axis_off()
        for panel, each in zip(row, heads, strict=False):
            image = _draw(panel, each, tokens, sequence, palette, norm)
        row[0].set_ylabel(f"layer {heads[0].layer}\nquery", fontsize=8)
    for panel in panels[-1][: len(rows[-1])]:
        panel.set_xlabel("key", fontsize=8)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=30, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "0.01", "0.05", "0.1", "0.25", "0.5", "1"], fontsize=7)
    bar.set_label("weight", fontsize=8)
    bar.outline.set_linewidth(0.5)
    return figure


def _check(each: AttentionMap, length: int, sequence: int) -> None:
    assert each.weights is not None
    batch, rows, keys = each.weights.shape
    if (rows, keys) != (length, length):
        raise ConfigError(f"The map of {each.label} is {rows} × {keys}, but there are {length} tokens.")
    if not 0 <= sequence < batch:
        raise ConfigError(f"There is no sequence {sequence}; there are {batch}, from 0.")


def _draw(panel: Any, each: AttentionMap, tokens: Sequence[str], sequence: int, palette: Any, norm: Any) -> Any:
    """Draw one map; what a causal one does not see is white."""
    import numpy as np

    assert each.weights is not None
    weights = each.weights[sequence].double().cpu().numpy()
    if each.causal:
        weights = np.where(np.tri(len(weights), dtype=bool), weights, np.nan)
    image = panel.imshow(weights, palette, norm, interpolation="nearest")
    panel.set_title(
        f"head {each.head}: {each.kind}\n{'quantum' if each.quantum else 'no circuit'}, {_short(each.backend)}",
        fontsize=7,
        parse_math=False,
        fontweight="bold" if each.quantum else "normal",
    )
    panel.tick_params(length=2, width=0.5, pad=1, labelsize=6)
    if len(tokens) <= _MOST_LABELS:
        labels = [visible(token) for token in tokens]
        panel.set_xticks(range(len(labels)), labels, parse_math=False, rotation=90 if max(map(len, labels)) > 1 else 0)
        panel.set_yticks(range(len(labels)), labels, parse_math=False)
    for spine in panel.spines.values():
        spine.set_linewidth(0.5)
    return image


def _short(backend: str, most: int = 24) -> str:
    """Return a backend's name without its options, or cut off."""
    name = backend.split("?")[0]
    return name if len(name) <= most else f"{name[: most - 1]}…"


def attention_record(maps: AttentionMaps, tokens: Sequence[str], sequence: int = 0) -> dict[str, Any]:
    """Return the maps of one sequence and their figures as plain values."""
    heads = [
        {**row, "weights": None if each.weights is None else each.weights[sequence].tolist()}
        for row, each in zip(maps.figures(), maps, strict=True)
    ]
    return {
        "tokens": list(tokens),
        "heads": heads,
        "divergences": maps.divergences(),
        "quantum_from_classical": [
            {"layer": layer, "divergence": value} for layer, value in maps.quantum_from_classical().items()
        ],
    }
