"""Networks of Qiskit Machine Learning on the exact engine, for its own classifiers and regressors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient, ParamShiftSamplerGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler
from torch import Tensor, nn

from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.compiled import compile_qnn
from qiskit_qattn.nn.outcomes import (
    OutcomeProgram,
    has_exact_gradient,
    is_exact_sampler,
    own_sampler_gradient,
    sampler_parts,
)
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.sampler import TorchSampler, counted
from qiskit_qattn.simulation.statevector import StatevectorProgram

Model = TypeVar("Model")
Pair = tuple[Any, Any]  # Jacobians of inputs and of weights, or None
_CHUNK = 2**22  # amplitudes of all rows that are computed at a time


def fast(model: Model, *, exact: bool = False) -> Model:
    r"""Return a network of Qiskit Machine Learning whose passes run on the exact engine, as one batch each.

    A copy of an :class:`EstimatorQNN` or :class:`SamplerQNN`, of the same interface, for what calls the network itself:
    ``NeuralNetworkClassifier(fast(network))``. Of a classifier, a regressor or a ``VQC`` the network is replaced in
    place, and the model is returned. Values and Jacobians are those of the network's own simulator:

    - exact ones where it is exact (Qiskit Machine Learning's defaults, ``StatevectorEstimator`` at precision 0);
    - frequencies of as many shots where it is a ``StatevectorSampler``, of the same draws for a seed that is a number,
      with gradients by the shift rule, each circuit with its shots;
    - values with the same normal errors where it is a ``StatevectorEstimator`` at a precision above 0.

    Args:
        model: The network, or a model of ``qiskit_machine_learning.algorithms`` that has one.
        exact: Whether to take exact values in place of shots and errors, whatever the network's primitive is.

    Raises:
        ConfigError: For a network of another class, or one that runs elsewhere than on such a simulator.
        CircuitError: For a circuit that the engine cannot take.
    """
    given: Any = model
    if not isinstance(given, NeuralNetwork):
        network = getattr(given, "neural_network", None)
        if not isinstance(network, NeuralNetwork):
            raise ConfigError(
                f"fast takes a network of Qiskit Machine Learning or a model that has one, got a "
                f"{type(model).__name__}."
            )
        given._neural_network = fast(network, exact=exact)
        return model
    if isinstance(given, _OnEngine) and not exact:
        return model
    kinds: dict[type, type] = {EstimatorQNN: FastEstimatorQNN, SamplerQNN: FastSamplerQNN}
    kinds |= {kind: kind for kind in kinds.values()}
    if type(model) not in kinds:
        raise ConfigError(
            f"The engine computes an EstimatorQNN or a SamplerQNN of Qiskit Machine Learning, got a "
            f"{type(model).__name__}; a subclass may compute something else."
        )
    made = _as_kind(model, kinds[type(model)])
    if exact:
        made._be_exact()
    made._engine()  # raises now rather than in a fit
    return made


def _as_kind(network: Any, kind: Any) -> Any:
    """Return a copy of a network as one of another class with the same attributes."""
    made: Any = kind.__new__(kind)
    made.__dict__.update(network.__dict__)
    made.__dict__.pop("_built", None)
    return made


class _OnEngine:
    """What both networks share: passes in numbers of numpy, by an engine that is built again if a part was replaced."""

    _built: tuple[tuple[Any, ...], Any] | None = None

    @abstractmethod
    def _be_exact(self) -> None:
        """Take Qiskit Machine Learning's exact primitive."""

    @abstractmethod
    def _build(self) -> Any:
        """Return the engine of the network as it is now."""

    @abstractmethod
    def _parts(self) -> tuple[Any, ...]:
        """Return what of the network can be replaced."""

    def as_plain_network(self) -> Any:
        """Return the same network as one of Qiskit Machine Learning's class."""
        return _as_kind(self, SamplerQNN if isinstance(self, SamplerQNN) else EstimatorQNN)

    def _engine(self) -> Any:
        parts = self._parts()
        known = self._built[0] if self._built is not None else ()
        if len(known) != len(parts) or any(one is not other for one, other in zip(known, parts, strict=True)):
            self._built = parts, self._build()
        assert self._built is not None
        return self._built[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return the network without its engine, which is built again."""
        return {name: value for name, value in self.__dict__.items() if name != "_built"}

    def _forward(self, input_data: np.ndarray | None, weights: np.ndarray | None) -> Any:
        return self._shaped(self._engine().values(*_tensors(input_data, weights)))

    def _backward(self, input_data: np.ndarray | None, weights: np.ndarray | None) -> Pair:
        network = cast("Any", self)
        wanted = (bool(network._input_gradients and network.num_inputs), bool(network.num_weights))
        if not any(wanted):
            return None, None
        pair = self._engine().jacobians(*_tensors(input_data, weights), *wanted)
        return tuple(None if each is None else self._shaped(each, each.shape[-1]) for each in pair)  # type: ignore[return-value]

    def _shaped(self, values: np.ndarray, *last: int) -> Any:
        """Return values of shape ``(B, M, …)`` in the network's output shape, sparse where the network is."""
        network = cast("Any", self)
        table = values.reshape(len(values), *network.output_shape, *last)
        if not network.sparse:
            return table
        from sparse import COO

        return COO.from_numpy(table)


class FastSamplerQNN(_OnEngine, SamplerQNN):
    """A :class:`SamplerQNN` on the exact engine; see :func:`fast`."""

    def _parts(self) -> tuple[Any, ...]:
        return self._output_shape, self._interpret, self.sampler, self.gradient

    def _be_exact(self) -> None:
        self.sampler = QMLSampler()
        self.gradient = ParamShiftSamplerGradient(self.sampler)

    def _build(self) -> Any:
        name = type(self.sampler).__name__
        why, exact = own_sampler_gradient(self), has_exact_gradient(self)
        if why is None and is_exact_sampler(self):
            return _outcomes(self)
        draw = _shots_of(self.sampler)
        if why is None and draw is None:
            why = f"{name} runs elsewhere"
        elif why is None and not exact and type(self.gradient) is not ParamShiftSamplerGradient:
            why = f"{type(self.gradient).__name__} is no shift rule"
        if why is not None or draw is None:
            raise ConfigError(f"The engine cannot stand in for this SamplerQNN: {why}. With exact=True it can.")
        return _ExactSlopes(_Drawn(self, draw), _outcomes(self)) if exact else _Drawn(self, draw)


class FastEstimatorQNN(_OnEngine, EstimatorQNN):
    """An :class:`EstimatorQNN` on the exact engine; see :func:`fast`."""

    def _parts(self) -> tuple[Any, ...]:
        return self.estimator, self.gradient

    def _be_exact(self) -> None:
        self.estimator = QMLEstimator()
        self.gradient = ParamShiftEstimatorGradient(self.estimator)

    def _build(self) -> Any:
        plain = self.as_plain_network()
        noisy = type(self.estimator) is StatevectorEstimator and self.default_precision > 0
        if noisy:  # its gradients are at the estimator's own precision
            plain._default_precision = self.estimator.default_precision
        found = compile_qnn(plain)
        if found.engine not in ("statevector", "density_matrix") or found.program is None:
            raise ConfigError(
                f"The engine cannot stand in for this EstimatorQNN: {found.reason.rstrip('.')}. With exact=True it can."
            )
        engine = _Exact(found.program.double(), self.output_shape[0], 2 ** cast("Any", found.program).num_qubits)
        return _Noisy(engine, self.default_precision, self.estimator) if noisy else engine


@dataclass(frozen=True)
class _Exact:
    """A program's values, and their Jacobians by autograd.

    Attributes:
        program: Maps inputs ``(..., B, I)`` and weights ``(..., W)`` to values ``(..., B, M)``.
        num_outputs: M.
        size: Amplitudes per row.
    """

    program: nn.Module
    num_outputs: int
    size: int

    def values(self, inputs: Tensor, weights: Tensor) -> np.ndarray:
        """Return values, shape ``(B, M)``."""
        with torch.no_grad():
            return self.program(inputs, weights).numpy()

    def jacobians(self, inputs: Tensor, weights: Tensor, to_inputs: bool, to_weights: bool) -> Pair:
        """Return the Jacobians of each row, shapes ``(B, M, I)`` and ``(B, M, W)``, of some outputs at a time."""
        rows, most = len(inputs), max(1, _CHUNK // (max(1, len(inputs)) * self.size))
        parts: list[list[Tensor]] = []
        for outputs in torch.arange(self.num_outputs).split(most):
            count = len(outputs)
            x = inputs.expand(count, rows, -1).unsqueeze(-2).clone().requires_grad_(to_inputs)  # (C, B, 1, I)
            w = weights.expand(count, rows, -1).clone().requires_grad_(to_weights)  # (C, B, W)
            with torch.enable_grad():
                values = self.program(x, w)  # (C, B, 1, M)
                picked = values[torch.arange(count), :, 0, outputs].sum()
                wanted = [each for each in (x, w) if each.requires_grad]
                grads = torch.autograd.grad(picked, wanted, allow_unused=True, materialize_grads=True)
            parts.append([grad.reshape(count, rows, -1) for grad in grads])
        tables = iter([torch.cat(some).transpose(0, 1).numpy() for some in zip(*parts, strict=True)])  # (B, M, …)
        return next(tables) if to_inputs else None, next(tables) if to_weights else None


def _outcomes(network: SamplerQNN) -> _Exact:
    program = OutcomeProgram(network).double()
    return _Exact(program, program.num_outputs, 2**program.states.num_qubits)


@dataclass(frozen=True)
class _Noisy:
    """Values with a ``StatevectorEstimator``'s normal errors, one stream of them for each observable."""

    exact: _Exact
    precision: float
    estimator: StatevectorEstimator

    def values(self, inputs: Tensor, weights: Tensor) -> np.ndarray:
        columns = self.exact.values(inputs, weights).T
        draw = [np.random.default_rng(self.estimator.seed).normal(column, self.precision) for column in columns]
        return np.stack(draw, 1)

    def jacobians(self, *arguments: Any) -> Pair:
        return self.exact.jacobians(*arguments)


class _Drawn:
    r"""Frequencies of outcomes, and Jacobians by the shift rule.

    .. math:: \frac{\partial f}{\partial \alpha} = \tfrac12 [f(\alpha + \pi/2) - f(\alpha - \pi/2)]

    Every angle α of a gate is shifted alone, and every shifted circuit has its own shots.
    """

    def __init__(self, network: SamplerQNN, draw: Callable[[np.ndarray], np.ndarray]) -> None:
        circuit, _ = sampler_parts(network)
        self.outcomes, self._draw = OutcomeProgram(network).double(), draw
        self._inputs = network.num_inputs
        params = [*network.input_params, *network.weight_params]
        unrolled, angles, expressions = unroll(circuit)
        own = {param: i for i, param in enumerate(params)}
        self._uses = [{own[each] for each in expression.parameters} for expression in expressions]
        self.angles = AngleMap(expressions, params).double()
        basis = [SparsePauliOp("Z" * circuit.num_qubits)]
        self.program = StatevectorProgram(unrolled, basis, input_params=angles, all_outcomes=True).double()

    def values(self, inputs: Tensor, weights: Tensor) -> np.ndarray:
        """Return frequencies, shape ``(B, M)``."""
        with torch.no_grad():
            return self._summed(self.outcomes.states.probabilities(inputs, weights))

    def jacobians(self, inputs: Tensor, weights: Tensor, to_inputs: bool, to_weights: bool) -> Pair:
        """Return the Jacobians of each row, shapes ``(B, M, I)`` and ``(B, M, W)``."""
        first = 0 if to_inputs else self._inputs
        kept = [k for k, uses in enumerate(self._uses) if any(index >= first for index in uses)]
        rows = torch.cat([inputs, weights.expand(len(inputs), -1)], 1).requires_grad_()  # (B, P)
        with torch.enable_grad():
            angles = self.angles(rows)  # (B, K)
            chain = [torch.autograd.grad(angles[:, k].sum(), rows, retain_graph=True)[0] for k in kept]
        shift = torch.pi / 2 * torch.eye(angles.shape[1], dtype=angles.dtype)[kept]  # (S, K)
        shifted = (angles.detach()[:, None, None] + torch.stack([shift, -shift])).flatten(0, 2)  # (B * 2 * S, K)
        with torch.no_grad():
            nothing = shifted.new_zeros(0)
            most = max(1, _CHUNK // 2**self.program.num_qubits)
            found = [self._summed(self.program.probabilities(some, nothing)) for some in shifted.split(most)]
        values = np.concatenate(found).reshape(len(inputs), 2, len(kept), -1)  # (B, 2, S, M)
        slopes = (values[:, 0] - values[:, 1]) / 2  # (B, S, M)
        table = np.einsum("bsm,sbp->bmp", slopes, torch.stack(chain).numpy())
        return (table[..., : self._inputs] if to_inputs else None), (table[..., self._inputs :] if to_weights else None)

    def _summed(self, probabilities: Tensor) -> np.ndarray:
        frequencies = torch.from_numpy(self._draw(probabilities.numpy()))
        return self.outcomes.summed(frequencies).numpy()


@dataclass(frozen=True)
class _ExactSlopes:
    """Frequencies of outcomes, with the exact Jacobians of a gradient that has an exact sampler of its own."""

    drawn: _Drawn
    exact: _Exact

    def values(self, inputs: Tensor, weights: Tensor) -> np.ndarray:
        return self.drawn.values(inputs, weights)

    def jacobians(self, *arguments: Any) -> Pair:
        return self.exact.jacobians(*arguments)


def _shots_of(sampler: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what draws frequencies from probabilities, ``(R, 2**n)``, as a sampler does; None for another sampler."""
    if isinstance(sampler, TorchSampler) and sampler.engine is StatevectorProgram:
        return sampler.frequencies
    if type(sampler) not in (StatevectorSampler, QMLSampler):
        return None
    shots = sampler.default_shots

    def frequencies(probabilities: np.ndarray) -> np.ndarray:
        seed = np.random.default_rng() if sampler.seed is None else sampler.seed
        draws = [np.random.default_rng(seed).random(shots) for _ in probabilities]  # a number starts again each time
        return counted(probabilities, draws) / shots

    return frequencies


def _tensors(input_data: np.ndarray | None, weights: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Return inputs, shape ``(B, I)``, and weights, shape ``(W,)``, in double precision; one row without inputs."""
    inputs = np.zeros((1, 0)) if input_data is None else np.asarray(input_data, dtype=float)
    return torch.from_numpy(inputs), torch.from_numpy(np.zeros(0) if weights is None else np.array(weights, float))
