"""Backends that run in this process on the engines of :mod:`qiskit_qattn.simulation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from qiskit.primitives import BaseSamplerV2, BitArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from torch import nn

from qiskit_qattn.backends.aer_sampler import mps_sampler
from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS, gradient_option
from qiskit_qattn.backends.mitigation import MITIGATION_OPTIONS, noisy_mitigation
from qiskit_qattn.backends.mitigation_engine import MitigatedEngine
from qiskit_qattn.backends.mps import MAX_BOND, MPSEstimator, mps_program
from qiskit_qattn.backends.noise import NOISE_OPTIONS, build_noise
from qiskit_qattn.backends.options import SAMPLING_OPTIONS, Sampling, sampling_option, without_sampler
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.compound import CompoundProgram
from qiskit_qattn.simulation.cutting import in_use
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.plan import MAX_QUBITS
from qiskit_qattn.simulation.sampler import Outcomes, TorchSampler
from qiskit_qattn.simulation.statevector import StateProgram, StatevectorProgram
from qiskit_qattn.simulation.unary import OrthogonalProgram

METHODS = ("auto", "dense", "mps")
SAMPLED_QUBITS = 16  # a sample needs the probabilities of all outcomes, in float64 and for each row
STATEVECTOR_OPTIONS = SAMPLING_OPTIONS | {
    "method": "dense: all amplitudes, up to 20 qubits; mps: matrix product states, up to 30; auto: mps from 21 on",
    "max_bond": "mps: largest bond dimension (default 64)",
}


def statevector(spec: BackendSpec) -> Backend:
    """Return the exact engine; with ``shots``, sampled in the circuits' measurement bases.

    Exact values of circuits of 21 to 30 qubits, and samples of 17 to 30, come from matrix product states, as
    ``method=mps`` asks for all.

    Raises:
        ConfigError: For a value that is no positive integer, or ``max_bond`` without ``method=mps``.
        UnknownNameError: For an unknown method.
        MissingDependencyError: For ``method=mps`` without Aer.
    """
    method = spec.options.get("method", "auto")
    if method not in METHODS:
        raise unknown_name(f"method of backend {spec.name!r}", method, METHODS)
    max_bond = spec.integer("max_bond", minimum=1)
    if max_bond is not None and method != "mps":
        raise ConfigError(f"Backend option max_bond={max_bond} needs method=mps, got method={method}.")
    sampling = sampling_option(spec)
    if method == "mps":
        bond = MAX_BOND if max_bond is None else max_bond
        mps = MPSEstimator(max_bond=bond, default_precision=sampling.precision, seed=sampling.seed)
        gradient = gradient_option(spec, sampling.seed)  # values come as PUBs, exact ones too
        return Backend(
            str(spec),
            mps,
            precision=sampling.precision,
            shots=sampling.shots,
            dedupe=sampling.dedupe,
            gradient=gradient,
            sampler=mps_sampler(bond, **sampling.of_samplers),
        )
    estimator = TorchEstimator(default_precision=sampling.precision, seed=sampling.seed)
    program = _exact_program if method == "dense" else _exact_or_mps
    sampler = ExactSampler(wide=method == "auto", **sampling.of_samplers)
    backend = _backend(spec, estimator, sampling, program, sampler)
    return replace(backend, states=StateProgram if backend.differentiable else None)


def density_matrix(spec: BackendSpec) -> Backend:
    """Return the noisy engine, with the noise of an Aer ``NoiseModel``.

    Raises:
        ConfigError: For a value out of its range.
        UnknownNameError: For an unknown noise.
        MissingDependencyError: Where the noise needs Aer or IBM's fake devices and they are not installed.
    """
    sampling = sampling_option(spec)
    noisy = build_noise(spec)
    mitigation = noisy_mitigation(spec, noisy.model, fits=("linear", "richardson"))
    engine: NoisyEngine | MitigatedEngine = noisy
    if mitigation is not None:
        if sampling.precision > 0:
            raise ConfigError(
                f"{str(spec)!r} mitigates exact values: leave shots and precision out, or take aer?noise=…&shots=…."
            )
        engine = MitigatedEngine(noisy, mitigation)
    estimator = TorchEstimator(engine, default_precision=sampling.precision, seed=sampling.seed)
    sampler = without_sampler(spec) or TorchSampler(noisy, **sampling.of_samplers)
    program = partial(_noisy_program, engine)
    return replace(_backend(spec, estimator, sampling, program, sampler), mitigation=mitigation)


STATEVECTOR = Provider(
    summary="The exact engine: batched, differentiable, on the CPU or a GPU",
    build=statevector,
    options=STATEVECTOR_OPTIONS,
)
DENSITY_MATRIX = Provider(
    summary="The noisy engine: batched, differentiable, up to 6 qubits",
    build=density_matrix,
    options=SAMPLING_OPTIONS | NOISE_OPTIONS | MITIGATION_OPTIONS,
)


class ExactSampler(TorchSampler):
    """Samples of the exact engine; beyond 16 qubits, of matrix product states.

    Args:
        wide: Whether there are more qubits than that.
        options: The options of :class:`LocalSampler`.
    """

    def __init__(self, *, wide: bool, **options: Any) -> None:
        super().__init__(**options)
        self._wide, self._options = wide, options

    def _sample(self, pub: SamplerPub) -> Mapping[str, BitArray]:
        if not self._wide or len(Outcomes.of(pub.circuit).qubits) <= SAMPLED_QUBITS:
            return super()._sample(pub)
        seed = int(self._rng.integers(2**31))
        return mps_sampler(MAX_BOND, **self._options | {"seed": seed})._sample(pub)


def _noisy_program(engine: NoisyEngine | MitigatedEngine, circuit: AttentionCircuit) -> nn.Module:
    return engine(
        circuit.circuit, circuit.observables, input_params=circuit.input_params, weight_params=circuit.weight_params
    )


def _exact_or_mps(circuit: AttentionCircuit) -> nn.Module:
    """Return the exact program, or beyond its number of qubits one of matrix product states."""
    if circuit.encoding.kind in ("unary", "matrix") or circuit.num_qubits <= MAX_QUBITS:
        return _exact_program(circuit)
    part, observables = in_use(circuit.circuit, list(circuit.observables))  # of a device, perhaps
    program: Callable[..., nn.Module] = StatevectorProgram if part.num_qubits <= MAX_QUBITS else mps_program
    return program(part, observables, input_params=circuit.input_params, weight_params=circuit.weight_params)


def _exact_program(circuit: AttentionCircuit) -> nn.Module:
    """Return the exact program; circuits that encode vectors take the vector itself."""
    if circuit.encoding.kind == "unary":
        return OrthogonalProgram(circuit)
    if circuit.encoding.kind == "matrix":
        return CompoundProgram(circuit)
    if circuit.encoding.kind == "amplitude":
        return StatevectorProgram(
            circuit.ansatz, circuit.observables, weight_params=circuit.weight_params, input_kind="amplitude"
        )
    return StatevectorProgram(
        circuit.circuit, circuit.observables, input_params=circuit.input_params, weight_params=circuit.weight_params
    )


def _backend(
    spec: BackendSpec,
    estimator: TorchEstimator,
    sampling: Sampling,
    program: Callable[[AttentionCircuit], nn.Module],
    sampler: BaseSamplerV2,
) -> Backend:
    """Return the backend of a torch engine, with autograd where values are exact and a gradient rule where sampled."""
    exact = sampling.precision == 0
    for key in GRADIENT_OPTIONS:
        if exact and key in spec.options:
            raise ConfigError(
                f"Backend {spec.name!r} without shots returns exact values, whose gradients are exact too: leave "
                f"{key} out, or give shots."
            )
    return Backend(
        str(spec),
        estimator,
        sampler=sampler,
        precision=sampling.precision,
        shots=sampling.shots,
        differentiable=exact,
        dedupe=sampling.dedupe,
        gradient=gradient_option(spec, sampling.seed),
        program=program if exact else None,
    )
