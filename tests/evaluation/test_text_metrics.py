"""Spaced windows, error rates of predictions, and differences of texts."""

import numpy as np
import pytest
import torch
from torch import nn

from qiskit_qattn.errors import ConfigError, DataError
from qiskit_qattn.evaluation.text_metrics import prediction_errors, spaced_windows, text_difference
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.tokenizer import CharTokenizer

TEXT = "to be or not to be, that is the question. "


class Oracle(GPT):
    """A model whose likeliest next character is read from a table: previous character → next."""

    def __init__(self, tokenizer, table, block_size):
        super().__init__(GPTConfig(tokenizer.vocab_size, block_size, 1, 1, 4, heads="classical:1"))
        self.table = nn.Parameter(torch.zeros(tokenizer.vocab_size, tokenizer.vocab_size))
        with torch.no_grad():
            for before, after in table.items():
                self.table[tokenizer.encode(before)[0], tokenizer.encode(after)[0]] = 1

    def forward(self, idx, targets=None, **options):
        return self.table[idx], None


def test_a_model_that_knows_the_text_makes_no_errors():
    text = "abcdef " * 20
    tokenizer = CharTokenizer(text)
    oracle = Oracle(tokenizer, dict(zip("abcdef ", "bcdef a", strict=True)), 7)
    found = prediction_errors(oracle, tokenizer, tokenizer.encode(text))
    assert (found.character_error_rate, found.word_error_rate) == (0, 0)
    assert (found.windows, found.characters, found.words) == (19, 133, 38)


def test_rates_are_edits_over_the_length_of_the_truth():
    text = "ab cd " * 10
    tokenizer = CharTokenizer(text)
    oracle = Oracle(tokenizer, {"a": "b", "b": " ", "c": "c", " ": "c", "d": " "}, 3)
    # the windows "b c" and "d a" are predicted as "b c" and "c c"
    found = prediction_errors(oracle, tokenizer, tokenizer.encode(text))
    assert found.windows == 19
    assert found.character_error_rate == pytest.approx(9 * 2 / 57)
    assert found.word_error_rate == pytest.approx(9 * 2 / 38)


def test_an_insertion_and_a_deletion_cost_less_than_all_the_places_they_shift():
    text = "abcdefghij" * 5
    tokenizer = CharTokenizer(text)
    late = Oracle(tokenizer, dict(zip("abcdefghij", "abcdefghij", strict=True)), 10)  # one character behind
    found = prediction_errors(late, tokenizer, tokenizer.encode(text))
    assert found.character_error_rate == pytest.approx(0.2)


def test_the_windows_bound_the_cost_and_nothing_is_random():
    tokenizer = CharTokenizer(TEXT)
    tokens = tokenizer.encode(TEXT * 20)
    model = GPT(GPTConfig(tokenizer.vocab_size, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2)).train()
    first = prediction_errors(model, tokenizer, tokens, windows=40)
    assert first == prediction_errors(model, tokenizer, tokens, windows=40)
    assert (first.windows, first.characters) == (40, 320)
    assert model.training
    assert set(first.to_dict()) == {"character_error_rate", "word_error_rate", "windows", "characters", "words"}


def test_a_text_without_words_has_no_word_error_rate():
    tokenizer = CharTokenizer("a \n")
    oracle = Oracle(tokenizer, {}, 4)
    with pytest.raises(DataError, match="contain no word"):
        prediction_errors(oracle, tokenizer, tokenizer.encode(" \n" * 20))


def test_windows_are_spread_over_the_whole_text_without_overlap():
    x, y = spaced_windows(torch.arange(101), 10, 4)
    assert x[:, 0].tolist() == [0, 20, 50, 70]
    assert x.shape == y.shape == (4, 10) and torch.equal(y, x + 1)


@pytest.mark.parametrize("count", [10, 11, 1000])
def test_a_short_text_is_read_whole(count):
    x, _ = spaced_windows(torch.arange(101), 10, count)
    assert torch.equal(x.flatten(), torch.arange(100))


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ConfigError, match="windows is 0; it must be at least 1"):
        spaced_windows(torch.arange(101), 10, 0)
    with pytest.raises(DataError, match="needs at least 11"):
        spaced_windows(torch.arange(10), 10, 4)


def test_known_texts():
    found = text_difference("to be or not", "to bee or no")
    assert (found.length, found.hamming, found.levenshtein) == (12, 7, 2)
    assert found.agreement == pytest.approx(5 / 12)
    assert found.jaccard == pytest.approx(2 / 6)


def test_texts_of_different_length():
    found = text_difference("abc", "abcde")
    assert (found.length, found.hamming, found.levenshtein, found.jaccard) == (5, 2, 2, 0.0)


@pytest.mark.parametrize("text", ["", " \n", "a", "the king, the king"])
def test_a_text_equals_itself(text: str):
    found = text_difference(text, text)
    assert (found.hamming, found.agreement, found.jaccard, found.levenshtein) == (0, 1.0, 1.0, 0)


def test_the_measures_are_symmetric_and_bounded(rng: np.random.Generator):
    for _ in range(50):
        a, b = ("".join(rng.choice(list("ab \n"), size=int(rng.integers(0, 30)))) for _ in range(2))
        found = text_difference(a, b)
        assert found == text_difference(b, a)
        assert abs(len(a) - len(b)) <= found.levenshtein <= found.hamming <= found.length
        assert 0 <= found.agreement <= 1
        assert 0 <= found.jaccard <= 1
