"""The backend ``aer``: Qiskit Aer's simulators as a primitive, with exact readout error or samples of grouped bases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit.primitives import DataBin, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import Pauli

from qiskit_qattn.backends.aer_sampler import AerSampler
from qiskit_qattn.backends.gradients import gradient_option
from qiskit_qattn.backends.measurement import Plan, Samples, shots_of
from qiskit_qattn.backends.mitigation import MITIGATION_OPTIONS, TWIRLING_OPTION, noisy_mitigation
from qiskit_qattn.backends.mitigation_aer import MitigatedAerEstimator, runtime_gates
from qiskit_qattn.backends.mps import AER_LOCK, MAX_BOND, MPSEstimator, aer_binds
from qiskit_qattn.backends.noise import NOISE_OPTIONS, build_noise, noise_on
from qiskit_qattn.backends.options import SAMPLING_OPTIONS, sampling_option, without_sampler
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError, unknown_name
from qiskit_qattn.library.observables import basis_rotation
from qiskit_qattn.simulation.cutting import Cut, cut
from qiskit_qattn.simulation.decomposition import device_pubs, preset_pass_manager, transpiled
from qiskit_qattn.simulation.estimator import LocalEstimator
from qiskit_qattn.simulation.gates import standard_name
from qiskit_qattn.simulation.noise import DeviceNoise

METHODS = ("statevector", "density_matrix", "matrix_product_state")
AER_OPTIONS = (
    SAMPLING_OPTIONS
    | NOISE_OPTIONS
    | MITIGATION_OPTIONS
    | TWIRLING_OPTION
    | {
        "device": "CPU (default), or GPU where Aer was built for one",
        "max_bond": f"matrix_product_state: largest bond dimension (default {MAX_BOND})",
    }
)


def aer(spec: BackendSpec) -> Backend:
    """Return an Aer simulator; without a target, the density matrix where there is noise, else the statevector.

    Raises:
        UnknownNameError: For an unknown method, device or noise.
        ConfigError: For a value out of its range, or options that do not go together.
        MissingDependencyError: Where the noise needs IBM's fake devices and they are not installed.
    """
    noise = build_noise(spec)
    method = spec.target or ("statevector" if noise.model is None else "density_matrix")
    if method not in METHODS:
        raise unknown_name("method of backend 'aer':", method, METHODS)
    sampling = sampling_option(spec)
    mitigation = noisy_mitigation(spec, noise.model, twirls=True)
    max_bond = spec.integer("max_bond", minimum=1)
    if max_bond is not None and method != "matrix_product_state":
        raise ConfigError(f"Backend option max_bond={max_bond} needs aer:matrix_product_state, got aer:{method}.")
    if noise.model is not None and method != "density_matrix" and sampling.precision == 0:
        raise ConfigError(
            f"aer:{method} with noise simulates one random noise realisation per shot: give shots, or take "
            f"aer:density_matrix, which is exact."
        )
    device = _device(spec, method)
    bond = MAX_BOND if max_bond is None else max_bond
    if method == "matrix_product_state" and noise.model is None:
        estimator: Any = MPSEstimator(max_bond=bond, default_precision=sampling.precision, seed=sampling.seed)
        pass_manager = None  # it puts circuits on a line itself
    elif mitigation is not None:
        gates = runtime_gates(spec, noise.model, sampled=sampling.precision > 0)
        simulator_on = partial(_noisy_simulator, noise.model, method, device, bond)
        estimator = MitigatedAerEstimator(
            simulator_on, mitigation, default_precision=sampling.precision, seed=sampling.seed
        )
        pass_manager = noise.pass_manager if str(spec.options["noise"]).startswith("fake_") else gates
    else:
        simulator = _simulator(method, device, bond)
        estimator = AerEstimator(simulator, noise.model, default_precision=sampling.precision, seed=sampling.seed)
        pass_manager = noise.pass_manager or preset_pass_manager(0, backend=simulator)
    sampler = without_sampler(spec) or AerSampler(_simulator(method, device, bond), noise.model, **sampling.of_samplers)
    return Backend(
        str(spec),
        estimator,
        pass_manager=pass_manager,
        precision=sampling.precision,
        shots=sampling.shots,
        dedupe=sampling.dedupe,
        gradient=gradient_option(spec, sampling.seed),
        mitigation=mitigation,
        sampler=sampler,
    )


PROVIDER = Provider(
    summary="Qiskit Aer's simulators, in this process",
    build=aer,
    options=AER_OPTIONS,
    targets=f"{', '.join(METHODS)}; by default density_matrix where there is noise, else statevector",
    extra="aer",
    modules=("qiskit_aer",),
)


def _device(spec: BackendSpec, method: str) -> str:
    """Return CPU or GPU."""
    from qiskit_aer import AerSimulator

    device = spec.options.get("device", "CPU").upper()
    if device not in ("CPU", "GPU"):
        raise unknown_name("device of backend 'aer':", device, ("CPU", "GPU"))
    available = AerSimulator().available_devices()
    if device not in available:
        raise ConfigError(
            f"device={device}: this Aer was built for {', '.join(available)} only. Leave device out, or install an "
            f"Aer for your GPU, such as qiskit-aer-gpu."
        )
    if device == "GPU" and method == "matrix_product_state":
        raise ConfigError("aer:matrix_product_state runs on the CPU only; leave device=GPU out.")
    return device


def _simulator(method: str, device: str, max_bond: int) -> Any:
    from qiskit_aer import AerSimulator

    bond = {"matrix_product_state_max_bond_dimension": max_bond} if method == "matrix_product_state" else {}
    return AerSimulator(method=method, device=device, enable_truncation=False, **bond)


def _noisy_simulator(model: Any, method: str, device: str, max_bond: int, qubits: tuple[int, ...]) -> Any:
    simulator = _simulator(method, device, max_bond)
    simulator.set_options(noise_model=noise_on(model, qubits))
    return simulator


class AerEstimator(LocalEstimator):
    r"""A ``BaseEstimatorV2`` over an ``AerSimulator``: one Aer run per PUB, for all its parameter sets.

    With precision 0 values are exact. Readout error, which Aer's own estimator leaves out, turns a measured Z into

    .. math:: \alpha Z + \beta, \qquad \alpha = 1 - p_{1|0} - p_{0|1}, \quad \beta = p_{0|1} - p_{1|0}

    on each qubit. With precision ε > 0 values are means over :math:`\lceil 1/\varepsilon^2 \rceil` samples of each
    measurement basis, misread as the noise model says. The rotations into a basis are perfect, so that the samples'
    mean is the exact value.

    Args:
        simulator: An ``AerSimulator`` without a noise model; circuits come cut to the qubits in use.
        noise: An Aer ``NoiseModel``, or None.
        default_precision: Precision where a run gives none; 0 asks for exact values.
        seed: Seed of the sampling. Successive runs continue one stream of random numbers.

    Raises:
        CircuitError: (from a job) for parameter values that are not finite, a circuit that measures, or exact values of
            one that resets a qubit in use, which take a density matrix.
        BackendError: (from a job) if Aer fails.
    """

    def __init__(
        self, simulator: Any, noise: Any = None, *, default_precision: float = 0.0, seed: int | None = None
    ) -> None:
        super().__init__(default_precision=default_precision, seed=seed)
        self.simulator, self.noise = simulator, noise
        self._noise_on: dict[tuple[int, ...], Any] = {}
        self._gates = frozenset(simulator.target.operation_names) | {"barrier"}
        self._decomposition = preset_pass_manager(0, target=simulator.target)

    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        return [self._run_pub(self._in_its_gates(pub)) for pub in device_pubs(pubs)]

    def _in_its_gates(self, pub: EstimatorPub) -> EstimatorPub:
        """Return a PUB whose circuit uses only gates that the simulator's method supports."""
        circuit = pub.circuit
        if self._gates.issuperset(item.operation.name for item in circuit.data):
            return pub
        return EstimatorPub(
            transpiled(self._decomposition, circuit), pub.observables, pub.parameter_values, pub.precision
        )

    def _run_pub(self, pub: EstimatorPub) -> PubResult:
        plan = Plan(pub)
        if pub.precision == 0 and self.simulator.options.method != "density_matrix":
            _refuse_resets(pub.circuit)
        if not np.isfinite(plan.points).all():  # Aer would never return
            raise CircuitError(f"Parameter values must be finite, got {plan.points[~np.isfinite(plan.points)][0]}.")
        metadata: dict[str, Any] = {
            "target_precision": pub.precision,
            "circuit_metadata": pub.circuit.metadata,
        }
        if pub.precision == 0:
            values = plan.from_expectations(self._expectations(plan))
        else:
            metadata["shots"] = shots_of(pub.precision)
            values = plan.from_samples(self._samples(plan, metadata["shots"]))
        return PubResult(DataBin(evs=values.evs, stds=values.stds, shape=pub.shape), metadata=metadata)

    def _expectations(self, plan: Plan) -> np.ndarray:
        """Return the expectations of a plan's Pauli strings, shape ``(N, T)``."""
        if not plan.terms:  # nothing but multiples of the identity
            return np.zeros((len(plan.points), 0))
        part = used_part(plan)
        noise = DeviceNoise(self.noise, part.qubits)
        read = [noise.as_read(part.label(label)) for label in plan.terms]
        labels = list(dict.fromkeys(label for terms in read for label in terms))
        factors = np.array([terms.get(label, 0.0) for terms in read for label in labels]).reshape(len(read), -1)
        if not (labels and len(plan.points)):
            return np.zeros((len(plan.points), len(read)))
        observed = part.circuit.copy()
        for label in labels:
            observed.save_expectation_value(Pauli(label), range(observed.num_qubits), label=label)
        points = plan.points if observed.parameters else plan.points[:1]
        rows = self._run_aer(part, [observed], [dict(zip(plan.parameters, points.T, strict=True))], shots=1)
        table = np.array([[row[label] for label in labels] for row in rows])  # (N or 1, L)
        return np.broadcast_to(table @ factors.T, (len(plan.points), len(read)))

    def _samples(self, plan: Plan, shots: int) -> Iterator[Samples]:
        """Yield what each basis and each of its rows measured."""
        if not plan.bases:
            return
        part = used_part(plan)
        circuits, points = [], []
        for basis in plan.bases:
            measured = _measured(part.circuit, part.label(basis.label))
            repeats = 1 if measured.parameters else len(basis.rows)
            circuits += repeats * [measured]
            points += repeats * [dict(zip(plan.parameters, plan.points[basis.rows].T, strict=True))]
        results = self._run_aer(part, circuits, points, shots=shots, seed_simulator=int(self._rng.integers(2**31)))
        for counts in (data["counts"] for data in results):
            bits = np.zeros((len(counts), plan.pub.circuit.num_qubits), dtype=int)
            outcomes = [int(outcome, 16) for outcome in counts]
            bits[:, part.qubits] = [[outcome >> i & 1 for i in range(len(part.qubits))] for outcome in outcomes]
            yield Samples(bits, np.array(list(counts.values())) / shots, shots)

    def _run_aer(
        self, part: Cut, circuits: list[QuantumCircuit], points: list[dict[Any, np.ndarray]], **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the data of each circuit at each of its points, in one run."""
        if not aer_binds(part.circuit):
            circuits = [
                circuit.assign_parameters(dict(zip(point, row, strict=True)))
                for circuit, point in zip(circuits, points, strict=True)
                for row in zip(*point.values(), strict=True)
            ]
        elif part.circuit.parameters:
            options["parameter_binds"] = [
                {param: values.tolist() for param, values in point.items() if param in part.circuit.parameters}
                for point in points
            ]
        if self.noise is not None and part.qubits not in self._noise_on:
            self._noise_on[part.qubits] = noise_on(self.noise, part.qubits)
        with AER_LOCK:
            result = self.simulator.run(circuits, noise_model=self._noise_on.get(part.qubits), **options).result()
        if not result.success:
            raise BackendError(f"Aer could not run the circuit: {result.status}")
        return (entry.data.to_dict() for entry in result.results)


def used_part(plan: Plan) -> Cut:
    """Return a plan's circuit on the qubits that it acts on, or that a Pauli string is about.

    Aer cuts circuits too, but then gets the expectations of strings on some of the qubits wrong (its issue 2442).

    Raises:
        CircuitError: For a circuit with classical bits in use.
    """
    return cut(
        plan.pub.circuit, {at for label in plan.terms for at, letter in enumerate(reversed(label)) if letter != "I"}
    )


def _refuse_resets(circuit: QuantumCircuit) -> None:
    """Raise :class:`CircuitError` for a reset of a qubit in use: it leaves a mixed state, of which Aer draws a part."""
    used: set[Any] = set()
    for item in circuit.data:
        name = standard_name(item.operation)
        if name in ("reset", "initialize") and not used.isdisjoint(item.qubits):
            raise CircuitError(
                f"Instruction {name!r} on a qubit in use leaves a mixed state: take aer:density_matrix for exact "
                f"values, or give shots."
            )
        if name not in ("barrier", "reset", "id", "delay"):
            used.update(item.qubits)


def _measured(circuit: QuantumCircuit, label: str) -> QuantumCircuit:
    """Return the circuit with the qubits that a Pauli string touches measured in its basis, each into its own bit."""
    measured = circuit.copy()
    measured.add_register(ClassicalRegister(circuit.num_qubits))
    rotations = basis_rotation(label.replace("I", "Z"))
    for qubit, letter in enumerate(reversed(label)):
        if letter in "XY":
            measured.append(UnitaryGate(rotations[qubit]), [qubit])  # noise models have no errors for it
        if letter != "I":
            measured.measure(qubit, qubit)
    return measured
