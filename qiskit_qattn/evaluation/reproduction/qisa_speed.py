"""QISA's slow-down table: one attention layer of each version, timed in turns with a classical one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import torch

from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.reproduction.runs import Options, Reproduction, shortened_note
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.inference import inference as fixed_copy
from qiskit_qattn.training.progress import Progress

ROUNDS = 20
WARM_UPS = 2


@dataclass(frozen=True)
class Size:
    """The inputs of the layer: batch, context and width."""

    batch: int = 1024
    context: int = 16
    width: int = 16


@dataclass(frozen=True)
class Published:
    """Published slow-downs of one version; None where none is published.

    Attributes:
        t4: Inference on a T4 GPU, from the paper.
        inference: Inference of the published code on two CPU cores.
        training: Forward and backward pass of the published code on two CPU cores.
    """

    t4: float | None = None
    inference: float | None = None
    training: float | None = None


VERSIONS = {
    "classical": ("classical", Published(1.0, 1.0, 1.0)),
    "qisa-v1": ("QISA v1", Published()),
    "qisa-v2": ("QISA v2", Published(46.7, 159.0, 41.0)),
    "qisa-v3": ("QISA v3", Published(8.9, 55.0, 13.2)),
}
PRECOMPUTED = ("QISA v3, precomputed", Published(2.1, 27.7))


def run(options: Options, progress: Progress) -> Reproduction:
    """Time the layers in turns; ``options.steps`` is the number of rounds."""
    size, rounds = Size(), options.steps or ROUNDS
    progress.message(f"{counted(rounds, 'round')} each of inference and training, {size.batch} × {size.context} tokens")
    torch.manual_seed(options.seed)
    x = torch.randn(size.batch, size.context, size.width)
    models = {name: layer(name, size) for name in VERSIONS}
    calls = {name: inference(model, x) for name, model in models.items()}
    calls["precomputed"] = inference(models["qisa-v3"], x, precomputed=True)
    tasks = {"inference": calls, "training": {name: training(model, x) for name, model in models.items()}}
    progress.forecast(lambda: [_round(calls) * (WARM_UPS + rounds) for calls in tasks.values()])
    seconds = {task: in_turns(calls, rounds, partial(progress.counted, task)) for task, calls in tasks.items()}
    ours = {task: {name: slow_down(found, name, "classical") for name in found} for task, found in seconds.items()}
    listed = {**VERSIONS, "precomputed": PRECOMPUTED}
    rows = [
        [
            label,
            _times(published.t4),
            _times(published.inference),
            _times(ours["inference"][name]),
            _times(published.training),
            _times(ours["training"].get(name)),
        ]
        for name, (label, published) in listed.items()
    ]
    return Reproduction(
        claim="qisa-speed",
        title="How much slower than classical attention QISA's layers are",
        source="QISA, arXiv 2603.03318 (T4 GPU); its code, timed on two CPU cores",
        head=[
            "Layer",
            "Published, inference, T4",
            "Published code, inference, CPU",
            "Ours, inference",
            "Published code, training, CPU",
            "Ours, training",
        ],
        rows=rows,
        reasons=[
            "Our figures are medians of the ratio to the classical layer, timed in turns on one machine. Ratios on a"
            " GPU and on a CPU are not comparable.",
            "The published code applies gates one by one to a complex state of all tokens, and evaluates the Pauli"
            " strings one by one. Ours multiplies all gates and measurement bases into one real matrix; the strings are"
            " chosen so that few bases measure them all.",
            "Precomputed: everything that does not depend on data is formed once, in ours by `qa.inference`. Without it"
            " ours still reuses the circuit's matrix until a weight changes, so the two are close; in training it"
            " changes in every step.",
            "Training is one forward and backward pass, without the optimizer. Versions 1 and 2 use the score of the"
            " paper, exp of the negative squared distance before the softmax, which the fused attention kernel of the"
            " others does not support.",
        ],
        figures={**ours, "seconds": {task: {n: min(s) for n, s in found.items()} for task, found in seconds.items()}},
        settings={**asdict(size), "rounds": rounds, "threads": torch.get_num_threads(), "seed": options.seed},
        shortened=shortened_note(options.steps, ROUNDS, "rounds of timing"),
    )


def layer(kind: str, size: Size) -> GPT:
    """Return a model of one block, whose attention has one head of a kind."""
    config = GPTConfig(
        vocab_size=2,
        block_size=size.context,
        n_layer=1,
        n_head=1,
        n_embd=size.width,
        heads=f"{kind}:1",
        num_qubits=None,
    )
    return GPT(config).eval()


def inference(model: GPT, x: torch.Tensor, *, precomputed: bool = False) -> Callable[[], None]:
    """Return a call of the attention of x, shape ``(B, T, d)``, or of that of the model's copy for inference."""
    attention = (fixed_copy(model) if precomputed else model).attention_layers()[0]

    @torch.no_grad()
    def call() -> None:
        attention(x)

    return call


def training(model: GPT, x: torch.Tensor) -> Callable[[], None]:
    """Return a call of a forward and backward pass of the attention of x, with gradients of weights and inputs."""
    attention, inputs = model.attention_layers()[0], x.clone().requires_grad_()

    def call() -> None:
        attention(inputs).sum().backward()

    return call


def _round(calls: Mapping[str, Callable[[], object]]) -> float:
    """Return the seconds of a round, the second one, since caches are filled in the first."""
    begin = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        for call in calls.values():
            call()
    return time.perf_counter() - begin


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    on_round: Callable[[int, int], None] = lambda done, rounds: None,
) -> dict[str, list[float]]:
    """Return the seconds of each call in each round, so that load on the machine slows all calls alike.

    Every other round runs in reverse order.

    Args:
        calls: The calls by name.
        rounds: How many rounds are timed.
        on_round: Called before the first round and after each, with how many of them are done.
    """
    for call in list(calls.values()) * WARM_UPS:
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    on_round(0, rounds)
    for index in range(rounds):
        for name in list(calls)[:: 1 if index % 2 == 0 else -1]:
            begin = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - begin)
        on_round(index + 1, rounds)
    return seconds


def slow_down(seconds: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Return the ratio of a call's time to that of the reference, the median over rounds."""
    return median(a / b for a, b in zip(seconds[name], seconds[reference], strict=True))


def _times(value: float | None) -> str:
    return "–" if value is None else "1" if value == 1 else f"{value:.3g} ×"
