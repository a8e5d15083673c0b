from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.errors import ConfigError, UnknownNameError
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


def test_equal_configs_have_one_hash():
    labels = ["ZI", "IZ", "XX", "ZZ", "XI", "IX", "ZX", "XZ"]
    heads, n_head = ["zz:1,qisa:1", "classical:2"], 2
    settings = {**SMALL, "n_embd": 16, "num_qubits": 3, "n_head": n_head}
    first = GPTConfig(**{**settings, "heads": heads})
    second = GPTConfig(**{**settings, "heads": tuple(heads), "dropout": 0})
    assert first == second and hash(first) == hash(second) and len({first, second}) == 1
    assert first.heads == tuple(heads)
    small = {**settings, "num_qubits": 2, "heads": "zz:2"}
    given = [GPTConfig(**small, observables={"zz": kind(labels)}) for kind in (list, tuple)]
    assert given[0] == given[1] and len({*given, first}) == 2
    assert len({GPTConfig(), GPTConfig(n_layer=3), GPTConfig(heads="classical:4")}) == 3
    for other in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert other == first and hash(other) == hash(first)
    saved = json.loads(json.dumps(dataclasses.asdict(first)))
    assert saved["heads"] == heads and saved["observables"].keys() == {"zz", "qisa-v3"}
    assert GPTConfig(**saved) == first == dataclasses.replace(first)


def test_an_unknown_setting_is_told_the_known_ones(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"setting of GPTConfig: 'n_layers'. Did you mean 'n_layer'.*block_size"):
        GPTConfig(n_layers=2)
    with pytest.raises(UnknownNameError, match="'n_layers'"):
        dataclasses.replace(GPTConfig(), n_layers=2)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ({"n_embd": 2**20, "n_head": 4}, r"takes [\d,.]+ GiB, but this machine has [\d,.]+ GiB"),
        ({"vocab_size": 2**31 - 1}, "GiB"),
        ({"n_layer": 10_001}, "n_layer can be at most 10,000, got 10001"),
        ({"n_layer": 10**5000}, "n_layer can be at most 10,000, got a number of 16,610 bits"),
        ({"num_qubits": 31, "heads": "quadratic:4"}, "num_qubits can be at most 30"),
        ({"num_qubits": 30, "heads": "quadratic:4"}, "GiB"),
        ({"reps": 10**9}, "reps can be at most 1,000"),
        ({"observables": {"qisa": 5}}, "Pauli strings"),
        ({"observables": {"qisa": [5] * 32}}, "Pauli strings"),
        ({"observables": {"qisa": "Z" * 32}}, "Pauli strings"),
        ({"heads": "qisa:" + "9" * 5000}, "counts of at least 1"),
        ({"dropout": 10**5000}, "dropout"),
    ],
)
def test_a_shape_beyond_all_bounds_is_refused_before_anything_is_built(shape: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        GPTConfig(**shape)
