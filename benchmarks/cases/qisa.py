"""The model of QISA (six layers, one head, width 16, context 16, batch 1024): training step and inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rows import Row, at_most, compared
from steps import inference, make_model, random_tokens, training_step
from timing import Effort, interleave

import qiskit_qattn as qa
from qiskit_qattn.training.config import resolve

_CLASSICAL = "classical:1"


def measure(effort: Effort) -> Iterator[Row]:
    config = resolve({}, preset="qisa")
    heads = str(config.model.heads)
    tokens, _ = random_tokens(config)
    passes: dict[str, tuple[Callable[[str], Callable[[], None]], float]] = {
        "training step": (lambda kind: training_step(make_model(config, kind), config), 1.5),
        "inference": (lambda kind: inference(qa.inference(make_model(config, kind)), tokens), 1.25),
    }
    for name, (make, bound) in passes.items():
        timings = interleave({kind: make(kind) for kind in (_CLASSICAL, heads)}, effort)
        yield compared(f"qisa model, {name}", timings, heads, _CLASSICAL, at_most(bound))
