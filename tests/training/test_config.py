from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.training.config import RESUMABLE, TrainConfig, read_toml, resolve, resolve_resumed
from qiskit_qattn.training.files import write_text
from qiskit_qattn.training.presets import PRESETS


def test_nano_is_nanogpt_on_a_cpu_with_half_of_the_heads_quantum():
    config = resolve({})
    assert config == TrainConfig()
    model = config.model
    assert (config.preset, model.heads, model.num_qubits) == ("nano", "qisa:2,classical:2", 5)
    assert (model.block_size, model.n_layer, model.n_head, model.n_embd) == (64, 4, 4, 128)
    assert (config.batch_size, config.max_steps, config.warmup_steps) == (12, 2000, 100)
    assert (config.learning_rate, config.min_lr, config.beta2, config.weight_decay) == (1e-3, 1e-4, 0.99, 0.1)
    assert (model.dropout, model.bias, config.grad_clip) == (0.0, False, 1.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_names_its_folder(preset: str):
    config = resolve({}, preset=preset)
    assert config.preset == preset
    assert config.folder == Path("runs") / preset


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text(
        'preset = "qisa"\nn_head = 1\nn_layer = 2\nbatch_size = 7\nheads = ["qisa:1", "classical:1"]\ndropout = 0\n'
    )
    config = resolve({"batch_size": 5, "seed": None}, config_file=file)
    assert (config.preset, config.model.n_embd) == ("qisa", 16)
    assert (config.model.n_layer, config.model.heads, config.model.dropout) == (2, ("qisa:1", "classical:1"), 0.0)
    assert (config.batch_size, config.seed) == (5, 0)
    assert resolve({}, preset="smoke", config_file=file).model.n_embd == PRESETS["smoke"]["n_embd"]
    assert resolve({}, preset="smoke", config_file=file).model.n_layer == 2


def test_toml_survives_a_round_trip(tmp_path: Path):
    model = GPTConfig(n_layer=2, heads=("qisa:4", "classical:4"), num_qubits=None, n_inner=9)
    config = TrainConfig(model=model, sample_prompt='a "b"\n\\ é', learning_rate=3e-4, min_lr=1e-5)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert TrainConfig.from_dict(read_toml(tmp_path / "config.toml")) == config
    assert "out" not in tomllib.loads(config.to_toml())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("n_layer", 0, "at least 1"),
        ("n_layer", 2.0, "an integer"),
        ("n_layer", True, "an integer"),
        ("bias", 1, "True or False"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", 1e-5, "min_lr"),
        ("dropout", 1.5, "below 1"),
        ("data", 3, "a string"),
        ("heads", 4, "a string 'kind:count,…' or a list"),
        ("heads", [], "lists 0 layers"),
        ("mixed_precision", "fp8", "bf16"),
        ("preset", "nanno", "nano"),
        ("seed", -1, "at least 0"),
        *(
            (name, value, "finite")
            for name in ("temperature", "learning_rate")
            for value in (math.nan, math.inf, 10**400)
        ),
        ("beta1", 1.0, "at least 0 and below 1"),
        ("beta2", 1, "below 1"),
        ("threads", 1025, "at most 1024"),
    ],
)
def test_a_bad_value_says_what_is_allowed(name: str, value: Any, told: str):
    with pytest.raises(ConfigError, match=told):
        resolve({name: value})


def test_an_unknown_key_names_the_nearest(tmp_path: Path):
    (tmp_path / "run.toml").write_text("n_layers = 3\n")
    with pytest.raises(UnknownNameError, match="Did you mean 'n_layer'"):
        resolve({}, config_file=tmp_path / "run.toml")
    with pytest.raises(UnknownNameError, match="learning_rate"):
        resolve({"learnin_rate": 1.0})


@pytest.mark.parametrize("content", [b"n_layer = ", b"\xff\xfe\x00", b"n_layer = 1\nn_layer = 2\n"])
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_toml(tmp_path / "run.toml")


@pytest.mark.parametrize("preset", ['["a"]', "3", "[]", "false", '""', "{ a = 1 }"])
def test_a_preset_of_another_type_is_refused(tmp_path: Path, preset: str):
    (tmp_path / "run.toml").write_text(f"preset = {preset}\n")
    with pytest.raises(ConfigError, match="preset"):
        resolve({}, config_file=tmp_path / "run.toml")


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "run.toml")


def test_a_resumed_run_keeps_what_decides_its_losses():
    saved = resolve({"n_embd": 64}, preset="nano")
    assert resolve_resumed(saved, {"n_embd": 64, "max_steps": 9}, preset="nano").max_steps == 9
    for changed in ({"n_embd": 32}, {"seed": 1}, {"data": "other.txt"}):
        with pytest.raises(ConfigError, match="--resume cannot"):
            resolve_resumed(saved, changed)
    with pytest.raises(ConfigError, match="preset"):
        resolve_resumed(saved, {}, preset="smoke")
    assert {item.name for item in dataclasses.fields(TrainConfig)} >= RESUMABLE


