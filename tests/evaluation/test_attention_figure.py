from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.attention_figure import attention_figure
from qiskit_qattn.evaluation.attention_maps import AttentionMap, AttentionMaps
from qiskit_qattn.evaluation.drawing import drawn


def maps(*kinds: str, layers: int = 2, length: int = 5, batch: int = 2) -> AttentionMaps:
    """Return random causal maps."""
    found = []
    for layer in range(layers):
        for head, kind in enumerate(kinds):
            logits = torch.randn(batch, length, length).masked_fill(torch.ones(length, length).triu(1) > 0, -torch.inf)
            found.append(AttentionMap(layer, f"{layer}", head, kind, "torch", logits.softmax(-1)))
    return AttentionMaps(tuple(found))


def panels(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_images()]


def test_quantum_heads_are_beside_classical_ones():
    found = maps("classical", "qisa-v3", "rff")
    figure = attention_figure(found, list("abcde"), sequence=1)
    titles = [panel.get_title().split("\n")[0] for panel in panels(figure)]
    assert titles[:3] == ["head 1: qisa-v3", "head 0: classical", "head 2: rff"] and titles[3:] == titles[:3]
    image = panels(figure)[0].get_images()[0].get_array()
    assert image.mask[np.triu_indices(5, 1)].all() and not image.mask[np.tril_indices(5)].any()
    np.testing.assert_allclose(image.data[np.tril_indices(5)], found[1].weights[1].numpy()[np.tril_indices(5)])
    for axis in (panels(figure)[0].xaxis, panels(figure)[0].yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == list("abcde")


def test_colours_keep_their_order_in_grey():
    image = panels(attention_figure(maps("classical", layers=1), list("abcde")))[0].get_images()[0]
    rgb = image.to_rgba(np.linspace(0, 1, 64))[:, :3]
    grey = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey) < 0).all()  # darker where the weight is larger
    assert np.ptp(grey) > 0.6


def test_layers_may_have_different_numbers_of_heads_and_heads_without_weights():
    first, second = maps("qisa-v3", "classical", layers=1), maps("zz", layers=1)
    more = AttentionMap(1, "1", 0, "zz", "torch", second[0].weights)
    without = AttentionMap(1, "1", 1, "angle", "torch", None)
    assert len(panels(attention_figure(AttentionMaps((*first, more, without)), list("abcde")))) == 3
    with pytest.raises(ConfigError, match="No head has weights to draw"):
        attention_figure(AttentionMaps((without,)), list("abcde"))


@pytest.mark.parametrize("tokens", [["$x", "^", "_{", " ", "\n"], ["a" * 9, "ß", "字", "\x1b", "<b>"]])
def test_tokens_may_be_any_text(tokens: list[str]):
    figure = attention_figure(maps("qisa-v3", layers=1), tokens)
    svg = drawn(figure, "svg").decode("utf-8")
    assert svg.startswith("<?xml") and "\x1b" not in svg


def test_a_long_text_has_positions_for_labels():
    figure = attention_figure(maps("qisa-v3", layers=1, length=60, batch=1), ["a"] * 60)
    figure.savefig(io.BytesIO(), format="png")
    labels = [label.get_text() for label in panels(figure)[0].get_xticklabels()]
    assert "20" in labels and "a" not in labels


@pytest.mark.parametrize(
    ("tokens", "sequence", "told"), [("abcd", 0, "5 × 5, but there are 4"), ("abcde", 2, "There is no sequence 2")]
)
def test_what_does_not_fit_is_an_error(tokens: str, sequence: int, told: str):
    with pytest.raises(ConfigError, match=told):
        attention_figure(maps("qisa-v3"), list(tokens), sequence)
