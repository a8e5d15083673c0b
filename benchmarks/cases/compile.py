"""nanoGPT's CPU settings with two of four heads quantum, under ``torch.compile`` and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rows import Row, compared, duration
from steps import inference, make_model, random_tokens, training_step
from timing import Effort, interleave

from qiskit_qattn import GPT
from qiskit_qattn.training.config import resolve

_HEADS = "qisa:2,classical:2"


def measure(effort: Effort) -> Iterator[Row]:
    config = resolve({}, preset="nano")
    tokens, _ = random_tokens(config)
    passes: dict[str, Callable[[GPT], Callable[[], None]]] = {
        "training step": lambda model: training_step(model, config),
        "inference": lambda model: inference(model, tokens),
    }
    for name, make in passes.items():
        model = make_model(config, _HEADS)
        model.compile(fullgraph=True)
        compiled, begin = make(model), time.perf_counter()
        compiled()
        note = f"The first pass, in which torch compiles, took {duration(time.perf_counter() - begin)}."
        timings = interleave({"compiled": compiled, "eager": make(make_model(config, _HEADS))}, effort)
        case = f"nano, {name}, {_HEADS}, torch.compile"
        yield compared(case, timings, "compiled", "eager", None, "the same, eager", note)
