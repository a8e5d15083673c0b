"""Generation of text with the key-value cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rows import Row, at_most, rate
from steps import make_model
from timing import Effort, interleave

from qiskit_qattn.training.config import resolve

_QUANTUM, _CLASSICAL = "qisa:2,classical:2", "classical:4"


def measure(effort: Effort) -> Iterator[Row]:
    config = resolve({}, preset="nano")
    tokens = config.model.block_size if effort.quick else 2 * config.model.block_size
    prompt = torch.zeros(1, 1, dtype=torch.long)
    models = {heads: make_model(config, heads) for heads in (_CLASSICAL, _QUANTUM)}
    timings = interleave(
        {heads: (lambda model=model: model.generate(prompt, tokens, seed=0)) for heads, model in models.items()}, effort
    )
    yield Row(
        f"nano, generation of {tokens} tokens, {_QUANTUM}",
        _CLASSICAL,
        rate(tokens / timings.spread(_QUANTUM).median, "tokens"),
        rate(tokens / timings.spread(_CLASSICAL).median, "tokens"),
        timings.ratio(_QUANTUM, _CLASSICAL),
        at_most(1.25),
    )
