"""How a user's network is evaluated: on which engine, and why on that one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from qiskit.exceptions import QiskitError
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from torch import nn

from qiskit_qattn.backends.mps import mps_program, mps_summary
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.errors import CircuitError, MissingDependencyError
from qiskit_qattn.nn.networks import check_layout, is_exact, own_gradient, plain_network
from qiskit_qattn.nn.outcomes import OutcomeProgram, is_exact_sampler, own_sampler_gradient
from qiskit_qattn.simulation.cutting import in_use, without_final_measurements
from qiskit_qattn.simulation.elementary import as_circuit
from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.plan import MAX_QUBITS
from qiskit_qattn.simulation.readout import as_pauli_sum
from qiskit_qattn.simulation.statevector import StatevectorProgram
from qiskit_qattn.simulation.vector_input import vector_program

#: What happens where no program computes what a network computes.
_LEFT = "the network computes values and gradients itself"


@dataclass(frozen=True)
class CompiledQNN:
    """How a network will be evaluated.

    Attributes:
        engine: ``statevector`` and ``density_matrix`` are torch engines with autograd. ``mps`` and ``pub`` send
            broadcast PUBs with gradients by parameter shift: to matrix product states, for exact values beyond 20
            qubits, and to the network's own estimator. ``network`` leaves all to the network, one PUB per sample.
        reason: Why this one, in a sentence.
        program: The module that evaluates ``(inputs, weights)``, or None for ``network``.
    """

    engine: Literal["statevector", "density_matrix", "mps", "pub", "network"]
    reason: str
    program: nn.Module | None = field(repr=False)

    def __str__(self) -> str:
        return f"{self.engine}: {self.reason}"


def compile_qnn(network: NeuralNetwork) -> CompiledQNN:
    """Tell which engine :class:`~qiskit_qattn.nn.connector.TorchConnector` runs a network on, and why.

    Args:
        network: Any Qiskit Machine Learning network.

    Raises:
        CircuitError: For a network that measures other qubits than those its layout put the circuit on.
    """
    if (plain := plain_network(network)) is not network:
        found = compile_qnn(plain)
        if found.engine in ("statevector", "density_matrix"):
            return found
        return CompiledQNN("network", f"{type(network).__name__} draws samples itself, as one batch a pass.", None)
    if type(network) is SamplerQNN:
        return _compile_sampler(network)
    if type(network) is not EstimatorQNN:
        kind = "a subclass of" if isinstance(network, EstimatorQNN | SamplerQNN) else "no"
        base = "SamplerQNN" if isinstance(network, SamplerQNN) else "EstimatorQNN"
        return CompiledQNN("network", f"{type(network).__name__} is {kind} {base}.", None)
    check_layout(network)
    estimator, gradient = network.estimator, network.gradient
    if (why := own_gradient(network)) is not None:
        return CompiledQNN("network", f"{why}, so {_LEFT}.", None)
    arguments: dict[str, Any] = {
        "input_params": network.input_params or (),
        "weight_params": network.weight_params or (),
    }
    circuit, observables = network.circuit, list(network.observables)
    try:
        if is_exact(network):
            engine = getattr(estimator, "engine", StatevectorProgram)
            if engine is StatevectorProgram and (encoded := vector_program(circuit, observables, **arguments)):
                why = f"{type(estimator).__name__} returns exact values; {encoded.summary()}."
                return CompiledQNN("statevector", why, encoded)
            if engine is StatevectorProgram:  # circuits in a device's layout have idle qubits
                circuit, observables = in_use(circuit, list(map(as_pauli_sum, observables)))
            if engine is StatevectorProgram and circuit.num_qubits > MAX_QUBITS:
                circuit = as_circuit(flatten(circuit), circuit.num_qubits)  # gates that Aer cannot take for others
                why = f"{type(estimator).__name__} returns exact values; {mps_summary(circuit)}."
                return CompiledQNN("mps", why, mps_program(circuit, observables, **arguments))
            program = engine(circuit, observables, **arguments)
            name: Any = "statevector" if isinstance(program, StatevectorProgram) else "density_matrix"
            return CompiledQNN(name, f"{type(estimator).__name__} returns exact values; {program.summary()}.", program)
        circuit = without_final_measurements(circuit)
        if type(gradient) is not ParamShiftEstimatorGradient:
            why = f"{type(estimator).__name__} is not exact and {type(gradient).__name__} is no parameter shift"
            return CompiledQNN("network", f"{why}, so {_LEFT}.", None)
        precision = network.default_precision
        program = PubProgram(circuit, observables, estimator=estimator, precision=precision, **arguments)
    except (CircuitError, MissingDependencyError, QiskitError) as error:
        # too wide, not unitary, no Aer, no definition before parameters are bound: the network may manage
        return CompiledQNN("network", str(error), None)
    why = f"{type(estimator).__name__} at precision {precision:g} is no exact simulator; one PUB per pass."
    return CompiledQNN("pub", why, program)


def _compile_sampler(network: SamplerQNN) -> CompiledQNN:
    """Return how a SamplerQNN is evaluated: on the exact engine if its sampler draws no shots."""
    name = type(network.sampler).__name__
    if why := own_sampler_gradient(network) or (not is_exact_sampler(network) and f"{name} draws shots"):
        return CompiledQNN("network", f"{why}, so {_LEFT}.", None)
    try:
        program = OutcomeProgram(network)
    except (CircuitError, QiskitError) as error:
        return CompiledQNN("network", str(error), None)
    return CompiledQNN("statevector", f"{name} returns exact probabilities; {program.summary()}.", program)
