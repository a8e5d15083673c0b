"""Quixer: a polynomial of a linear combination of tokens' unitaries, as heads that mix the positions themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.fallback import Execution
from qiskit_qattn.nn.head_kind import HeadKind, HeadShape
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.simulation.circuit_14 import Circuit14
from qiskit_qattn.simulation.precision import without_autocast
from qiskit_qattn.simulation.readout import MeasurementBases, build_readout

WINDOW = 32  # tokens
DEGREE = 3


def window_coefficients(coefficients: Tensor, steps: int, total: int, real: Tensor | None = None) -> Tensor:
    r"""Return :math:`b_{t-j} / \sum_{j'} |b_{t-j'}|` for the last positions t and all positions j of a sequence.

    Coefficients of later positions, of those outside the window and of padding are 0, and not part of the sum.

    Args:
        coefficients: b, complex, shape ``(H, W)``; :math:`b_0` is the position's own.
        steps: T, for how many positions t.
        total: S, of how many positions in all.
        real: Which positions are no padding, shape ``(B, S)``; None for all.

    Returns:
        Shape ``(B or 1, H, T, S)``.
    """
    device = coefficients.device
    offsets = torch.arange(total - steps, total, device=device)[:, None] - torch.arange(total, device=device)
    seen = (offsets >= 0) & (offsets < coefficients.shape[-1])  # (T, S)
    if real is not None:
        seen = seen & real[:, None, None, :]  # (B, 1, T, S)
    chosen = coefficients[:, offsets.clamp(0, coefficients.shape[-1] - 1)]  # (H, T, S)
    chosen = torch.where(seen, chosen, 0.0)
    norms = chosen.abs().sum(-1, keepdim=True)
    return (chosen / norms.masked_fill(norms == 0, 1.0)).expand(-1 if chosen.ndim == 4 else 1, *chosen.shape[-3:])


def mixed_states(unitaries: Tensor, coefficients: Tensor, polynomial: Tensor) -> Tensor:
    r"""Return :math:`\sum_k c_k M_t^k |0 \rangle` for :math:`M_t = \sum_j b_{tj} U_j`, shape ``(B, H, T, 2**n)``.

    All :math:`M_t` are one product of the coefficients with the unitaries; each power of each is a matrix times a
    vector.

    Args:
        unitaries: U, shape ``(B, H, S, 2**n, 2**n)``.
        coefficients: :func:`window_coefficients`, shape ``(B or 1, H, T, S)``.
        polynomial: c, real, shape ``(H, degree + 1)``.
    """
    mixtures = (coefficients.to(unitaries.dtype) @ unitaries.flatten(-2)).unflatten(-1, unitaries.shape[-2:])
    zero = torch.zeros_like(mixtures[..., 0])
    zero[..., 0] = 1.0
    power, c = mixtures[..., 0], polynomial[:, None, None, :]  # (B, H, T, D), (H, 1, 1, degree + 1)
    state = c[..., 0] * zero + c[..., 1] * power
    for k in range(2, polynomial.shape[-1]):
        power = (mixtures @ power.unsqueeze(-1)).squeeze(-1)
        state = state + c[..., k] * power
    return state


class QuixerMixer(QuantumHead):
    r"""Heads that mix the positions of a window by a quantum circuit, causally.

    .. math:: |\psi_t \rangle = \sum_{k=0}^{d} c_k M_t^k |0 \rangle, \qquad
              M_t = \sum_{j=0}^{W-1} b_j U(x_{t-j}) \Big/ \sum_j |b_j|, \qquad
              y_m = g_m \frac{\langle \psi_t | F^\dagger P_m F | \psi_t \rangle}{\langle \psi_t | \psi_t \rangle}

    U is the unitary of a token, F the trained circuit that follows. Positions before the first, and padding, are left
    out of both sums.

    Args:
        shape: Sizes, with the circuit of one token: its encoding is U, its ansatz F.
        window: W.
        degree: d, at least 1.

    Attributes:
        coefficient: b as real and imaginary parts, shape ``(H, W, 2)``.
        polynomial: c, shape ``(H, d + 1)``.

    Source: Khatri, Matos, Coopmans, Clark, "Quixer: A Quantum Transformer Model", arXiv 2406.04305.
    """

    signs: Tensor

    def __init__(self, shape: HeadShape, *, window: int = WINDOW, degree: int = DEGREE) -> None:
        assert shape.circuit is not None
        super().__init__(shape.circuit, (shape.count,), gain=shape.spread)
        # As the paper's code draws them.
        self.coefficient = nn.Parameter(torch.rand(shape.count, window, 2))
        self.polynomial = nn.Parameter(torch.rand(shape.count, degree + 1))
        self.unitary = Circuit14(shape.circuit.num_qubits)
        readout = build_readout(shape.circuit.observables)
        outcomes, signs = readout.needed_outcomes()
        self.measure = MeasurementBases(readout, outcomes)
        self.unitary.add_constant("signs", signs)  # (R, M)

    @property
    def window(self) -> int:
        """W, how many positions each position mixes."""
        return self.coefficient.shape[1]

    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes; only the exact engine mixes positions.

        Raises:
            ConfigError: For another place.
        """
        if place.name != "statevector":
            raise ConfigError(f"Quixer heads mix positions on the exact engine, statevector, only; got {place.name}.")
        return super().prepare(place, audit)

    def forward(self, features: Tensor, steps: int, real: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Return outputs of the last positions, shape ``(B, H, T, M)``.

        Args:
            features: Angles of all positions in radians, shape ``(B, H, S, F)``.
            steps: T.
            real: Which positions are no padding, shape ``(B, S)``; None for all.

        Raises:
            EncodingError: For an input of another length, or one that holds NaN or infinity.
        """
        self._check(features)
        before = min(features.shape[-2], steps + self.window - 1)
        features, real = features[..., -before:, :], None if real is None else real[:, -before:]
        with without_autocast(features.device):
            values = self._expectations(features, steps, real)
        return (values * self.gain.unsqueeze(-2)).to(self.gain.dtype)

    def _expectations(self, features: Tensor, steps: int, real: Tensor | None) -> Tensor:
        """Return post-selected expectations, shape ``(B, H, T, M)``."""
        dtype = self.unitary.signs.dtype  # float32 in half-precision modules
        coefficients = torch.view_as_complex(self.coefficient.to(dtype))
        states = mixed_states(
            self.unitary(features.to(dtype)),
            window_coefficients(coefficients, steps, features.shape[-2], real),
            self.polynomial.to(dtype),
        )  # (B, H, T, 2**n)
        readout = self.measure(self.unitary(self.weight.to(dtype)))  # (H, R, 2**n)
        outcomes = torch.view_as_real(states @ readout.mT).square().sum(-1)  # (B, H, T, R)
        norms = torch.view_as_real(states).square().sum((-2, -1)).clamp_min(torch.finfo(dtype).tiny)
        return (outcomes @ self.unitary.signs) / norms.unsqueeze(-1)


QUIXER = HeadKind(
    "quixer",
    "quixer",
    mixer=QuixerMixer,
    summary="mixes positions: a polynomial of a linear combination of tokens' unitaries",
)
