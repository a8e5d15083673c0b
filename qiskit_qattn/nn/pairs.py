r"""Heads whose scores compare the states of a query and a key: by circuits of pairs, or by their classical control.

A query q becomes a state :math:`|q\rangle` of n qubits, a key a state :math:`|k\rangle`, and

- ``overlap``: :math:`|\langle q | k \rangle|^2`,
- ``mixed``: :math:`\mathrm{Tr}(\rho \sigma)`, of both states with half of their qubits traced out,
- ``complex``: :math:`\langle q | k \rangle`, with its phase.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.backends.joint import Call, evaluate
from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.library.pairs import Comparison, pair_circuit, pair_name
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.fallback import Execution
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.overlaps import compared_states, overlaps
from qiskit_qattn.simulation.amplitude import AmplitudeAngles, unit_vectors
from qiskit_qattn.simulation.statevector import Fused, StateProgram


@dataclass(frozen=True)
class Pairing:
    """How heads of a kind score queries and keys by their states.

    Attributes:
        comparison: How states are compared.
        circuit: The catalog's circuit, amplitude-encoded, whose ansatz acts on states; None for free linear maps.
    """

    comparison: Comparison
    circuit: str | None = None

    @property
    def score(self) -> str:
        """How attention scores what is compared."""
        return "dot" if self.comparison == "mixed" else self.comparison  # of density matrices

    @property
    def circuit_name(self) -> str | None:
        """The name of the circuit of a pair; None for free linear maps."""
        return None if self.circuit is None else pair_name(self.circuit, self.comparison)

    def build(self, heads: int, head_size: int, reps: int | None) -> PairScores:
        """Return what compares queries and keys, with the fewest qubits that hold them.

        Args:
            heads: H.
            head_size: h.
            reps: Ansatz layers; None takes the circuit's own.

        Raises:
            ConfigError: For a circuit of another encoding.
        """
        num_qubits = max(1, (head_size - 1).bit_length())
        if self.circuit is None:
            return LinearStates(self.comparison, heads, head_size, num_qubits)
        return PairHead(_states(self.circuit, num_qubits, reps), self.comparison, heads)


@cache
def _states(name: str, num_qubits: int, reps: int | None) -> AttentionCircuit:
    """Return one circuit for all layers that ask for it."""
    circuit = attention_circuit(name, num_qubits, reps=reps, num_observables=1)
    if circuit.encoding.kind != "amplitude":
        raise ConfigError(f"Pairs compare amplitude-encoded states, but {name!r} encodes {circuit.encoding.kind}.")
    return circuit


class PairScores(nn.Module, ABC):
    """What compares queries and keys.

    Attributes:
        comparison: How their states are compared.
        exact: Whether scores are products of what :meth:`encode` gives, and are not measured pair by pair.
    """

    comparison: Comparison
    exact: bool

    @abstractmethod
    def encode(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is compared, of queries ``(B, nh, S, h)`` and keys ``(B, nh, T, h)``."""


