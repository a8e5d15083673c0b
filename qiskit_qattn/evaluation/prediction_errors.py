"""How many characters and words a model gets wrong when it guesses the next character of a text."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from qiskit_qattn.errors import DataError, missing_dependency
from qiskit_qattn.evaluation.windows import spaced_windows
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.tokenizer import CharTokenizer

WINDOWS = 256
BATCH = 32  # windows a forward pass


@dataclass(frozen=True)
class PredictionErrors:
    """The share of characters and of words that are wrong.

    Attributes:
        character_error_rate: Character edits a character of the truth.
        word_error_rate: Word edits a word of the truth.
        windows: Over how many windows.
        characters: Characters of the truth in them.
        words: Words of the truth in them.
    """

    character_error_rate: float
    word_error_rate: float
    windows: int
    characters: int
    words: int

    def to_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def prediction_errors(
    model: GPT, tokenizer: CharTokenizer, tokens: Tensor, *, windows: int = WINDOWS
) -> PredictionErrors:
    r"""Compare a text with what the model holds for its likeliest next characters.

    In each window w of the held-out text, the model reads the true characters :math:`x_{\le t}` (teacher forcing) and
    predicts :math:`\hat y_t = \arg\max_c p(c \mid x_{\le t})` for the true next character :math:`y_t = x_{t+1}`, at
    every t = 1 … T. The predictions of a window, one after another, are a text :math:`\hat y_w`, and

    .. math:: \mathrm{CER} = \frac{\sum_w d(\hat y_w, y_w)}{\sum_w |y_w|}, \qquad
              \mathrm{WER} = \frac{\sum_w d(\mathrm{words}(\hat y_w), \mathrm{words}(y_w))}
                                  {\sum_w |\mathrm{words}(y_w)|}

    with d the Levenshtein distance, in characters or in words. Words are what white space separates; a window's edges
    cut words like white space does. The word error rate can exceed 1, where too many words are predicted.

    Nothing is drawn at random: the windows are evenly spaced, and equal probabilities go to the first character.

    Args:
        model: The model; it runs where its heads are, in evaluation mode.
        tokenizer: The model's.
        tokens: Held-out text, shape ``(N,)``.
        windows: How many windows of the model's ``block_size`` are read, which bounds the cost: all where there are
            fewer.

    Raises:
        DataError: For a text shorter than a window, or windows without a word.
        MissingDependencyError: If RapidFuzz is not installed.

    Source: edits over the length of the truth, as in Morris, Maier and Green, Interspeech 2004.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError as error:
        raise missing_dependency("rapidfuzz", "train") from error
    x, y = spaced_windows(tokens, model.config.block_size, windows)  # (W, T)
    pairs = [
        (tokenizer.decode(guess), tokenizer.decode(truth)) for guess, truth in zip(_greedy(model, x), y, strict=True)
    ]
    characters, words = sum(len(truth) for _, truth in pairs), sum(len(truth.split()) for _, truth in pairs)
    if not words:
        raise DataError(f"The {len(x)} windows of held-out text hold no word, so there is no word error rate.")
    character_edits = sum(Levenshtein.distance(guess, truth) for guess, truth in pairs)
    word_edits = sum(Levenshtein.distance(guess.split(), truth.split()) for guess, truth in pairs)
    return PredictionErrors(character_edits / characters, word_edits / words, len(x), characters, words)


@torch.no_grad()
def _greedy(model: GPT, x: Tensor) -> Tensor:
    """Return the likeliest next token after every prefix of every window, shape ``(W, T)``."""
    device, was_training = model.wte.weight.device, model.training
    model.eval()
    try:
        return torch.cat([model(batch.to(device))[0].argmax(-1).cpu() for batch in x.split(BATCH)])
    finally:
        model.train(was_training)
