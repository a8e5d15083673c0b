"""How far two texts are apart, by four measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from qiskit_qattn.errors import missing_dependency


@dataclass(frozen=True)
class TextDifference:
    """The differences of two texts.

    Attributes:
        length: Characters of the longer text.
        hamming: Positions with different characters; what one text has beyond the other's end counts as different.
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
    try:
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError as error:
        raise missing_dependency("rapidfuzz", "train") from error
    length = max(len(first), len(second))
    hamming = length - sum(a == b for a, b in zip(first, second, strict=False))
    words, others = set(first.split()), set(second.split())
    return TextDifference(
        length=length,
        hamming=hamming,
        agreement=1 - hamming / length if length else 1.0,
        jaccard=len(words & others) / len(words | others) if words | others else 1.0,
        levenshtein=Levenshtein.distance(first, second),
    )
