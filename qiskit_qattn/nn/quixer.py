"""Heads that mix positions themselves: Quixer, and its control without circuits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.backends.joint import evaluate
from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.library.quixer import index_qubits, mixing_circuit, num_ancillas
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.controls import QuadraticValues
from qiskit_qattn.nn.fallback import Execution, program_on
from qiskit_qattn.nn.head_kind import HeadKind, HeadShape
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.simulation.amplitude import amplitude_angles, check_finite, unit_vectors
from qiskit_qattn.simulation.mixing import MixingProgram, mixed_states, window_coefficients

WINDOW = 32  # tokens
DEGREE = 3
MAX_ANCILLAS = 9  # the projector on them is a sum of 512 Pauli strings


class QuixerMixer(QuantumHead):
    r"""Heads that mix the positions of a window by a quantum circuit, causally.

    .. math:: |\psi_t \rangle = \sum_{k=0}^{d} c_k M_t^k |0 \rangle, \qquad
              M_t = \sum_{j=0}^{W-1} b_j U(x_{t-j}) \Big/ \sum_{j=0}^{W-1} |b_j|, \qquad
              y_m = g_m \frac{\langle \psi_t | F^\dagger P_m F | \psi_t \rangle}{\langle \psi_t | \psi_t \rangle}

    U is the unitary of a token, F the trained circuit that follows. Positions before the first, and padding, are left
    out of both sums. On the exact engine the matrices :math:`M_t` are formed. Elsewhere each position runs
    :func:`~qiskit_qattn.library.quixer.mixing_circuit`, and a value is the ratio of two expectations of it,
    :math:`\langle \Pi P_m \rangle / \langle \Pi \rangle`, which is what post-selection gives on average.

    Args:
        shape: Sizes, with the circuit of one token: its encoding is U, its ansatz F.
        window: W.
        degree: d, at least 1.

    Attributes:
        coefficient: b as real and imaginary parts, shape ``(H, W, 2)``, drawn uniformly from [0, 1].
        polynomial: c, shape ``(H, d + 1)``, drawn likewise.

    Raises:
        ConfigError: For a window or degree below 1.

    Source: Khatri, Matos, Coopmans, Clark, "Quixer: A Quantum Transformer Model", arXiv 2406.04305, and its code.
    """

    def __init__(self, shape: HeadShape, *, window: int = WINDOW, degree: int = DEGREE) -> None:
        assert shape.circuit is not None
        _check_sizes(window, degree)
        super().__init__(shape.circuit, (shape.count,), gain=shape.spread)
        self.coefficient = nn.Parameter(torch.rand(shape.count, window, 2))
        self.polynomial = nn.Parameter(torch.rand(shape.count, degree + 1))

    @property
    def window(self) -> int:
        """W, how many positions each position mixes."""
        return self.coefficient.shape[1]

    @property
    def degree(self) -> int:
        """The degree of the polynomial, d."""
        return self.polynomial.shape[1] - 1

    @property
    def fusible(self) -> bool:
        """Whether the exact engine runs this head."""
        return isinstance(self._program, MixingProgram)

    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes to run the circuit on a place, without moving it there.

        Raises:
            ConfigError: For a window and degree whose circuit has too many ancillas for another place than the exact
                engine.
        """
        backend = place.single
        exact = backend is not None and backend.program is not None and backend.precision == 0
        if exact and place.name.partition("?")[0] == "statevector":
            return Execution(place, MixingProgram(self.circuit).to(self.weight), audit)
        ancillas = num_ancillas(self.window, self.degree)
        if ancillas > MAX_ANCILLAS:
            raise ConfigError(
                f"{self.circuit_name} with a window of {self.window} tokens and degree {self.degree} is a circuit of "
                f"{ancillas} ancilla qubits on {place.name}, and may have at most {MAX_ANCILLAS}: register a kind "
                f"with QuixerMixer(shape, window=4, degree=2). The exact engine, statevector, needs none."
            )
        program = program_on(mixing_circuit(self.circuit, self.window, self.degree), place, audit)
        return Execution(place, program.to(self.weight), audit)

    def forward(self, features: Tensor, steps: int, real: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Return outputs of the last positions, shape ``(B, H, T, M)``.

        Args:
            features: Angles of all positions in radians, shape ``(B, H, S, F)``.
            steps: T.
            real: Which positions are no padding, shape ``(B, S)``; None for all.

        Raises:
            EncodingError: For an input of another length, or one that holds NaN or infinity.
        """
        self._check(features, paid=not self.fusible)
        values, _ = self.post_selected(features, steps, real)
        return (values * self.gain.unsqueeze(-2)).to(self.gain.dtype)

    def post_selected(self, features: Tensor, steps: int, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return expectations after post-selection, ``(B, H, T, M)``, and its probabilities, ``(B, H, T)``.

        Args:
            features: As for a call.
            steps: As for a call.
            real: As for a call.
        """
        features, real = _last(features, real, steps + self.window - 1)  # what the first of the last positions sees
        if self.fusible:
            return self._program(features, self.weight, self.coefficient, self.polynomial, steps, real)
        inputs = self._circuit_inputs(features, steps, real)  # (H, B * T, ·)
        found = evaluate([(self._program, inputs, self._circuit_weights())])[0]  # (H, B * T, 1 + M)
        found = found.unflatten(1, (-1, steps)).transpose(0, 1)
        norms, values = found[..., :1], found[..., 1:]
        # Sampled values may leave the bounds that expectations have.
        ratios = values / norms.clamp_min(torch.finfo(norms.dtype).eps)
        return ratios.clamp(-1, 1), norms.squeeze(-1)

    def _circuit_inputs(self, features: Tensor, steps: int, real: Tensor | None) -> Tensor:
        """Return the inputs of the mixing circuit, a row for each position, shape ``(H, B * T, ·)``."""
        total, size = features.shape[-2], 2 ** index_qubits(self.window)
        b = window_coefficients(torch.view_as_complex(self.coefficient), steps, total, real)  # (B or 1, H, T, S)
        b = b.expand(features.shape[0], -1, -1, -1)
        last = torch.arange(total - steps, total, device=features.device)
        places = last[:, None] - torch.arange(size, device=features.device) + size  # (T, slots), behind the padding
        b = F.pad(b, (size, 0)).gather(-1, places.expand(*b.shape[:-1], -1))  # (B, H, T, slots)
        angles = F.pad(features, (0, 0, size, 0))[..., places, :] * (b != 0).unsqueeze(-1)  # (B, H, T, slots, F)
        rows = torch.cat([angles.flatten(-2), amplitude_angles(_root(b.abs())), b.angle()], -1)
        return rows.transpose(0, 1).flatten(1, 2)

    def _circuit_weights(self) -> Tensor:
        """Return the weights of the mixing circuit, shape ``(H, 2 d + P)``."""
        roots = _root(self.polynomial.abs())
        signed = roots * self.polynomial.detach().sign()
        return torch.cat([_unary_angles(roots), _unary_angles(signed), self.weight], -1)


def _check_sizes(window: int, degree: int) -> None:
    if window < 1 or degree < 1:
        raise ConfigError(f"window and degree must be at least 1, got {window} and {degree}.")


def _last(features: Tensor, real: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """Return at most ``count`` of the last positions, ``(B, H, S, F)``, and which are no padding, ``(B, S)``."""
    if features.shape[-2] <= count:  # a branch, which torch.export decides where it could not simplify a slice
        return features, real
    return features[..., -count:, :], None if real is None else real[:, -count:]


def _root(x: Tensor) -> Tensor:
    """Return square roots, without a gradient at 0."""
    return torch.where(x == 0, 0.0, torch.where(x == 0, 1.0, x).sqrt())


def _unary_angles(amplitudes: Tensor) -> Tensor:
    """Return the RY angles that prepare real amplitudes ``(..., d + 1)`` on the states 1…10…0, ``(..., d)``."""
    rest, angles = amplitudes[..., -1], []
    for each in amplitudes[..., :-1].flip(-1).unbind(-1):
        empty = (each == 0) & (rest == 0)  # atan2 and the norm have no gradient at (0, 0)
        safe = torch.where(empty, 1.0, each)
        angles.append(torch.where(empty, 0.0, 2 * torch.atan2(rest, safe)))
        rest = torch.where(empty, 0.0, torch.sqrt(safe**2 + rest**2))
    return torch.stack(angles[::-1], -1)


class ReflectionMixer(nn.Module):
    r"""The same polynomial of a linear combination, of orthogonal maps without a circuit, read out by quadratic forms.

    .. math:: \psi_t = \sum_{k=0}^{d} c_k M_t^k e_0, \quad
              M_t = \frac{\sum_j b_j A(x_{t-j})}{\sum_j |b_j|}, \quad
              A(x) = (1 - 2 \hat u \hat u^\top)(1 - 2 \hat v \hat v^\top), \quad
              y_m = \hat\psi_t^\top Q_m \hat\psi_t

    with u and v a token's features, real b and c, and Q as for :class:`~qiskit_qattn.nn.controls.QuadraticValues`.

    Args:
        shape: Sizes; vectors have :math:`2^n` entries.
        window: W.
        degree: d, at least 1.

    Raises:
        ConfigError: For a window or degree below 1.
    """

    def __init__(self, shape: HeadShape, *, window: int = WINDOW, degree: int = DEGREE) -> None:
        super().__init__()
        _check_sizes(window, degree)
        self.coefficient = nn.Parameter(torch.rand(shape.count, window))
        self.polynomial = nn.Parameter(torch.rand(shape.count, degree + 1))
        self.readout = QuadraticValues(shape.count, 2**shape.num_qubits, shape.head_size)

    def forward(self, features: Tensor, steps: int, real: Tensor | None = None) -> Tensor:
        """Return outputs of the last positions, shape ``(B, H, T, h)``; arguments as for :class:`QuixerMixer`.

        Raises:
            EncodingError: For features that hold NaN or infinity.
        """
        check_finite(features)
        features, real = _last(features, real, steps + self.coefficient.shape[1] - 1)
        maps = reflections(unit_vectors(features.unflatten(-1, (2, -1))))  # (B, H, S, D, D)
        b = window_coefficients(self.coefficient, steps, features.shape[-2], real)
        states = mixed_states(maps, b, self.polynomial)  # (B, H, T, D)
        values = self.readout(states.transpose(0, 1).flatten(1, 2))  # (H, B * T, h)
        return values.unflatten(1, (-1, steps)).transpose(0, 1)


def reflections(pairs: Tensor) -> Tensor:
    r"""Return :math:`(1 - 2 u u^\top)(1 - 2 v v^\top)`, shape ``(..., D, D)``, of unit u and v ``(..., 2, D)``."""
    u, v = pairs.unbind(-2)
    one, other = (
        torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) - 2 * x[..., None] * x[..., None, :] for x in (u, v)
    )
    return one @ other


QUIXER = HeadKind(
    "quixer",
    "quixer",
    mixer=QuixerMixer,
    summary="no scores: a polynomial of a linear combination of tokens' unitaries mixes positions",
    control="reflections",
)
REFLECTIONS = HeadKind(
    "reflections",
    mixer=ReflectionMixer,
    num_features=lambda shape: 2 * 2**shape.num_qubits,
    summary="control: quixer with two reflections per token in place of its circuit",
)
