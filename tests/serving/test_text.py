"""Tokens become text as they come: what is told in pieces is the text of all tokens, cut before a stop string."""

from __future__ import annotations

import pytest

from qiskit_qattn.serving.text import StopStrings, WindowDecoder


def decoder_of(tokenizer, prompt):
    return WindowDecoder(lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True), prompt)


def test_pieces_of_a_text_are_the_text_and_no_piece_ends_within_a_character(byte_tokenizer, rng):
    text = "Ärger: 👩‍🚀 日本 ñ — ok"
    tokens = byte_tokenizer.encode(text)
    for _ in range(20):
        cut = rng.integers(1, len(tokens))
        prompt = byte_tokenizer.decode(tokens[:cut])
        if prompt.endswith("\ufffd"):
            continue
        decoder = decoder_of(byte_tokenizer, tokens[:cut])
        pieces = [decoder.add(token) for token in tokens[cut:]]
        assert "".join(pieces) + decoder.end() == text[len(prompt) :]
        assert not any("\ufffd" in piece for piece in pieces)


def test_any_tokens_are_told_as_all_of_them_together(byte_tokenizer, rng):
    for _ in range(50):
        tokens = rng.integers(1, 300, size=40).tolist()
        decoder = decoder_of(byte_tokenizer, [])
        told = "".join(decoder.add(token) for token in tokens) + decoder.end()
        whole = byte_tokenizer.decode(tokens)
        # Of bytes that are no character a decoder writes one mark or several, by what is decoded with them.
        assert told.replace("\ufffd", "") == whole.replace("\ufffd", "")
        assert ("\ufffd" in told) == ("\ufffd" in whole)


def test_the_first_token_after_a_prompt_keeps_its_space():
    words = ["_the", "_king", "s", "_sleep"]

    def decode(tokens):  # as SentencePiece's: the space before the first word is left out
        return "".join(words[token] for token in tokens).replace("_", " ").removeprefix(" ")

    decoder = WindowDecoder(decode, [0])
    assert [decoder.add(token) for token in (1, 2, 3)] == [" king", "s", " sleep"]


@pytest.mark.parametrize("stop", [("ab",), ("aab", "ba"), ("abab", "bb"), ("aaa",), ("c",)])
def test_a_text_is_cut_before_the_first_stop_string_however_it_comes(stop, rng):
    for _ in range(100):
        text = "".join(rng.choice(list("ab"), size=12))
        cuts = sorted(rng.integers(0, 13, size=4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
        stops, told, read = StopStrings(stop), [], ""
        for piece in pieces:
            read += piece
            told.append(stops.add(piece))
            assert read.startswith("".join(told))
            if stops.found:
                break
        else:
            told.append(stops.end())
        found = [place for each in stop if (place := read.find(each)) >= 0]
        assert stops.found == bool(found)
        assert "".join(told) == (read[: min(found)] if found else text)


def test_only_what_may_begin_a_stop_string_is_held_back():
    stops = StopStrings(("END",))
    assert [stops.add(piece) for piece in ("the E", "vent ", "EN", "D now")] == ["the ", "Event ", "", ""]
    assert stops.found
    assert stops.end() == ""
