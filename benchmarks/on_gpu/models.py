"""GPTs with no, half and all heads quantum: step, inference and peak memory, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

import qiskit_qattn as qa
from on_gpu.clock import Bench, Call, Contender, milliseconds, ratio
from qiskit_qattn import GPT
from qiskit_qattn.training.acceleration import compile_model
from qiskit_qattn.training.config import TrainConfig, resolve
from qiskit_qattn.training.optimizer import clip_gradients, make_optimizer
from qiskit_qattn.training.task_loop import circuit_weights

VOCAB_SIZE = 65
HEADER = ("model", "way", "pass", "classical", "half quantum", "all quantum")
_Marks = tuple[float | None, float | None]  # half, all quantum


@dataclass(frozen=True)
class Size:
    """A model and its batch.

    Attributes:
        name: In the table.
        config: The settings; their heads are replaced.
        bf16: Whether passes run in bfloat16 autocast.
        marks: Bounds on ratios, by way and pass.
        compile_seconds: What compiling one pass of one model takes, about.
    """

    name: str
    config: TrainConfig
    bf16: bool
    marks: dict[tuple[str, str], _Marks]
    compile_seconds: float

    def model(self, heads: str, device: torch.device) -> GPT:
        """Return the model with weights of a fixed seed."""
        torch.manual_seed(0)
        return GPT(replace(self.config.replace(heads=heads).model, vocab_size=VOCAB_SIZE)).to(device)

    def tokens(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return a batch of inputs and targets, each ``(B, T)``."""
        shape = (self.config.batch_size, self.config.model.block_size + 1)
        tokens = torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(1)).to(device)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def mixes(self) -> dict[str, str]:
        """Return the heads of the three models."""
        count = self.config.model.n_head
        half = count // 2
        return {
            "classical": f"classical:{count}",
            "half": f"qisa:{half},classical:{count - half}",
            "all": f"qisa:{count}",
        }


def sizes(smoke: bool) -> list[Size]:
    """Return what is measured, most important first."""
    nano = resolve({}, preset="nano")
    if smoke:
        tiny = nano.replace(n_layer=1, n_head=2, n_embd=16, block_size=8, num_qubits=3, batch_size=2, heads="qisa:2")
        return [Size("tiny", tiny, True, {("compiled", "step"): (1.1, 1.15)}, 0.0)]
    gpt2 = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 256, "num_qubits": 6, "batch_size": 32}
    marks = {
        ("eager", "step"): (None, 1.5),
        ("compiled", "step"): (1.10, 1.15),
        ("compiled", "inference"): (1.15, 1.15),
        ("eager", "memory"): (None, 1.05),
        ("compiled", "memory"): (None, 1.05),
    }
    return [
        Size("GPT-2 size, batch 32, bf16", nano.replace(**gpt2, heads="qisa:12"), True, marks, 25.0),
        Size("nano, batch 12", nano, False, {("compiled", "step"): (1.25, 1.25)}, 10.0),
        Size("nano, batch 512, bf16", nano.replace(batch_size=512), True, {}, 10.0),
    ]


def step(build: Callable[[], nn.Module], size: Size, bench: Bench, *, compiled: bool) -> Call:
    """Return forward, backward, clipping and AdamW's step of a new model, as ``qattn train`` does them."""
    model, device = build(), bench.device
    optimizer = make_optimizer(model, circuit_weights(model), size.config)
    x, y = size.tokens(device)
    model.train()
    if compiled:
        compile_model(model, device)

    def call() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=size.bf16):
            _, loss = model(x, y)
        loss.backward()
        clip_gradients(optimizer, size.config)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def forward(build: Callable[[], nn.Module], size: Size, bench: Bench, *, compiled: bool) -> Call:
    """Return a pass of a new model's copy for inference."""
    twin, device = qa.inference(build()), bench.device
    x, _ = size.tokens(device)
    if compiled:
        compile_model(twin, device)

    @torch.no_grad()
    def call() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=size.bf16):
            twin(x)

    return call


PASSES: dict[str, Callable[..., Call]] = {"step": step, "inference": forward}


def measure(bench: Bench, way: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of all models, ``eager`` or ``compiled``."""
    for size in sizes(bench.smoke):
        for name, make in PASSES.items():
            label = f"{size.name}, {way} {name}"
            if not bench.has_time(label, 3 * size.compile_seconds if way == "compiled" else 5.0):
                continue
            bench.start_afresh()
            contenders: dict[str, Contender] = {}
            for mix, heads in size.mixes().items():
                made = partial(make, partial(size.model, heads, bench.device), size, bench, compiled=way == "compiled")
                if contender := bench.prepared(f"{label}, {mix}", made):
                    contenders[mix] = contender
            yield _row(size, way, name, bench.times(contenders), milliseconds)
            if name == "step":
                peaks = {mix: each.peak for mix, each in contenders.items()}
                yield _row(size, way, "memory", peaks, _gigabytes)
            contenders.clear()  # before the next are made


def _row(
    size: Size, way: str, name: str, found: Mapping[str, float | None], shown: Callable[[float | None], str]
) -> tuple[str, ...]:
    half, whole = size.marks.get((way, name), (None, None))
    base = found.get("classical")
    ratios = (ratio(found.get("half"), base, half), ratio(found.get("all"), base, whole))
    return (size.name, way, name, shown(base), *ratios)


def _gigabytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 1e9:.2f} GB"
