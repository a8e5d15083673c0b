from __future__ import annotations

import io
import json
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.checkpoint import (
    TrainLoss,
    TrainState,
    Validation,
    list_checkpoints,
    load_state,
    load_tensors,
    random_states,
    restore_random_states,
    save_checkpoint,
    save_model,
)
from qiskit_qattn.training.tokenizer import CharTokenizer

TENSORS: dict[str, Any] = {"optimizer": {}, "generator": torch.zeros(3), "random": [], "text": "", "scaler": None}


@pytest.fixture
def save(tmp_path: Path) -> Any:
    model = GPT(GPTConfig(vocab_size=3, block_size=4, n_layer=1, n_head=1, n_embd=8, heads="classical:1"))

    write = partial(save_model, model=model, tokenizer=CharTokenizer("abc"))

    def make(step: int) -> Path:
        state = TrainState(step=step, train=[TrainLoss(1, 0.1)], val=[Validation(0, None, 1 / 3, 2 / 3)], tokens=7)
        return save_checkpoint(tmp_path, write, state, TENSORS)

    return make


def test_what_was_saved_is_read(save: Any):
    path = save(5)
    state = load_state(path)
    assert (state.step, state.tokens, state.val[0].val_loss) == (5, 7, 1 / 3)
    assert torch.equal(load_tensors(path)["generator"], torch.zeros(3))
    assert GPT.from_pretrained(path / "model").config.n_embd == 8


def test_the_newest_two_stay_in_the_order_of_their_steps(save: Any, tmp_path: Path):
    for step in (8, 9, 10, 100):
        save(step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-10", "step-100"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage", b"PK\x03\x04 cut"])
def test_damaged_tensors_are_refused(save: Any, content: bytes):
    path = save(1)
    (path / "trainer.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-1.*trainer\.pt"):
        load_tensors(path)


def test_a_pickle_with_code_in_it_is_refused(save: Any):
    path = save(1)
    torch.save({**TENSORS, "text": Path("x")}, path / "trainer.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        load_tensors(path)


def test_foreign_tensors_are_refused(save: Any):
    path = save(1)
    torch.save({"weights": torch.zeros(2)}, path / "trainer.pt")
    with pytest.raises(CheckpointError, match="no trainer state"):
        load_tensors(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', '{"format": "qiskit-qattn/checkpoint"}'])
def test_a_foreign_state_is_refused(save: Any, content: str):
    path = save(1)
    (path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match="step-1"):
        load_state(path)


@pytest.mark.parametrize("part", ["val", "train"])
def test_a_state_with_a_missing_part_is_refused(save: Any, part: str):
    path = save(1)
    record = json.loads((path / "state.json").read_text())
    del record[part]
    (path / "state.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=f"is damaged: state.json: missing key '{part}'. Delete"):
        load_state(path)


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_restored_generators_repeat_themselves():
    draw()
    buffer = io.BytesIO()
    torch.save(random_states(), buffer)
    first = draw()
    buffer.seek(0)
    restore_random_states(torch.load(buffer, weights_only=True))
    assert draw() == first


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_of_a_model_have_the_mode_of_the_users_other_files(tmp_path: Path, umask: int):
    model = GPT(GPTConfig(vocab_size=3, block_size=4, n_layer=1, n_head=1, n_embd=8, heads="classical:1"))
    before = os.umask(umask)
    try:
        model.save_pretrained(tmp_path / "saved")
        write = partial(save_model, model=model, tokenizer=CharTokenizer("abc"))
        save_checkpoint(tmp_path, write, TrainState(step=1), TENSORS)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 + 6
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
