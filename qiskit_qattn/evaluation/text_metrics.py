"""How text is measured: evenly spaced windows of it, errors of predicted characters, the distance of two texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from qiskit_qattn.errors import ConfigError, DataError, missing_dependency
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.training.data import sequential_batches
from qiskit_qattn.training.tokenizer import CharTokenizer

WINDOWS = 256
BATCH = 32  # windows per forward pass


def spaced_windows(tokens: Tensor, block_size: int, count: int) -> tuple[Tensor, Tensor]:
    r"""Return ``count`` of the non-overlapping windows of a text, and the same windows one token later.

    Of the :math:`K = \lfloor (N - 1) / T \rfloor` windows those at :math:`\lfloor i K / W \rfloor`, i = 0 … W - 1, are
    taken. The choice is deterministic, covers the text evenly, and is the same for every model and backend. Where
    K < W, all K windows are returned.

    Args:
        tokens: The text, shape ``(N,)``.
        block_size: T.
        count: W.

    Returns:
        Tokens and their targets, both of shape ``(min(W, K), T)``.

    Raises:
        ConfigError: For a count below one.
        DataError: For a text of fewer than T + 1 tokens.
    """
    if count < 1:
        raise ConfigError(f"The number of windows is {count}; it must be at least 1.")
    ((x, y),) = sequential_batches(tokens, len(tokens), block_size)  # (K, T)
    chosen = torch.arange(min(count, len(x))) * len(x) // min(count, len(x))  # (W,)
    return x[chosen], y[chosen]


@dataclass(frozen=True)
class PredictionErrors:
    """Error rates of predicted characters and words.

    Attributes:
        character_error_rate: Character edits per character of the true text.
        word_error_rate: Word edits per word of the true text.
        windows: Number of windows.
        characters: Number of true characters in them.
        words: Number of true words in them.
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
    r"""Compare a text with the model's most likely next characters.

    In each window w of the held-out text, the model reads the true characters :math:`x_{\le t}` (teacher forcing) and
    predicts :math:`\hat y_t = \arg\max_c p(c \mid x_{\le t})` for the true next character :math:`y_t = x_{t+1}`, at
    every t = 1 … T. The predictions of a window, concatenated, are a text :math:`\hat y_w`, and

    .. math:: \mathrm{CER} = \frac{\sum_w d(\hat y_w, y_w)}{\sum_w |y_w|}, \qquad
              \mathrm{WER} = \frac{\sum_w d(\mathrm{words}(\hat y_w), \mathrm{words}(y_w))}
                                  {\sum_w |\mathrm{words}(y_w)|}

    with d the Levenshtein distance, in characters or in words. Words are separated by white space and by the edges of
    a window. The word error rate exceeds 1 where many more words are predicted than there are.

    The result is deterministic: the windows are evenly spaced, and ties go to the first character.

    Args:
        model: The model; a copy for inference of it runs where its heads are.
        tokenizer: The model's tokenizer.
        tokens: Held-out text, shape ``(N,)``.
        windows: The largest number of windows of ``block_size`` tokens, which bounds the cost.

    Raises:
        DataError: For a text shorter than a window, or windows without a word.
        MissingDependencyError: If RapidFuzz is not installed.

    Source: edits over the length of the true text, as in Morris, Maier and Green, Interspeech 2004.
    """
    x, y = spaced_windows(tokens, model.config.block_size, windows)  # (W, T)
    predicted = [tokenizer.decode(row) for row in _greedy(model, x)]
    true = [tokenizer.decode(row) for row in y]
    characters, words = sum(map(len, true)), sum(len(text.split()) for text in true)
    if not words:
        raise DataError(f"The {len(x)} windows of held-out text contain no word, so the word error rate is undefined.")
    texts = list(zip(predicted, true, strict=True))
    character_edits = sum(_levenshtein(one, other) for one, other in texts)
    word_edits = sum(_levenshtein(one.split(), other.split()) for one, other in texts)
    return PredictionErrors(character_edits / characters, word_edits / words, len(x), characters, words)


@torch.no_grad()
def _greedy(model: GPT, x: Tensor) -> Tensor:
    """Return the most likely next token after every prefix of every window, shape ``(W, T)``."""
    device, model = model.wte.weight.device, inference(model)
    return torch.cat([model(batch.to(device))[0].argmax(-1).cpu() for batch in x.split(BATCH)])


@dataclass(frozen=True)
class TextDifference:
    """Four measures of the difference of two texts.

    Attributes:
        length: Characters of the longer text.
        hamming: Positions with different characters; those beyond the end of the shorter text count as different.
        agreement: Share of positions with the same character, 1 - hamming / length; 1 for two empty texts.
        jaccard: Words (split at white space) in both, over words in either; 1 for two texts without words.
        levenshtein: Fewest insertions, deletions and substitutions that turn one text into the other.
    """

    length: int
    hamming: int
    agreement: float
    jaccard: float
    levenshtein: int

    def to_dict(self) -> dict[str, float]:
        """Return the measures by name."""
        return asdict(self)


def text_difference(first: str, second: str) -> TextDifference:
    """Compare two texts.

    Raises:
        MissingDependencyError: If RapidFuzz is not installed.
    """
    length = max(len(first), len(second))
    hamming = length - sum(a == b for a, b in zip(first, second, strict=False))
    words, others = set(first.split()), set(second.split())
    return TextDifference(
        length=length,
        hamming=hamming,
        agreement=1 - hamming / length if length else 1.0,
        jaccard=len(words & others) / len(words | others) if words | others else 1.0,
        levenshtein=_levenshtein(first, second),
    )


def _levenshtein(first: str | list[str], second: str | list[str]) -> int:
    """Return the Levenshtein distance of two texts, or of two lists of words."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError as error:
        raise missing_dependency("rapidfuzz", "train") from error
    return int(Levenshtein.distance(first, second))
