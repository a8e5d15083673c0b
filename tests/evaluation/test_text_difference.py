from __future__ import annotations

import numpy as np
import pytest

from qiskit_qattn.evaluation.text_difference import text_difference


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
