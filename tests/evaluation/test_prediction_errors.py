"""Error rates of predicted characters and words."""

import pytest
import torch
from torch import nn

from qiskit_qattn.errors import DataError
from qiskit_qattn.evaluation.prediction_errors import prediction_errors
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
    with pytest.raises(DataError, match="hold no word"):
        prediction_errors(oracle, tokenizer, tokenizer.encode(" \n" * 20))
