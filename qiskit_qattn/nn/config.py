"""GPTConfig: the shape of a model, checked when it is made."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from qiskit_qattn.errors import ConfigError, counted, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import ALIASES, attention_circuit
from qiskit_qattn.nn.head_kind import HeadKind, HeadShape
from qiskit_qattn.nn.kinds import head_circuit, head_kind, parse_heads
from qiskit_qattn.nn.sampling import Scheme
from qiskit_qattn.untrusted import shown

LARGEST = 2**31 - 1  # of a whole number
_PROJECTED_SPREAD = 0.5**0.5  # of linear values at the initialisation of torch's attention, for tokens of spread 1
_MOST = {"n_layer": 10_000, "num_qubits": 30, "reps": 1_000}


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a :class:`GPT`. Names and defaults follow nanoGPT.

    Lists become tuples; configs of equal fields are equal and have one hash. Weights that do not fit in this machine's
    memory are refused with their size, before anything is built.

    Attributes:
        vocab_size: Number of tokens.
        block_size: Longest context, in tokens.
        n_layer: Number of blocks.
        n_head: Heads per block.
        n_embd: Width d; the head size is ``n_embd // n_head``.
        n_inner: Width of the MLP between its two maps; None takes GPT-2's, ``4 * n_embd``.
        dropout: Probability of dropping a value, in training.
        bias: Whether linear maps and layer norms have a bias.
        heads: ``kind:count,…`` that sums to ``n_head``, or a sequence of such strings, one per layer.
        num_qubits: Qubits of every circuit; None takes the fewest: ⌈log₂ head size⌉, or ⌈log₂ n_embd⌉ for kinds that
            encode the whole token.
        reps: Ansatz layers of every circuit; None takes each kind's own.
        observables: The Pauli strings each kind measures, filled in when left None and saved with the model, so that a
            reloaded model measures the same.
        sampling: How attention is sampled, such as ``stratified?samples=32``; None for exact attention.
    """

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False
    heads: str | Sequence[str] = "qisa:2,classical:2"
    num_qubits: int | None = 5
    reps: int | None = None
    observables: Mapping[str, Sequence[str]] | None = None
    n_inner: int | None = None
    sampling: str | None = None

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """Refuse a setting that there is not.

        Raises:
            UnknownNameError: For its name; the message lists the known ones.
        """
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise unknown_name("setting of GPTConfig:", name, known)
        return super().__new__(cls)

    def __hash__(self) -> int:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        observables = frozenset(values.pop("observables").items())
        return hash((*values.values(), observables))

    def __post_init__(self) -> None:
        """Check every field and choose the observables."""
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=1))
        for name, least in (("num_qubits", 1), ("reps", 0), ("n_inner", 1)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, integer(name, getattr(self, name), least=least))
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be a number of at least 0 and below 1, got {shown(self.dropout)}.")
        if isinstance(self.heads, Sequence) and not isinstance(self.heads, str):
            object.__setattr__(self, "heads", tuple(self.heads))
        if self.sampling is not None:
            object.__setattr__(self, "sampling", Scheme.parse(self.sampling).text)
        if not isinstance(self.bias, bool):
            raise ConfigError(f"bias must be True or False, got {shown(self.bias)}.")
        if not isinstance(self.observables, Mapping | None):
            raise ConfigError(f"observables must map head kinds to Pauli strings, got {shown(self.observables)}.")
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd must be a multiple of n_head, got {self.n_embd} and {self.n_head}.")
        self._check_size()
        chosen = {ALIASES.get(name, name): labels for name, labels in (self.observables or {}).items()}
        used = [kind.name for kind in self.kinds() if kind.circuit is not None]
        for name, labels in chosen.items():
            if name not in used:
                raise unknown_name("head kind in observables", name, used)
            if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(type(p) is str for p in labels):
                raise ConfigError(f"The observables of {name} must be Pauli strings, got {shown(labels)}.")
            kind = head_kind(name)
            if len(labels) != (count := kind.num_observables(self.head_size, self.kind_qubits(kind))):
                needed = f"the head size is {count}" if kind.measured is None else f"it measures {count}"
                raise ConfigError(f"{name} has {counted(len(labels), 'observable')}, but {needed}.")
        features = sum(
            count * kind.num_features(HeadShape(count, self.n_embd, self.head_size, self.kind_qubits(kind)))
            for layer in self.layers()
            for kind, count in ((head_kind(name), count) for name, count in layer.items())
            if kind.num_features is not None
        )
        self._check_size(self.n_embd * features)
        for kind in self.kinds():
            if kind.circuit is not None and kind.name not in chosen:
                qubits = self.kind_qubits(kind)
                count = kind.num_observables(self.head_size, qubits)
                chosen[kind.name] = attention_circuit(
                    kind.circuit, qubits, reps=self.reps, num_observables=count
                ).outputs
        object.__setattr__(self, "observables", {name: tuple(labels) for name, labels in chosen.items()})

    def _check_size(self, more: int = 0) -> None:
        """Refuse weights that do not fit in memory: embeddings, MLPs and the attention's last maps, and ``more``."""
        d = self.n_embd
        weights = (self.vocab_size + self.block_size) * d + self.n_layer * (d * d + 2 * d * self.mlp_width) + more
        check_memory(f"A model of {weights:,} weights or more", 4 * weights)

    @property
    def head_size(self) -> int:
        """Width of a head's values, h."""
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """Width of the MLP between its two maps."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    def layers(self) -> list[dict[str, int]]:
        """Return the number of heads of each kind, layer by layer."""
        return parse_heads(self.heads, self.n_layer, self.n_head)

    def kinds(self) -> list[HeadKind]:
        """Return the kinds in use, in order of appearance."""
        return [head_kind(name) for name in dict.fromkeys(name for layer in self.layers() for name in layer)]

    def kind_qubits(self, kind: HeadKind) -> int:
        """Return the number of qubits of a kind's circuits (of its encoded vector's index, for a classical kind).

        Raises:
            ConfigError: If a kind that encodes the whole token has too few.
        """
        if kind.qubits is not None:
            return kind.qubits(self.head_size)
        needed = max(1, math.ceil(math.log2(self.n_embd if kind.encodes_token else self.head_size)))
        if self.num_qubits is None:
            return needed
        if kind.encodes_token and self.num_qubits < needed:
            raise ConfigError(
                f"{kind.name} encodes the whole token of width {self.n_embd} and needs num_qubits of at least "
                f"{needed}, got {self.num_qubits}. Use num_qubits={needed}, or a kind with a linear map such as qisa."
            )
        return self.num_qubits

    def head_shape(self, kind: HeadKind, count: int) -> HeadShape:
        """Return the sizes of a number of heads of one kind in a layer."""
        circuit = None if kind.circuit is None else self.circuit(kind)
        return HeadShape(count, self.n_embd, self.head_size, self.kind_qubits(kind), circuit, reps=self.reps)

    def circuit(self, kind: HeadKind) -> AttentionCircuit:
        """Return the circuit of a quantum kind with this model's observables."""
        assert kind.circuit is not None and self.observables is not None
        labels = self.observables[kind.name]
        return head_circuit(kind.circuit, self.kind_qubits(kind), self.reps, tuple(labels))


