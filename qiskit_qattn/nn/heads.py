"""QuantumHead: an attention circuit as a torch module, for one or many heads at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from qiskit_qattn.backends.joint import Call, JointProgram, evaluate
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.errors import ConfigError, EncodingError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.fallback import ChainProgram, Execution, program_on
from qiskit_qattn.nn.placement import Movable, to_backend
from qiskit_qattn.simulation.amplitude import check_finite
from qiskit_qattn.simulation.compound import angles_of_vectors
from qiskit_qattn.simulation.statevector import Fused, StatevectorProgram
from qiskit_qattn.untrusted import shown


def fuse_heads(heads: Sequence[QuantumHead]) -> list[Fused]:
    """Form the unitaries of several heads of the same circuit and shape in one batched product.

    Args:
        heads: Heads that the exact engine runs, for example those of one kind in all layers of a model.

    Returns:
        For each head, what its call takes as ``unitary``.
    """
    program = cast(StatevectorProgram, heads[0]._program)
    matrices = program.fused(torch.stack([head.weight for head in heads]))  # of weights (L, *heads, P)
    if not matrices:  # gates are applied to the batch
        return [()] * len(heads)
    # Matrices that no weight enters have no leading axes and are shared.
    each = (matrix.unbind(0) if matrix.ndim > 2 else [matrix] * len(heads) for matrix in matrices)
    return list(zip(*each, strict=True))


def form_unitaries(layers: Sequence[nn.ModuleDict]) -> list[dict[str, Fused]]:
    """Form the unitaries of all heads that the exact engine runs, one batched product per circuit.

    Args:
        layers: For each layer its value maps by kind.

    Returns:
        For each layer the unitary of each such kind.
    """
    groups: dict[Hashable, list[tuple[int, str, QuantumHead]]] = {}
    for layer, maps in enumerate(layers):
        for kind, head in maps.items():
            if isinstance(head, QuantumHead) and head.fusible and head.foreseeable:
                like = id(head.circuit), head.weight.shape, head.weight.dtype, head.weight.device
                groups.setdefault(like, []).append((layer, kind, head))
    found: list[dict[str, Fused]] = [{} for _ in layers]
    for members in groups.values():
        for (layer, kind, _), unitary in zip(members, fuse_heads([head for *_, head in members]), strict=True):
            found[layer][kind] = unitary
    return found


def run_heads(calls: Mapping[str, tuple[nn.Module, Tensor]], unitaries: Mapping[str, Fused]) -> dict[str, Tensor]:
    """Return what the value maps of a layer give; circuits that go to the same estimator share one job.

    Args:
        calls: Module and input of each, by kind.
        unitaries: What :func:`form_unitaries` gave for the layer.
    """
    shared = {
        name: module.call(x)
        for name, (module, x) in calls.items()
        if isinstance(module, QuantumHead) and module.foreseeable and not (module.fusible or x.is_meta)
    }
    measured = dict(zip(shared, evaluate(list(shared.values())), strict=True))
    found = {}
    for name, (module, x) in calls.items():
        if name in measured:
            found[name] = module(x, expectations=measured[name])
        else:
            found[name] = module(x, unitaries[name]) if name in unitaries else module(x)
    return found


class QuantumHead(Movable):
    r"""Expectations of an attention circuit, each with a learned gain, or a learned linear map of all of them.

    .. math:: y_m = g_m \langle P_m \rangle(x, \theta) \qquad \text{or} \qquad
              y_k = \sum_m \langle P_m \rangle(x, \theta)\, G_{mk}

    Gains start at ``gain`` over the spread of expectations of random states
    (:attr:`~qiskit_qattn.library.attention_circuit.AttentionCircuit.spread`), and the entries of G at random, so that
    outputs start with a spread of about ``gain``.

    Args:
        circuit: What to compute. Amplitude-encoded circuits take real vectors of length 2ⁿ, unary ones of
            length n, others their angles.
        heads: Shape of the leading axes: one set of weights and gains for each head. All run in one batched product.
        gain: Spread of the outputs at the start.
        trainable: Whether the circuit's weights are trained; gains always are.
        outputs: Number of outputs of a linear map G of the expectations; None for a gain each.

    Raises:
        ConfigError: For something else than a circuit, such as its name.

    Attributes:
        observables: What is measured as letters 0 to 5 (I, X, Y, Z, and 0 and 1 of outcomes), shape ``(M, n)``; part of
            the ``state_dict``.
        weight: Circuit angles in radians, shape ``(*heads, P)``, drawn uniformly from [−π, π].
        gain: Shape ``(*heads, M)``; of a linear map ``(*heads, M, outputs)``.
        place: Where it runs: a :class:`Place` with one backend or a chain of them.
        audit: Where the calls were computed since it was moved to a chain the last time.
    """

    observables: Tensor
    place: Place
    audit: Audit

    def __init__(
        self,
        circuit: AttentionCircuit,
        heads: tuple[int, ...] = (),
        *,
        gain: float = 1.0,
        trainable: bool = True,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(circuit, AttentionCircuit):
            raise ConfigError(
                f"QuantumHead takes an AttentionCircuit, got {shown(circuit)}; build one, as in "
                f"QuantumHead(attention_circuit('qisa', num_qubits=4))."
            )
        self.circuit = circuit
        self.amplitude = circuit.encoding.kind == "amplitude"
        self.spread, self.linear = gain, outputs is not None
        self.weight = nn.Parameter(torch.empty(*heads, len(circuit.weight_params)), requires_grad=trainable)
        size = (*heads, len(circuit.observables))
        self.gain = nn.Parameter(torch.empty(size if outputs is None else (*size, outputs)))
        self.reset_parameters()
        self.register_buffer("observables", self._codes())
        self.run_on(self.prepare(Place.of(get_backend("statevector")), Audit(None, self.circuit_name)))

    def reset_parameters(self) -> None:
        """Draw angles and gains as at the start."""
        nn.init.uniform_(self.weight, -math.pi, math.pi)
        start = self.spread / torch.tensor(self.circuit.spread)  # (M,)
        with torch.no_grad():
            if self.linear:
                self.gain.normal_().mul_(start.to(self.gain).unsqueeze(-1) / math.sqrt(len(start)))
            else:
                self.gain.copy_(start)

    def extra_repr(self) -> str:
        """Return the circuit's sizes, the number of heads and the backend, for ``print(model)``."""
        circuit, heads = self.circuit, "×".join(map(str, self.weight.shape[:-1])) or "1"
        return (
            f"{circuit.name}, heads={heads}, num_qubits={circuit.num_qubits}, inputs={self.num_features}, "
            f"weights={len(circuit.weight_params)}, outputs={self.gain.shape[-1]}, backend={self.backend.name!r}"
        )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Refuse weights that were trained for other observables."""
        saved = state_dict.get(f"{prefix}observables")
        if saved is not None and not torch.equal(saved.cpu(), self._codes("cpu")):  # its own may be on meta
            args[-1].append(
                f"{prefix}observables differ: this head measures {', '.join(self.circuit.outputs[:3])}, …, the saved "
                f"one others; build it with the observables it was saved with (config.json lists them)."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _codes(self, device: str | None = None) -> Tensor:
        """Return what the circuit measures as letters 0 to 5, shape ``(M, n)``."""
        codes = [["IXYZ01".index(letter) for letter in label] for label in self.circuit.outputs]
        return torch.tensor(codes, dtype=torch.uint8, device=device)

    @property
    def num_features(self) -> int:
        """Length of the input's last axis."""
        return self.circuit.encoding.num_features

    @property
    def backend(self) -> Backend | Place:
        """The backend it runs on; the place, whose ``links`` are the backends, for a chain."""
        return self.place.single or self.place

    def to_backend(self, backend: Backend | Place | str) -> QuantumHead:
        """Run on another backend from now on; weights stay as they are.

        Sessions that a string opens are closed when no head runs there any more.

        Args:
            backend: A backend string, or a chain such as ``ibm:ibm_fez?budget=60s -> aer -> statevector``: a call that
                fails on one backend goes to the next. A chain may end with ``classical``, the quadratic form that an
                amplitude-encoded circuit computes, or with ``raise``, the default. Or the backend or place that a
                string opened.

        Raises:
            UnknownNameError, ConfigError: For a string that names no backend, or ``classical`` for another encoding.
        """
        to_backend(self, backend)
        return self

    @property
    def circuit_name(self) -> str:
        """The name of the circuit."""
        return self.circuit.name

    @property
    def execution(self) -> Execution:
        """How the circuit is run now."""
        return Execution(self.place, self._program, self.audit)

    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes to run the circuit on a place, without moving it there."""
        program = program_on(self.circuit, place, audit)
        return Execution(place, program.to(device=self.weight.device, dtype=self.weight.dtype), audit)

    def run_on(self, execution: Execution) -> None:
        """Run the circuit in this way from now on."""
        assert execution.place is not None and execution.program is not None, "a head always has a place"
        self.place, self.audit = execution.place, execution.audit
        self._program = execution.program.to(device=self.weight.device, dtype=self.weight.dtype)
        takes_vectors = isinstance(self._program, StatevectorProgram | ChainProgram)
        angles = None if takes_vectors else angles_of_vectors(self.circuit.encoding)
        self._angles = None if angles is None else angles.to(self.weight)

    @property
    def ran_on(self) -> dict[str, int]:
        """On a chain, the number of calls that each backend computed so far; empty otherwise."""
        return dict(self._program.audit.calls) if isinstance(self._program, ChainProgram) else {}

    @property
    def outside_bounds(self) -> int:
        """How many mitigated values of the current program lay outside their observables' bounds so far."""
        return sum(part.outside for part in self._program.modules() if isinstance(part, PubProgram))

    def forward(self, x: Tensor, unitary: Fused | None = None, *, expectations: Tensor | None = None) -> Tensor:
        """Return values, shape ``(*heads, N, M)``.

        Args:
            x: Inputs, shape ``(*heads, N, num_features)``; leading axes broadcast.
            unitary: This head's part of what :func:`fuse_heads` returned, if that was formed already.
            expectations: The expectations of these inputs, shape ``(*heads, N, M)``, if they were measured already.

        Raises:
            EncodingError: For an input of another length, one that holds NaN or infinity, or no tensor.
        """
        if not isinstance(x, Tensor):
            raise EncodingError(
                f"This {self.circuit.name} head takes a tensor of vectors of length {self.num_features}, got "
                f"{shown(x)}."
            )
        if expectations is None and x.is_meta:  # shapes only
            self._check(x)
            lead = torch.broadcast_shapes(x.shape[:-1], (*self.weight.shape[:-1], 1))
            expectations = x.new_empty(*lead, len(self.circuit.observables))
        elif expectations is None and self.fusible:
            self._check(x)
            expectations = self._program(x, self.weight, unitary)
        elif expectations is None:
            expectations = evaluate([self.call(x)])[0]
        # Half-precision models simulate in float32.
        if self.linear:
            return (expectations @ self.gain.to(expectations.dtype)).to(self.gain.dtype)
        return (expectations * self.gain.unsqueeze(-2)).to(self.gain.dtype)

    def call(self, x: Tensor) -> Call:
        """Return what :func:`evaluate` takes to give this head's expectations; errors are those of a call."""
        self._check(x, paid=isinstance(self._program, JointProgram))
        return self._program, x if self._angles is None else self._angles(x), self.weight

    def reference(self) -> Callable[[Tensor], Tensor]:
        """Return what gives the exact engine's expectations of inputs, shape ``(*heads, N, M)``."""
        program = self.prepare(Place.of(get_backend("statevector")), Audit(None, self.circuit_name)).program
        assert program is not None
        takes_vectors = isinstance(program, StatevectorProgram)
        angles = None if takes_vectors else angles_of_vectors(self.circuit.encoding)
        return lambda x: program(x if angles is None else angles.to(x)(x), self.weight)

    def _check(self, x: Tensor, *, paid: bool = False) -> None:
        if x.shape[-1] != self.num_features:
            raise EncodingError(
                f"This {self.circuit.name} head takes vectors of length {self.num_features}, got {x.shape[-1]}."
            )
        if paid or not self.amplitude:  # the amplitude engine checks norms on its way
            check_finite(x, wait=paid)

    @property
    def fusible(self) -> bool:
        """Whether the exact engine runs this head."""
        return isinstance(self._program, StatevectorProgram)

    @property
    def foreseeable(self) -> bool:
        """Whether a call takes the inputs and weights as they are: no pre-hook or other ``forward`` may change them."""
        return type(self).forward is QuantumHead.forward and "forward" not in vars(self) and not self._forward_pre_hooks


class HeadEncoding(nn.Module):
    r"""Angles :math:`W_i^T x_i` of the vectors of H heads.

    Args:
        size: Shape of the weights, ``(*heads, h, F)``, which start with a spread of :math:`h^{-1/2}`.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        bound = math.sqrt(3 / size[-2])
        self.weight = nn.Parameter(torch.empty(*size).uniform_(-bound, bound))

    def extra_repr(self) -> str:
        """Return the shape, for ``print(model)``."""
        return "×".join(map(str, self.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors ``(*heads, N, h)`` to ``(*heads, N, F)``."""
        return x @ self.weight
