"""Tokens per second of nanoGPT's GPU configuration: our GPT, nanoGPT's own model, and torch's own layers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from on_gpu.clock import Bench, Contender, milliseconds, ratio
from on_gpu.models import VOCAB_SIZE, Size, step
from qiskit_qattn.training.config import resolve

HEADER = ("model", "compiled", "step", "tokens/s", "of nanoGPT's or torch's layers")


class TorchLayers(nn.Module):
    """nanoGPT's architecture in ``torch.nn``'s transformer layers."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        model = size.config.model
        layer = nn.TransformerEncoderLayer(
            model.n_embd,
            model.n_head,
            model.mlp_width,
            model.dropout,
            functional.gelu,
            batch_first=True,
            norm_first=True,
            bias=model.bias,
        )
        self.wte = nn.Embedding(VOCAB_SIZE, model.n_embd)
        self.wpe = nn.Embedding(model.block_size, model.n_embd)
        self.dropout = nn.Dropout(model.dropout)
        last = nn.LayerNorm(model.n_embd, bias=model.bias)
        self.layers = nn.TransformerEncoder(layer, model.n_layer, last, enable_nested_tensor=False)
        self.lm_head = nn.Linear(model.n_embd, VOCAB_SIZE, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the mean cross-entropy."""
        steps = idx.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(steps, device=idx.device)
        x = self.dropout(self.wte(idx) + self.wpe(torch.arange(steps, device=idx.device)))
        logits = self.lm_head(self.layers(x, mask, is_causal=True))
        return logits, functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def nanogpt(size: Size, folder: Path | None) -> nn.Module:
    """Return the model of a clone of github.com/karpathy/nanoGPT.

    Raises:
        ImportError: If there is none.
    """
    if folder is None or not (folder / "model.py").is_file():
        raise ImportError("no model.py; give a clone of github.com/karpathy/nanoGPT by --nanogpt FOLDER")
    sys.path.insert(0, str(folder))
    try:
        import model as theirs
    finally:
        sys.path.remove(str(folder))
    names = ("n_layer", "n_head", "n_embd", "block_size", "dropout", "bias")
    shape = {name: getattr(size.config.model, name) for name in names}
    return theirs.GPT(theirs.GPTConfig(vocab_size=VOCAB_SIZE, **shape))


def measure(bench: Bench, folder: Path | None) -> Iterator[tuple[str, ...]]:
    """Yield the speed of each model, all with dropout, bfloat16 autocast, clipping and AdamW."""
    config = resolve({}, preset="nano-gpu")
    if bench.smoke:
        config = config.replace(
            n_layer=1, n_head=2, n_embd=16, block_size=8, batch_size=2, num_qubits=3, heads="qisa:2"
        )
    size = Size("nano-gpu", config, True, {}, 20.0)
    mixes = size.mixes()
    models: dict[str, Callable[[], nn.Module]] = {
        "ours, classical": lambda: size.model(mixes["classical"], bench.device),
        "nanoGPT's model": lambda: nanogpt(size, folder).to(bench.device),
        "torch's layers": lambda: TorchLayers(size).to(bench.device),
        "ours, half quantum": lambda: size.model(mixes["half"], bench.device),
        "ours, all quantum": lambda: size.model(mixes["all"], bench.device),
    }
    for compiled in (False, True):
        bench.start_afresh()
        contenders: dict[str, Contender] = {}
        for name, make in models.items():
            label = f"tokens/s, {name}, {'compiled' if compiled else 'eager'}"
            if not bench.has_time(label, size.compile_seconds if compiled else 3.0):
                continue
            if contender := bench.prepared(label, partial(step, make, size, bench, compiled=compiled)):
                contenders[name] = contender
        times = bench.times(contenders)
        base = times.get("nanoGPT's model", times.get("torch's layers"))
        tokens = config.batch_size * config.model.block_size
        for name, seconds in times.items():
            speed = f"{tokens / seconds:,.0f}"
            yield (name, "yes" if compiled else "no", milliseconds(seconds), speed, ratio(base, seconds))