def projected_shape(kind: HeadKind, count: int, head_dim: int, num_qubits: int | None, reps: int | None) -> HeadShape:
    """Return the sizes of heads whose tokens are vectors that torch's attention has projected already.

    Args:
        kind: Their kind.
        count: Number of heads.
        head_dim: Width of the vectors and of the values.
        num_qubits: Qubits of the circuits; None takes the fewest, ⌈log₂ head_dim⌉.
        reps: Their ansatz layers; None takes the kind's own.

    Raises:
        ConfigError: For numbers that are not whole, a kind that mixes positions itself or encodes amplitudes in too few
            qubits, or weights that do not fit in memory.
    """
    if kind.mixer is not None:
        raise ConfigError(f"{kind.name} heads mix positions without queries and keys, so they run in a GPT only.")
    needed = max(1, math.ceil(math.log2(head_dim)))
    qubits = needed if num_qubits is None else integer("num_qubits", num_qubits, least=1)
    qubits = qubits if kind.qubits is None else kind.qubits(head_dim)
    reps = None if reps is None else integer("reps", reps, least=0)
    measured = kind.num_observables(head_dim, qubits)
    circuit = None if kind.circuit is None else head_circuit(kind.circuit, qubits, reps, measured)
    if circuit is not None and circuit.encoding.kind == "amplitude" and qubits < needed:
        raise ConfigError(
            f"{kind.name} encodes vectors of head_dim={head_dim} numbers and needs num_qubits of at least {needed}, "
            f"got {qubits}."
        )
    shape = HeadShape(
        count=count,
        width=head_dim,
        head_size=head_dim,
        num_qubits=qubits,
        circuit=circuit,
        spread=_PROJECTED_SPREAD,
        reps=reps,
    )
    weights = count * head_dim * kind.inputs(shape)
    check_memory(f"{counted(count, f'{kind.name} head')} of {weights:,} weights or more", 4 * weights)
    return shape


def integer(name: str, value: Any, *, least: int) -> int:
    """Return a whole number, numpy's included, of at least ``least``."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ConfigError(f"{name} must be an integer of at least {least}, got {shown(value)}.")
    if number > (most := _MOST.get(name, LARGEST)):
        raise ConfigError(f"{name} can be at most {most:,}, got {shown(number)}.")
    return number


def check_memory(what: str, size: int) -> None:
    """Refuse what takes more bytes than this machine has memory, before it is allocated.

    Raises:
        ConfigError: For a larger size, with both.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return
    if size > memory:
        raise ConfigError(f"{what} takes {size / 2**30:,.1f} GiB, but this machine has {memory / 2**30:,.1f} GiB.")
