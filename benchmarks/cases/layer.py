"""One attention layer alone: batch 1024, context 16, width 16, one head."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from rows import Row, at_most, compared
from steps import forward_backward, inference
from timing import Effort, interleave

import qiskit_qattn as qa
from qiskit_qattn import GPTConfig
from qiskit_qattn.nn.attention import CausalSelfAttention

BATCH, CONTEXT, WIDTH, QUBITS = 1024, 16, 16, 4
_HEADS = {"quantum": "qisa:1", "classical": "classical:1"}


def attention(heads: str) -> CausalSelfAttention:
    """Return a layer of one head, from a fixed seed."""
    torch.manual_seed(0)
    config = GPTConfig(n_layer=1, n_head=1, n_embd=WIDTH, block_size=CONTEXT, num_qubits=QUBITS, heads=heads)
    return CausalSelfAttention(config, config.layers()[0])


def measure(effort: Effort) -> Iterator[Row]:
    x = torch.randn(BATCH, CONTEXT, WIDTH, generator=torch.Generator().manual_seed(1))
    passes: dict[str, tuple[Callable[..., Callable[[], None]], float]] = {
        "forward and backward": (forward_backward, 2.5),
        "inference": (lambda module, x: inference(qa.inference(module), x), 2.0),
    }
    for name, (make, bound) in passes.items():
        timings = interleave({kind: make(attention(heads), x) for kind, heads in _HEADS.items()}, effort)
        yield compared(
            f"one attention layer, {name}", timings, "quantum", "classical", at_most(bound), "a classical head"
        )
