"""Windows of a held-out text, evenly spaced: the same sample of it for every model and every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.training.data import sequential_batches


def spaced_windows(tokens: Tensor, block_size: int, count: int) -> tuple[Tensor, Tensor]:
    r"""Return ``count`` of the non-overlapping windows of a text, and the same windows one token later.

    Of the :math:`K = \lfloor (N - 1) / T \rfloor` windows those at :math:`\lfloor i K / W \rfloor`, i = 0 … W - 1, are
    taken: no chance is involved, and the whole text is covered. There are fewer where K < W: all of them.

    Args:
        tokens: The text, shape ``(N,)``.
        block_size: T.
        count: W.

    Returns:
        Tokens and the targets they shall predict, both of shape ``(min(W, K), T)``.

    Raises:
        ConfigError: For a count below one.
        DataError: For a text of fewer than T + 1 tokens.
    """
    if count < 1:
        raise ConfigError(f"The number of windows is {count}; it must be at least 1.")
    ((x, y),) = sequential_batches(tokens, len(tokens), block_size)  # (K, T)
    chosen = torch.arange(min(count, len(x))) * len(x) // min(count, len(x))  # (W,)
    return x[chosen], y[chosen]
