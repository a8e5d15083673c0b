from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qiskit_qattn.errors import CheckpointError, RunFolderError, TokenError
from qiskit_qattn.training.tokenizer import CharTokenizer


def random_text(rng: np.random.Generator, length: int) -> str:
    alphabet = list("abcXYZ ,.\n'éψ—𝔔")
    return "".join(rng.choice(alphabet, size=length))


def test_decode_undoes_encode(rng):
    for length in (1, 2, 17, 500):
        text = random_text(rng, length)
        tokenizer = CharTokenizer(text)
        ids = tokenizer.encode(text)
        assert ids.dtype == torch.long
        assert ids.shape == (length,)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids.tolist()) == text


def test_ids_are_the_places_in_the_sorted_set():
    tokenizer = CharTokenizer("hello𝔔 world")
    assert tokenizer.characters == " dehlorw𝔔"
    assert tokenizer.vocab_size == 9
    assert tokenizer.encode(tokenizer.characters).tolist() == list(range(9))


def test_the_order_of_the_text_does_not_matter():
    assert CharTokenizer("cab") == CharTokenizer("abcabc")
    assert hash(CharTokenizer("cab")) == hash(CharTokenizer("abc"))
    assert CharTokenizer("ab") != CharTokenizer("abc")


def test_empty_sequences_pass():
    tokenizer = CharTokenizer("ab")
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == torch.long
    assert tokenizer.decode([]) == ""


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(TokenError, match="at least one character"):
        CharTokenizer("")


def test_characters_outside_are_named_with_what_is_allowed():
    with pytest.raises(TokenError) as caught:
        CharTokenizer("abc\n").encode("a€b\tz€")
    assert "'\\t', 'z', '€'" in str(caught.value)
    assert repr("\nabc") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_strangers_are_cut_short():
    with pytest.raises(TokenError, match="and 15 more"):
        CharTokenizer("a").encode("bcdefghijklmnopqrstuvwxyz")


def test_a_lone_surrogate_is_a_stranger_like_any_other():
    with pytest.raises(TokenError, match="udcff"):
        CharTokenizer("a").encode("a\udcff")


@pytest.mark.parametrize("ids", [[0, 3], [-1], torch.tensor([5])])
def test_ids_outside_are_refused(ids):
    with pytest.raises(TokenError, match="ids 0 to 2"):
        CharTokenizer("abc").decode(ids)


def test_load_undoes_save(tmp_path: Path, rng):
    tokenizer = CharTokenizer(random_text(rng, 200))
    path = tmp_path / "run" / "tokenizer.json"
    tokenizer.save(path)
    assert CharTokenizer.load(path) == tokenizer
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.json"]


def test_a_failed_save_leaves_nothing(tmp_path: Path):
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(RunFolderError, match="Cannot write"):
        CharTokenizer("abc").save(tmp_path / "run" / "tokenizer.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunFolderError, match="Cannot write"):
        CharTokenizer("abc").save(tmp_path / "taken")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "taken"]


RECORD = {"format": "qiskit-qattn/char-tokenizer", "version": 1, "characters": "abc"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (json.dumps(RECORD).encode()[:-10], "not valid JSON"),
        (b"[1, 2]", "not a tokenizer of qiskit-qattn"),
        (json.dumps(RECORD | {"format": "other"}).encode(), "not a tokenizer of qiskit-qattn"),
        (json.dumps(RECORD | {"version": 2}).encode(), "version 2"),
        (json.dumps(RECORD | {"characters": "ba"}).encode(), "damaged"),
        (json.dumps(RECORD | {"characters": "aab"}).encode(), "damaged"),
        (json.dumps(RECORD | {"characters": ""}).encode(), "damaged"),
        (json.dumps(RECORD | {"characters": ["a"]}).encode(), "damaged"),
    ],
)
def test_a_corrupt_or_foreign_file_is_refused(tmp_path: Path, content: bytes, complaint: str):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        CharTokenizer.load(path)
    assert "tokenizer.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none\.json"):
        CharTokenizer.load(tmp_path / "none.json")
