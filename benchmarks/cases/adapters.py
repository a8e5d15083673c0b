"""The training step of a pretrained model's adapters: a Llama of SmolLM2-135M's shape, adapters on q and v."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from rows import Row, at_most, compared
from timing import Effort, interleave
from transformers import LlamaConfig, LlamaForCausalLM

from qiskit_qattn.hf import add_adapters

BATCH, CONTEXT, QUBITS = 4, 64, 4
_GOALS = {"qisa": at_most(1.15), "unitary": None}


def smollm2() -> LlamaForCausalLM:
    """Return a model of SmolLM2-135M's shape with random weights, from a fixed seed."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    )


def training_step(kind: str) -> Callable[[], None]:
    """Return forward, backward and AdamW's step of the adapters of a kind."""
    model = add_adapters(smollm2(), kind, QUBITS, ["q_proj", "v_proj"]).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    tokens = torch.randint(49152, (BATCH, CONTEXT), generator=torch.Generator().manual_seed(1))

    def call() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def measure(effort: Effort) -> Iterator[Row]:
    timings = interleave({kind: training_step(kind) for kind in ("lora", *_GOALS)}, effort)
    for kind, goal in _GOALS.items():
        yield compared(f"SmolLM2-135M, training step of adapters, {kind}", timings, kind, "lora", goal, "lora")
