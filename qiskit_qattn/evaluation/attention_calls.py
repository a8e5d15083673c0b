"""The weights of each call of attention in a model, taken while a block lasts; the model itself knows nothing of it.

Outside the block nothing is different: a fused kernel never forms the weights, and no flag asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.attention import CausalSelfAttention, attend
from qiskit_qattn.nn.head_kind import Score
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.kinds import parse_counts
from qiskit_qattn.nn.mixed_heads import MixedHeads
from qiskit_qattn.nn.placement import ran_on
from qiskit_qattn.nn.projected import ProjectedHeads

Attention = CausalSelfAttention | ProjectedHeads | nn.MultiheadAttention


@dataclass
class Call:
    """One call of an attention.

    Attributes:
        name: Its path in the model.
        kinds: The kind of each head.
        backends: Where the circuits of each kind ran; ``torch`` for a kind without.
        weights: The weights of each head after the softmax, shape ``(B, L, S)``; None for a head that mixes without
            weights.
    """

    name: str
    kinds: list[str]
    backends: dict[str, str] = field(default_factory=dict)
    weights: Sequence[Tensor | None] = ()


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Call]]:
    """Yield a list to which each call of attention that ends within the block is added.

    Raises:
        ConfigError: For a model without attention whose weights can be read.
    """
    found: dict[str, Any] = {name: part for name, part in model.named_modules() if isinstance(part, Attention)}
    if not found:
        raise ConfigError(
            f"{type(model).__name__} holds no attention whose weights can be read: no GPT, no MultiheadAttention, "
            f"no Hugging Face attention with heads of replace_attention()."
        )
    calls: list[Call] = []
    with ExitStack() as stack:
        stack.enter_context(plain_calls(model))
        for name, module in found.items():
            if isinstance(module, CausalSelfAttention):
                stack.enter_context(_watch_causal(name, module, calls))
            else:
                stack.enter_context(_watch_projected(name, module, calls))
        yield calls


@contextmanager
def plain_calls(model: nn.Module) -> Iterator[None]:
    """Have torch's encoder layers call their attention, and compiled modules run as they are written."""
    modules = list(model.modules())
    compiled = any("_orig_mod" in each._modules or each._compiled_call_impl is not None for each in modules)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager") if compiled else ExitStack():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _watch_causal(name: str, module: CausalSelfAttention, calls: list[Call]) -> Iterator[None]:
    """Take the weights of a GPT's attention, which forms them for each group of heads."""
    parts: dict[str, Tensor] = {}
    counts: dict[str, Counter[str]] = {}

    def weigh(part: str, q: Tensor, k: Tensor, v: Tensor, score: Score, real: Any = None, mix: Any = None) -> Tensor:
        seen = (
            None if real is None else real[:, None, None, :] & torch.ones(real.shape[1:] * 2).tril().bool().to(q.device)
        )
        _, weights = attend(q, k, v[..., :0], score, seen, causal=seen is None, need_weights=True)
        assert weights is not None
        parts[part] = weights
        return type(module)._attend(module, part, q, k, v, score, real, mix)

    def begin(*_: Any) -> None:
        parts.clear()
        counts.update(_computed(module))

    def end(*_: Any) -> None:
        kinds = [kind for kind, count in module.counts.items() for _ in range(count)]
        of_kind: dict[str, list[Tensor]] = {kind: list(parts[kind].unbind(1)) for kind in module.kinds if kind in parts}
        for group, names, _heads in module._linear_groups:
            each = parts[f"linear-{group}"].split([module.counts[kind] for kind in names], 1)
            of_kind |= {kind: list(weights.unbind(1)) for kind, weights in zip(names, each, strict=True)}
        weights = [each for kind, count in module.counts.items() for each in of_kind.get(kind, [None] * count)]
        calls.append(Call(name, kinds, _ran_on(module, counts), weights))

    handles = module.register_forward_pre_hook(begin), module.register_forward_hook(end)
    vars(module)["_attend"] = weigh
    try:
        yield
    finally:
        del vars(module)["_attend"]
        for handle in handles:
            handle.remove()


@contextmanager
def _watch_projected(name: str, module: nn.Module, calls: list[Call]) -> Iterator[None]:
    """Ask an attention that returns weights for those of each head; its caller gets what it asked for."""
    parameters = signature(type(module).forward).parameters
    wanted: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {}

    def begin(_: nn.Module, args: Any, kwargs: Any) -> Any:
        names = list(parameters)[1:]  # without self
        given = dict(zip(names, args, strict=False)) | kwargs
        wanted.append(given)
        counts.update(_computed(module))
        asked = given | {"need_weights": True}
        return (), asked | ({"average_attn_weights": False} if "average_attn_weights" in names else {})

    def end(_: nn.Module, args: Any, output: Any) -> Any:
        given = wanted.pop()
        y, weights = output
        heads = weights if weights.ndim == 4 else weights[None]  # without a batch, in torch's class
        calls.append(Call(name, _kinds(module), _ran_on(module, counts), heads.unbind(1)))
        if not given.get("need_weights", isinstance(module, nn.MultiheadAttention)):
            return _without_nan(y, weights, getattr(module, "out_proj", None)), None
        average = isinstance(module, nn.MultiheadAttention) and given.get("average_attn_weights", True)
        return y, weights.mean(-3) if average else weights

    handles = (
        module.register_forward_pre_hook(begin, with_kwargs=True),
        module.register_forward_hook(end),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_nan(y: Tensor, weights: Tensor, out_proj: nn.Module | None) -> Tensor:
    """Return an output with 0 from the heads where a row sees no key: there it is NaN if weights are asked for."""
    if not weights.isnan().any():
        return y
    bias = getattr(out_proj, "bias", None)
    return torch.where(y.isnan(), y.new_zeros(()) if bias is None else bias, y)


def _kinds(module: Any) -> list[str]:
    """Return the kind of each head."""
    if not isinstance(module, ProjectedHeads):
        return ["classical"] * module.num_heads
    listed = parse_counts(module.heads, module.num_heads, "heads")
    return [kind for kind, count in listed for _ in range(count)]


def _computed(module: nn.Module) -> dict[str, Counter[str]]:
    """Return how many calls of each kind's circuit each backend of a chain computed so far."""
    if not isinstance(module, MixedHeads):
        return {}
    return {kind: _calls(heads) for kind in module.counts if (heads := module.circuits(kind))}


def _calls(heads: Sequence[QuantumHead]) -> Counter[str]:
    return sum((Counter(head.ran_on) for head in heads), Counter())


def _ran_on(module: nn.Module, before: dict[str, Counter[str]]) -> dict[str, str]:
    """Return where each kind ran since ``before``."""
    if not isinstance(module, MixedHeads):
        return {"classical": "torch"}
    found = {}
    for kind in module.counts:
        if heads := module.circuits(kind):
            found[kind] = ran_on(dict(_calls(heads) - before[kind])) or heads[0].place.name
        else:  # a copy for inference has the circuit's unitary
            found[kind] = "torch" if module.kinds[kind].circuit is None else "statevector"
    return found
