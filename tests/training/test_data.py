from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qiskit_qattn.errors import ConfigError, DataError, TokenError
from qiskit_qattn.training.data import load_corpus, random_batch, sequential_batches, split_corpus
from qiskit_qattn.training.tokenizer import CharTokenizer

TEXT = "To be, or not to be, that is the question.\n" * 10


@pytest.mark.parametrize("length", [30, 101, 109, 110, 1000])
def test_the_splits_are_the_text_cut_once(length: int):
    text = (TEXT * 3)[:length]
    corpus = split_corpus(text, 2)
    assert corpus.tokenizer == CharTokenizer(text)
    assert corpus.train.dtype == corpus.val.dtype == torch.long
    assert len(corpus.train) == length * 9 // 10
    assert corpus.tokenizer.decode(torch.cat([corpus.train, corpus.val])) == text


def test_every_tenth_can_be_held_out_and_the_rest_is_trained_on():
    text = "".join(chr(ord("a") + i % 26) for i in range(203))
    found = [split_corpus(text, 4, split=split) for split in range(10)]
    held = torch.cat([corpus.val for corpus in reversed(found)])
    assert torch.equal(held, found[0].tokenizer.encode(text))
    for split, corpus in enumerate(found):
        before, after = len(text) * (9 - split) // 10, len(text) * (10 - split) // 10
        assert corpus.tokenizer.decode(corpus.train) == text[:before] + text[after:]
    assert torch.equal(found[0].train, split_corpus(text, 4).train)


def test_a_file_is_loaded(tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT)
    corpus = load_corpus(tmp_path / "text.txt", 16)
    assert corpus.tokenizer.decode(corpus.train) == TEXT[: len(TEXT) * 9 // 10]


def test_a_saved_tokenizer_keeps_its_ids():
    wide = CharTokenizer(TEXT + "@#")
    corpus = split_corpus(TEXT, 4, tokenizer=wide)
    assert corpus.tokenizer is wide
    assert torch.equal(corpus.train, wide.encode(TEXT)[: len(corpus.train)])
    with pytest.raises(TokenError, match="'T'"):
        split_corpus(TEXT, 4, tokenizer=CharTokenizer(TEXT.lower()))


def test_the_shortest_text_that_does():
    block_size = 7
    split_corpus("ab" * 5 * (block_size + 1), block_size)
    with pytest.raises(DataError, match=r"70 characters split into 63 .* and 7 .* block size of 7 needs at least 8"):
        split_corpus("ab" * 35, block_size)


@pytest.mark.parametrize("length", [1, 1000])
@pytest.mark.parametrize("tokenizer", [None, CharTokenizer("ab")])
def test_a_text_of_one_character_is_refused(length: int, tokenizer: CharTokenizer | None):
    with pytest.raises(DataError, match="one character 'a'"):
        split_corpus("a" * length, 4, tokenizer=tokenizer)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("block_size", [1, 5, 49])
def test_targets_are_inputs_one_later(batch_size: int, block_size: int, torch_seed: int):
    data = torch.arange(50)  # each token tells where it stands
    x, y = random_batch(data, batch_size, block_size, torch.Generator().manual_seed(torch_seed))
    assert x.shape == y.shape == (batch_size, block_size)
    assert x.is_contiguous() and y.is_contiguous()
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(block_size))


def test_every_window_is_drawn_and_none_beyond():
    x, y = random_batch(torch.arange(10), 1000, 3)
    assert set(x[:, 0].tolist()) == set(range(7))
    assert y.max() == 9


def test_a_seed_gives_the_same_batches():
    data = torch.arange(1000)

    def draw(seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [random_batch(data, 4, 8, generator)[0] for _ in range(3)]

    first, again, other = draw(1), draw(1), draw(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("length", [6, 7, 21, 25, 26, 27])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_exact_pass_sees_each_token_once(length: int, batch_size: int):
    block_size = 5
    batches = list(sequential_batches(torch.arange(length), batch_size, block_size))
    count = (length - 1) // block_size
    assert [len(x) for x, _ in batches] == [min(batch_size, count - i) for i in range(0, count, batch_size)]
    x, y = (torch.cat(part).flatten() for part in zip(*batches, strict=True))
    assert torch.equal(x, torch.arange(count * block_size))
    assert torch.equal(y, x + 1)


@pytest.mark.parametrize("batches", [random_batch, sequential_batches])
def test_impossible_sizes_are_refused_at_once(batches):
    data = torch.arange(8)
    batches(data, 1, 7)
    with pytest.raises(DataError, match="8 tokens were given; a block size of 8 needs at least 9"):
        batches(data, 1, 8)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        batches(data, 0, 4)
    with pytest.raises(ConfigError, match="block_size is -1"):
        batches(data, 1, -1)
