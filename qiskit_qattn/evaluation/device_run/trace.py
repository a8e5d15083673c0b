"""A generation whose circuits are watched: each token, its distribution, and what every head returned for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.values import Answer
from qiskit_qattn.nn.generation import steps
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.several import SharedProgram

SAMPLES = 64  # runs of the exact circuits with as many shots, for the error bars of tokens


@dataclass(frozen=True)
class HeadValues:
    """What the circuits of one kind of head in one layer returned in one pass.

    Attributes:
        layer: The layer.
        kind: The kind of its heads.
        values: Expectations, shape ``(H, K, M)``: K circuits of each of H heads, M observables.
        exact: What the exact engine returns for the same inputs and weights, of the same shape.
        errors: Standard errors that the backend gave, of the same shape; 0 where values are exact, NaN where it gave
            none.
    """

    layer: int
    kind: str
    values: np.ndarray
    exact: np.ndarray
    errors: np.ndarray


@dataclass
class Trace:
    """A watched generation of n tokens.

    Attributes:
        tokens: The tokens drawn.
        logits: The logits that they were drawn from, each of shape ``(vocab_size,)``.
        passes: For each token the values that the heads returned in the pass before it.
        metadata: The metadata of the backends' results, by PUB.
        programs: The programs that sent circuits to an estimator, by ``id``.
    """

    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    passes: list[list[HeadValues]] = field(default_factory=list)
    metadata: list[Mapping[str, Any]] = field(default_factory=list)
    programs: dict[int, PubProgram] = field(default_factory=dict)


def traced(
    model: GPT, prompt: Tensor, tokens: int, on_token: Callable[[Tensor], None] = lambda token: None, **options: Any
) -> Trace:
    """Generate as ``model.stream`` does, where the model's circuits run now, and watch them.

    Args:
        model: The model.
        prompt: Tokens, shape ``(1, P)``.
        tokens: How many to generate.
        on_token: Called with each token, shape ``(1, 1)``.
        options: ``temperature``, ``top_k`` and ``seed``, as for :func:`qiskit_qattn.nn.generation.stream`.

    Raises:
        ConfigError: For an option out of range.
        BackendError: As the model's backend raises it.
    """
    trace = Trace()
    found = steps(model, prompt, tokens, **options)  # checks the options
    with watched(model, trace):
        trace.passes.append([])
        for token, logits in found:
            trace.tokens.append(int(token))
            trace.logits.append(logits[0].double().cpu())
            trace.passes.append([])
            on_token(token)
    trace.passes.pop()
    return trace


def exact_run(model: GPT, prompt: Tensor, forced: Tensor, **options: Any) -> tuple[list[int], Tensor]:
    """Return what the exact engine draws after each prefix of a text, and its logits, shape ``(n, vocab_size)``.

    Args:
        model: The model, wherever it runs.
        prompt: Tokens, shape ``(1, P)``.
        forced: The tokens that follow in the text, shape ``(1, n)``.
        options: As for :func:`traced`.
    """
    with model.to_backend("statevector"):
        found = list(steps(model, prompt, forced.shape[1], forced=forced, **options))
    return [int(token) for token, _ in found], torch.cat([logits.double().cpu() for _, logits in found])


def sampled_runs(
    model: GPT,
    prompt: Tensor,
    forced: Tensor,
    *,
    shots: int,
    seed: int,
    on_token: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return the logits of :data:`SAMPLES` runs of the exact circuits with a number of shots, ``(n, S, vocab_size)``.

    Args:
        model: The model, wherever it runs.
        prompt: Tokens, shape ``(1, P)``.
        forced: The tokens that follow in the text, shape ``(1, n)``.
        shots: Per measurement basis.
        seed: Seed of the sampling.
        on_token: Called after each token of all runs.
    """
    found = []
    with sampled_steps(model, prompt, forced, shots=shots, seed=seed) as tokens:
        for _, logits in tokens:
            found.append(logits.double().cpu())
            on_token()
    return torch.stack(found)


@contextmanager
def sampled_steps(
    model: GPT, prompt: Tensor, forced: Tensor, *, shots: int, seed: int
) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Yield the tokens and logits of :func:`sampled_runs` one after another, as long as the block lasts."""
    with model.to_backend(f"statevector?shots={shots}&seed={seed}&dedupe=off"):  # each row has samples of its own
        rows = prompt.expand(SAMPLES, -1), forced.expand(SAMPLES, -1)
        yield steps(model, rows[0], forced.shape[1], seed=0, forced=rows[1])


@contextmanager
def watched(model: GPT, trace: Trace) -> Iterator[None]:
    """Record what the model's quantum heads return into the last pass of a trace, until the block ends."""
    with ExitStack() as stack:
        for layer, kind, head in model.quantum_heads():
            for program in _programs(head):
                program.answer = Answer()
            watch = _Watch(layer, kind, head.reference(), trace)
            stack.callback(head.register_forward_hook(watch, with_kwargs=True).remove)
        yield


@dataclass(frozen=True)
class _Watch:
    """A forward hook of a head."""

    layer: int
    kind: str
    reference: Callable[[Tensor], Tensor]
    trace: Trace

    @torch.no_grad()
    def __call__(
        self, head: QuantumHead, args: tuple[Tensor, ...], options: Mapping[str, Tensor], output: Tensor
    ) -> None:
        x, values = args[0], options["expectations"]  # (*heads, K, F) and (*heads, K, M)
        exact = self.reference(x).expand_as(values)
        errors = np.zeros((values[..., 0].numel(), values.shape[-1]))  # (N, M)
        for program in _programs(head):
            if program.answer.errors is not None:  # it answered this call, or its rows of one
                rows = _rows(head, program, len(errors))
                fit = len(rows) == len(program.answer.errors)  # not where it took over another device's rows
                errors[rows] = program.answer.errors if fit else np.nan
                self.trace.metadata += program.answer.metadata
                self.trace.programs[id(program)] = program
                program.answer = Answer()
        shape = (-1, *values.shape[-3:])  # queries, keys and values of a head belong together
        tables = (_array(values), _array(exact), errors.reshape(values.shape))
        each = (table.reshape(shape).swapaxes(0, 1).reshape(shape[1], -1, shape[-1]) for table in tables)
        self.trace.passes[-1].append(HeadValues(self.layer, self.kind, *each))


def _programs(head: QuantumHead) -> list[PubProgram]:
    """Return the programs of a head that send PUBs: one, or one for each such link of a chain."""
    program = head.execution.program
    return [] if program is None else [part for part in program.modules() if isinstance(part, PubProgram)]


def _rows(head: QuantumHead, program: PubProgram, count: int) -> np.ndarray:
    """Return which of the rows of the last call a program computed: all, or its share on one of several devices."""
    whole = head.execution.program
    for shared in whole.modules() if whole is not None else ():
        if isinstance(shared, SharedProgram):
            names = [name for i, name in enumerate(shared.names) if shared.link(i).program is program]
            if names:
                return np.flatnonzero(np.array(shared.audit.row_labels) == names[0])
    return np.arange(count)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
