"""Models of equal size: for each kind of head, the width of the MLP that balances the parameters of its heads.

The heads of a kind may have more or fewer parameters than the reference's. All kinds have the same depth, embedding,
number of heads and context; only ``n_inner``, the hidden width of the MLP, differs. The reference keeps its width, and
every other kind gets the width whose **total** number of parameters is nearest to the reference's. Totals include
frozen circuit weights: ``frozen`` and the kind it is derived from are the same network, and differ only in whether the
circuit is trained. The number of trainable parameters is reported too.

All counts are of models that are built, so they agree with what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.comparison.kinds import head_counts, kind_heads
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.task_loop import circuit_modules, circuit_weights, num_qubits
from qiskit_qattn.untrusted import as_type

TOLERANCE = 0.01  # largest deviation, as a share of the reference's parameters
_NO_EFFECT = 1024  # a width that adds no parameters up to here is taken to have no effect


@dataclass(frozen=True)
class Size:
    """The size of one kind's model.

    Attributes:
        kind: The kind of head.
        n_inner: Width of the MLP, or the width that a build function was given; 0 where it chose itself.
        num_qubits: Qubits of its circuits; 0 for a classical kind.
        total: Number of parameters.
        trainable: Number of those that are trained.
        circuit: Number of circuit angles among them.
        fixed: Number of values that are saved with the model but are no parameters, such as the random frequencies of
            ``rff``.
        deviation: total over the reference's total, minus 1.
    """

    kind: str
    n_inner: int
    num_qubits: int
    total: int
    trainable: int
    circuit: int
    fixed: int
    deviation: float = 0.0

    @property
    def matched(self) -> bool:
        """Whether it is within 1 % of the reference."""
        return abs(self.deviation) <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``matched`` as plain values."""
        return {**asdict(self), "matched": self.matched}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Size:
        """Return the size that :meth:`to_dict` wrote."""
        size: Size = as_type({name: value for name, value in values.items() if name != "matched"}, cls)
        return size


def kind_config(config: TrainConfig, kind: str, n_inner: int) -> TrainConfig:
    """Return the settings of a model whose heads are of one kind, or of one mix, with the given width of the MLP.

    A kind that encodes the whole token takes the smallest sufficient number of qubits where ``num_qubits`` is too few.
    """
    model = config.model
    qubits = model.num_qubits or 0  # 0: the fewest
    few = any(head_kind(name).encodes_token for name in head_counts(kind)) and 2**qubits < model.n_embd
    heads = kind_heads(kind, model.n_head)
    return config.replace(heads=heads, n_inner=n_inner, num_qubits=0 if few else qubits)


def match_sizes(config: TrainConfig, kinds: Iterable[str], reference: str, vocab_size: int) -> dict[str, Size]:
    """Return the sizes of all kinds, each with the MLP whose size is nearest to the reference.

    Args:
        config: The settings; its ``n_inner`` is the reference's.
        kinds: The kinds of head.
        reference: The kind that keeps its width.
        vocab_size: Number of tokens.
    """
    target = model_size(config, reference, config.model.n_inner or 0, vocab_size)
    return {kind: target if kind == reference else _match(config, kind, target, vocab_size) for kind in kinds}


def check_matched(sizes: Mapping[str, Size], reference: str) -> None:
    """Raise if a kind is not within 1 % of the reference, with the reasons.

    Raises:
        ConfigError: For the kinds that cannot be matched.
    """
    if reasons := unmatched(sizes):
        raise ConfigError(
            f"Not within {TOLERANCE:.0%} of the {sizes[reference].total:,} parameters of {reference}: "
            f"{'; '.join(reasons)}. Leave these kinds out, choose another --reference or --n-inner, or compare them "
            f"anyway with --allow-unmatched."
        )


def model_size(config: TrainConfig, kind: str, n_inner: int, vocab_size: int) -> Size:
    """Build the model of one kind, and return its size; global random generators are not changed."""
    found = kind_config(config, kind, n_inner)
    with torch.random.fork_rng(devices=[]):
        model = GPT(replace(found.model, vocab_size=vocab_size))
    return size_of(kind, model.config.mlp_width, model)


def size_of(kind: str, width: int, model: nn.Module) -> Size:
    """Return the size of a model, whatever it is."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    fixed = [
        value
        for name, value in model.state_dict().items()
        if name not in names and isinstance(value, torch.Tensor) and value.is_floating_point()
    ]
    return Size(
        kind=kind,
        n_inner=width,
        num_qubits=max(map(num_qubits, circuit_modules(model)), default=0),
        total=sum(weight.numel() for weight in model.parameters()),
        trainable=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        circuit=sum(weight.numel() for weight in circuit_weights(model)),
        fixed=sum(value.numel() for value in fixed),
    )


def match_width(sized: Callable[[int], Size], target: int) -> Size:
    """Return the size nearest to ``target`` parameters over widths from 1 on; they must grow with the width.

    Args:
        sized: Returns the size at a width.
        target: The number of parameters.
    """
    first = low = high = sized(1)
    while high.total < target and (high.total > first.total or high.n_inner < _NO_EFFECT):
        low, high = high, sized(2 * high.n_inner)
    while high.n_inner - low.n_inner > 1:
        middle = sized((low.n_inner + high.n_inner) // 2)
        low, high = (middle, high) if middle.total < target else (low, middle)
    return min(low, high, key=lambda size: abs(size.total - target))


def _match(config: TrainConfig, kind: str, target: Size, vocab_size: int) -> Size:
    """Return a kind's size at the width that is nearest to the target.

    Each unit of width adds the same number of parameters, so two models determine the width; a third is built and
    counted.
    """
    narrow, wide = (model_size(config, kind, width, vocab_size) for width in (1, max(2, target.n_inner)))
    per_unit = (wide.total - narrow.total) / (wide.n_inner - narrow.n_inner)
    width = max(1, 1 + round((target.total - narrow.total) / per_unit))
    found = model_size(config, kind, width, vocab_size)
    return replace(found, deviation=found.total / target.total - 1)


def unmatched(sizes: Mapping[str, Size], *, custom: bool = False) -> list[str]:
    """Return why kinds are not within 1 % of the reference, in words.

    Args:
        sizes: The sizes of all kinds.
        custom: Whether a user's build function builds the models.
    """
    width, narrowest = ("width", "at width 1") if custom else ("n_inner", "with the narrowest MLP")
    found = []
    for size in sizes.values():
        why = f"and a unit of {width} is a larger step than that"
        if not size.n_inner:
            why = "and the function takes no width"
        elif size.n_inner == 1 and size.deviation > 0:
            why = f"even {narrowest}"
        if not size.matched:
            found.append(f"{size.kind} has {size.total:,} ({size.deviation:+.1%}) {why}".replace(") and", "), and"))
    return found