class PairHead(QuantumHead, PairScores):
    r"""Scores by circuits of pairs, with a learned temperature.

    .. math:: \tau |\langle q | k \rangle|^2, \qquad \tau\, \mathrm{Tr}(\rho \sigma), \qquad
        (\mathrm{Re} \langle q | k \rangle, \mathrm{Im} \langle q | k \rangle)

    with :math:`|q\rangle = A(\theta) |\hat q\rangle`, :math:`|k\rangle = A(\varphi) |\hat k\rangle` and
    :math:`\tau = g^2 2^n`. The exact engine computes the states of all queries and keys, which attention compares by
    one matrix product; elsewhere each pair is a circuit (:func:`~qiskit_qattn.library.pairs.pair_circuit`).

    Args:
        states: The amplitude encoding and the ansatz A.
        comparison: How states are compared.
        heads: H.

    Attributes:
        weight: Angles θ and then φ in radians, shape ``(H, 2 * P)``, drawn uniformly from [−π, π].
        gain: g, shape ``(H, 1)``, from 1; none for ``complex``, whose weights are normalised.
    """

    def __init__(self, states: AttentionCircuit, comparison: Comparison, heads: int) -> None:
        self.states, self.comparison = states, comparison
        super().__init__(pair_circuit(states, comparison), (heads,))
        if comparison == "complex":
            self.register_parameter("gain", None)

    def reset_parameters(self) -> None:
        """Draw the weights and set the gains, as at the start."""
        nn.init.uniform_(self.weight, -math.pi, math.pi)
        if self.gain is not None:
            nn.init.ones_(self.gain)

    @property
    def num_features(self) -> int:
        """Length of a query and a key side by side."""
        return 2 * self.states.encoding.num_features

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the exact engine computes states."""
        return isinstance(self._program, StateProgram)

    @property
    def foreseeable(self) -> bool:
        """Whether a call takes the inputs and weights as they are: no pre-hook or other ``forward`` may change them."""
        return type(self).forward is PairHead.forward and "forward" not in vars(self) and not self._forward_pre_hooks

    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes to compare states on a place, without moving there."""
        if place.single is None or place.single.states is None:
            return super().prepare(place, audit)
        program = place.single.states(self.states)
        return Execution(place, program.to(device=self.weight.device, dtype=self.weight.dtype), audit)

    def run_on(self, execution: Execution) -> None:
        """Run the circuit in this way from now on."""
        super().run_on(execution)
        self._angles = AmplitudeAngles(self.states.num_qubits).to(self.weight)

    def encode(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return states on the exact engine, and elsewhere the vectors of length 2ⁿ that circuits encode."""
        size = self.states.encoding.num_features
        q, k = (F.pad(each, (0, size - each.shape[-1])) for each in (q, k))
        if not isinstance(self._program, StateProgram):
            return q, k
        return compared_states(self.comparison, *self._encoded(self._program, q, k), self._root)

    def call(self, x: Tensor) -> Call:
        """Return what :func:`evaluate` takes to give the expectations of pairs; errors are those of a call."""
        self._check(x, paid=True)
        assert self._angles is not None
        return self._program, self._angles(x.unflatten(-1, (2, -1))).flatten(-2), self.weight

    def forward(self, x: Tensor, unitary: Fused | None = None, *, expectations: Tensor | None = None) -> Tensor:
        """Return the scores of pairs, shape ``(H, N, 1)``, or real and imaginary parts, ``(H, N, 2)``.

        Args:
            x: Vectors of queries and keys side by side, shape ``(H, N, 2 * 2**n)``.
            unitary: Not used.
            expectations: The expectations of these pairs, if they were measured already.

        Raises:
            EncodingError: For vectors of another length, or that hold NaN or infinity.
        """
        if expectations is None and isinstance(self._program, StateProgram):
            self._check(x)
            expectations = self._expectations(self._program, x)
        elif expectations is None:
            expectations = evaluate([self.call(x)])[0]
        if self._root is not None:
            expectations = expectations * self._root.square()[:, None, None]
        return expectations.to(self.weight.dtype)

    def reference(self) -> Callable[[Tensor], Tensor]:
        """Return what gives the exact engine's expectations of pairs, shape ``(H, N, 1 or 2)``."""
        return partial(self._expectations, StateProgram(self.states).to(self.weight))

    @property
    def _root(self) -> Tensor | None:
        """√τ of each head, shape ``(H,)``."""
        return None if self.gain is None else self.gain[:, 0] * 2 ** (self.states.num_qubits / 2)

    def _encoded(self, program: StateProgram, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return states of queries and keys ``(B, nh, ·, 2**n)``, each of shape ``(B, nh, ·, 2 * 2**n)``."""
        weights = self.weight.unflatten(-1, (2, -1)).transpose(0, 1)  # (2, nh, P)
        rows = [each.transpose(0, 1).flatten(1, 2) for each in (q, k)]  # (nh, N, 2**n)
        if q.shape == k.shape:
            states = program.parts(torch.stack(rows), weights).unbind(0)  # each (nh, N, 2, 2**n)
        else:
            states = tuple(map(program.parts, rows, weights))
        q, k = (
            state.flatten(-2).unflatten(1, each.shape[::2][:2]).transpose(0, 1).to(self.weight.dtype)
            for state, each in zip(states, (q, k), strict=True)
        )
        return q, k

    def _expectations(self, program: StateProgram, x: Tensor) -> Tensor:
        """Return the expectations of pairs ``(H, N, 2 * 2**n)``, shape ``(H, N, 1 or 2)``."""
        q, k = compared_states(self.comparison, *self._encoded(program, *x.unsqueeze(0).chunk(2, -1)), None)
        if self.comparison == "mixed":
            return (q * k)[0].sum(-1, keepdim=True) / q.shape[-1] ** 0.5
        parts = overlaps(q.unsqueeze(-2), k.unsqueeze(-2))[0, ..., 0, 0]  # (H, N, 2)
        return parts if self.comparison == "complex" else parts.square().sum(-1, keepdim=True)


class LinearStates(PairScores):
    r"""Scores of states that are free linear maps of vectors: those of amplitude-encoded circuits, without circuits.

    .. math:: |q\rangle = W_q q / \lVert W_q q \rVert, \qquad |k\rangle = W_k k / \lVert W_k k \rVert

    with complex matrices W of :math:`2^n \times h` numbers. The amplitudes of a circuit that encodes a vector in
    amplitudes are linear in that vector, so these states include every such circuit's.

    Args:
        comparison: How states are compared.
        heads: H.
        head_size: h.
        num_qubits: n.

    Raises:
        EncodingError: (when called) for vectors that hold NaN or infinity.
    """

    exact = True

    def __init__(self, comparison: Comparison, heads: int, head_size: int, num_qubits: int) -> None:
        super().__init__()
        self.comparison = comparison
        # Transposes of W, real parts and then imaginary ones.
        self.weight = nn.Parameter(torch.randn(2, heads, head_size, 2 * 2**num_qubits) / head_size**0.5)
        self.gain = None if comparison == "complex" else nn.Parameter(torch.ones(heads))

    def encode(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states."""
        root = None if self.gain is None else self.gain * (self.weight.shape[-1] / 2) ** 0.5
        q, k = (unit_vectors(each @ weight) for each, weight in zip((q, k), self.weight, strict=True))
        return compared_states(self.comparison, q, k, root)
