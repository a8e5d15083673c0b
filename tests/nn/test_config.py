from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT

SMALL: dict[str, Any] = {"n_layer": 2, "n_head": 1, "n_embd": 8, "block_size": 4, "heads": "classical:1"}


@pytest.mark.parametrize(("n_inner", "width"), [(None, 32), (1, 1), (21, 21)])
def test_the_width_of_the_mlp_is_a_setting_that_is_saved(n_inner: int | None, width: int, tmp_path: Path):
    model = GPT(GPTConfig(**SMALL, n_inner=n_inner))
    assert model.config.mlp_width == width
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if ".mlp." in name}
    assert set(shapes.values()) == {(width, 8), (8, width)}
    model.save_pretrained(tmp_path)
    assert GPT.from_pretrained(tmp_path).config == model.config


def test_a_model_that_was_saved_without_the_setting_has_the_standard_width(tmp_path: Path):
    GPT(GPTConfig(**SMALL)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["n_inner"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert GPT.from_pretrained(tmp_path).config.mlp_width == 32


@pytest.mark.parametrize("n_inner", [0, -1, 2.5, True, "4"])
def test_a_width_that_is_none_is_refused(n_inner: Any):
    with pytest.raises(ConfigError, match="n_inner"):
        GPTConfig(**SMALL, n_inner=n_inner)