def test_the_config_of_an_older_run_folder_is_read():
    """It holds every setting at its top level, and 0 where the model's own choice is taken."""
    text = """
preset = "nano"
data = "verse.txt"
n_layer = 1
n_head = 2
n_embd = 16
n_inner = 0
block_size = 8
dropout = 0.1
bias = true
heads = ["qisa:1,classical:1"]
num_qubits = 0
reps = 0
batch_size = 4
learning_rate = 0.002
"""
    config = TrainConfig.from_dict(tomllib.loads(text))
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "dropout": 0.1, "bias": True}
    assert config.model == GPTConfig(**shape, heads=("qisa:1,classical:1",), num_qubits=None, reps=None, n_inner=None)
    assert (config.data, config.batch_size, config.learning_rate, config.min_lr) == ("verse.txt", 4, 2e-3, 1e-4)


def test_what_the_settings_cannot_hold_is_refused():
    observables = {"qisa-v3": ["ZIII", "IZII", "IIZI", "IIIZ"]}
    model = GPTConfig(n_embd=8, n_head=2, heads="qisa:2", num_qubits=4, observables=observables)
    for own in (model, GPTConfig(reps=0)):
        with pytest.raises(ConfigError, match="cannot hold"):
            TrainConfig(model=own)


def test_a_model_is_stored_as_it_is_read_back():
    assert TrainConfig(model=GPTConfig(vocab_size=9, heads=["qisa:4"] * 4)) == resolve({"heads": ("qisa:4",) * 4})


@pytest.mark.parametrize("text", ["😀", "ψ", 'a"b\\c', "\x7f\x1b\r\n\t", "'''", '"""', "\u2028\x85", "# = []"])
def test_settings_in_toml_are_read_back_whatever_their_text(tmp_path: Path, text: str):
    config = resolve({"sample_prompt": text, "data": text, "out": "here", "heads": ["qisa:2,classical:2"] * 4})
    write_text(tmp_path / "config.toml", config.to_toml())
    assert resolve({"out": "here"}, config_file=tmp_path / "config.toml") == config


@pytest.mark.parametrize("text", ["😀", "😀🚀 \\😀", "\\\\ud83d\\\\ude00", "ψ"])
def test_settings_as_the_first_versions_wrote_them_are_read(tmp_path: Path, text: str):
    config = resolve({"sample_prompt": text, "data": text, "out": "here", "heads": ["qisa:2,classical:2"] * 4})
    lines = [f"{name} = {json.dumps(value)}" for name, value in config.to_dict().items() if name != "out"]
    (tmp_path / "config.toml").write_text("\n".join(lines), "ascii")
    assert resolve({"out": "here"}, config_file=tmp_path / "config.toml") == config


@pytest.mark.parametrize("name", ["sample_prompt", "data", "out", "backend", "trackers"])
@pytest.mark.parametrize("text", ["half \ud83d", os.fsdecode(b"caf\xe9.txt"), "a\0b", "x" * 5000])
def test_text_that_no_file_can_hold_is_refused(name: str, text: str):
    with pytest.raises(ConfigError, match=name) as error:
        resolve({name: text})
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n_embd": 2**20}, "GiB"),
        ({"n_layer": 10**9}, "n_layer can be at most 10,000"),
        ({"n_layer": 10**5000}, "n_layer can be at most 10,000"),
        ({"n_inner": 2**31 - 1}, "GiB"),
        ({"block_size": 2**31 - 1}, "GiB"),
        ({"num_qubits": 10**6, "heads": "quadratic:4"}, "num_qubits can be at most 30"),
        ({"num_qubits": 30, "heads": "quadratic:4"}, "GiB"),
        ({"reps": 10**9}, "reps can be at most 1,000"),
        ({"batch_size": 2**31 - 1}, r"A batch of 2,147,483,647 × 64 tokens of width 128 takes 65,536.0 GiB"),
        ({"max_steps": 10**30}, "max_steps"),
        ({"val_windows": 10**30}, "val_windows"),
        ({"seed": 2**32}, "seed"),
        ({"heads": "qisa:" + "9" * 5000}, "heads"),
        ({"n_head": -(10**5000)}, "n_head"),
        ({"mixed_precision": 10**5000}, "mixed_precision"),
    ],
)
def test_sizes_beyond_all_bounds_are_refused_at_once(settings: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        resolve(settings)


@pytest.mark.parametrize(
    "content", ["max_steps = " + "[" * 100_000, "max_steps = " + "9" * 5000, "data = '''\0'''", "out = [[[[{a=1}]]]]"]
)
def test_a_hostile_configuration_is_one_error(tmp_path: Path, content: str):
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(ConfigError) as error:
        resolve({}, config_file=tmp_path / "x.toml")
    assert len(str(error.value)) < 400
