"""A user's network: its circuit, whether an EstimatorQNN measures the qubits that it should, and its files."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
from pathlib import Path
from typing import Any

from qiskit import qpy
from qiskit.circuit import Parameter
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler.layout import TranspileLayout
from qiskit_machine_learning.gradients import DerivativeType, LinCombEstimatorGradient, ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator
from torch import Tensor

from qiskit_qattn.backends.jobs.circuit_text import with_parameters
from qiskit_qattn.backends.values import bounds, check_values
from qiskit_qattn.errors import CheckpointError, CircuitError, ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.outcomes import sampler_circuit
from qiskit_qattn.simulation.cutting import cut, measured_qubits
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.readout import as_pauli_sum
from qiskit_qattn.untrusted import read_bytes, read_json, shown

CIRCUIT, ABOUT, WEIGHTS = "network.qpy", "network.json", "model.safetensors"
_FORMAT = 1
_UNREADABLE = (QiskitError, OSError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error)


def plain_network(network: NeuralNetwork) -> Any:
    """Return a network, or of one that :func:`~qiskit_qattn.nn.fast.fast` made the same in Qiskit ML's own class."""
    return network.as_plain_network() if hasattr(network, "as_plain_network") else network


def network_circuit(network: NeuralNetwork) -> AttentionCircuit:
    """Return what a network computes, for a backend to run.

    A circuit that was transpiled already is cut to the qubits in use, without its layout.

    Raises:
        ConfigError: For other classes than :class:`EstimatorQNN` and :class:`SamplerQNN`; a subclass may compute
            something else.
        CircuitError: For a network that measures other qubits than those its layout put the circuit on, or one whose
            outcomes cannot be measured: see :func:`~qiskit_qattn.nn.outcomes.sampler_circuit`.
    """
    network = plain_network(network)
    if type(network) is SamplerQNN:
        return sampler_circuit(network)
    if type(network) is not EstimatorQNN:
        raise ConfigError(
            f"A TorchConnector runs on backends an EstimatorQNN or a SamplerQNN of Qiskit Machine Learning only, got "
            f"{_described(network)}. Without backend it runs on its own primitive."
        )
    check_layout(network)
    circuit, laid_out = network.circuit, network.circuit.layout is not None
    observables = [SparsePauliOp(each) if isinstance(each, str) else as_pauli_sum(each) for each in network.observables]
    if circuit.clbits:
        circuit = circuit.remove_final_measurements(inplace=False)
    if laid_out and not any(item.clbits for item in circuit.data):
        part = cut(circuit, measured_qubits(circuit, observables))
        circuit, observables = part.circuit, part.observables(observables)
    return AttentionCircuit.from_circuit(circuit, observables, network.input_params or (), network.weight_params or ())


def check_layout(network: NeuralNetwork) -> None:
    r"""Refuse a network that measures other qubits than those a layout put its circuit on.

    Qiskit Machine Learning measures :math:`Z^{\otimes n}` on qubits 0 to n − 1 where no observables are given, also of
    a circuit that a layout put elsewhere. Qubits that nothing acts on stay in :math:`|0\rangle`, where Z is 1 as it
    should be, and do not count. Observables that were given are taken to be in the layout; those on fewer qubits than
    the device's cannot be.

    Raises:
        CircuitError: If it measures qubits that it should not, or the other way round, and they are in use; for
            observables on other numbers of qubits than the transpiled circuit.
    """
    if type(network) is not EstimatorQNN:
        return
    circuit, observables = network.circuit, list(network.observables)
    layout, count, size = circuit.layout, network.num_virtual_qubits, circuit.num_qubits
    if not isinstance(layout, TranspileLayout):
        return
    where, right = layout.final_index_layout(), "observables=[op.apply_layout(circuit.layout), …]"
    sizes = {getattr(each, "num_qubits", size) for each in observables} - {size}
    if sizes:
        wrong = f"has observables on {', '.join(map(str, sorted(sizes)))} qubits, but its circuit is on {size}, since a"
    elif len(observables) == 1 and _is_parity(observables[0], size, count):
        used = {circuit.find_bit(bit).index for item in circuit.data if not item.is_directive() for bit in item.qubits}
        if not (set(range(count)) ^ set(where)) & used:
            return
        wrong = (
            f"measures Z on qubits 0 to {count - 1}, Qiskit Machine Learning's default: values of other qubits, since a"
        )
    else:
        return
    raise CircuitError(
        f"This EstimatorQNN {wrong} pass manager put the circuit's {count} qubits on {where}. Give it the circuit "
        f"before transpiling, without pass_manager, and run it by TorchConnector(network, backend='ibm:…'); or give it "
        f"the transpiled circuit and {right}."
    )


def _is_parity(observable: Any, size: int, count: int) -> bool:
    """Tell whether an observable is Z on the first ``count`` of ``size`` qubits."""
    label = "I" * (size - count) + "Z" * count
    return isinstance(observable, SparsePauliOp) and observable.to_list() == [(label, 1)]


def save_network(network: NeuralNetwork, folder: str | os.PathLike[str]) -> None:
    """Write a network to a folder: ``network.qpy``, its circuit, and ``network.json``, what is measured and the orders.

    Raises:
        ConfigError: For another class than :class:`EstimatorQNN`; what interprets a SamplerQNN's outcomes is code.
        CircuitError: As :func:`network_circuit` does.
        CheckpointError: If the files cannot be written.
    """
    if type(network) is not EstimatorQNN:
        raise ConfigError(
            f"A TorchConnector saves an EstimatorQNN of Qiskit Machine Learning only, got {_described(network)}. Save "
            f"its state_dict() instead."
        )
    parts = network_circuit(network)
    circuit = parts.circuit
    about = {
        "format": _FORMAT,
        "observables": [
            [[label, float(factor.real)] for label, factor in observable.to_list()] for observable in parts.observables
        ],
        "input_params": [param.name for param in parts.input_params],
        "weight_params": [param.name for param in parts.weight_params],
        "input_gradients": network.input_gradients,
    }
    # A part of a ParameterVector alone cannot be read back without a warning: QPY gets plain parameters of its names.
    stream = io.BytesIO()
    qpy.dump(with_parameters(circuit, [Parameter(param.name) for param in circuit.parameters]), stream)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / CIRCUIT).write_bytes(stream.getvalue())
        (Path(folder) / ABOUT).write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise CheckpointError(
            f"The network cannot be written to {str(folder)!r}: {error.strerror or error}."
        ) from error


def is_network(folder: Path) -> bool:
    """Tell whether a folder holds a network that :func:`save_network` wrote, or a part of one."""
    return any((folder / name).is_file() for name in (CIRCUIT, ABOUT))


def load_network(folder: str | os.PathLike[str]) -> EstimatorQNN:
    """Return a network that :func:`save_network` wrote, on Qiskit Machine Learning's default estimator, which is exact.

    Raises:
        CheckpointError: For a folder without a network, or files that are damaged or do not fit together.
    """
    home = Path(folder)
    missing = [name for name in (CIRCUIT, ABOUT) if not (home / name).is_file()]
    if missing:
        raise CheckpointError(f"{str(folder)!r} has no saved network: {' and '.join(missing)} missing.")
    try:
        about = read_json(home / ABOUT)
        observables, inputs, weights, to_inputs = _parts(about)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{ABOUT} in {str(folder)!r} cannot be used: {reason}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a damaged file may be read with a warning
            (circuit,) = qpy.load(io.BytesIO(read_bytes(home / CIRCUIT)))
    except (*_UNREADABLE, UserWarning) as error:
        raise CheckpointError(f"{CIRCUIT} in {str(folder)!r} is no circuit this Qiskit can read: {error}") from error
    known = {param.name: param for param in circuit.parameters}
    ordered = [[known.get(name) or Parameter(name) for name in names] for names in (inputs, weights)]
    try:
        parts = AttentionCircuit.from_circuit(circuit, observables, *ordered)
    except CircuitError as error:
        raise CheckpointError(f"{CIRCUIT} and {ABOUT} in {str(folder)!r} do not fit together: {error}") from error
    return EstimatorQNN(
        circuit=circuit,
        observables=list(parts.observables),
        input_params=ordered[0],
        weight_params=ordered[1],
        input_gradients=to_inputs,
    )


def _parts(about: Any) -> tuple[list[SparsePauliOp], list[str], list[str], bool]:
    """Return observables, names of inputs and of weights, and whether inputs have gradients.

    Raises:
        ValueError: For anything that :func:`save_network` does not write.
    """
    keys = ["format", "observables", "input_params", "weight_params", "input_gradients"]
    if not isinstance(about, dict) or sorted(about) != sorted(keys):
        raise ValueError(f"it must be an object with the keys {', '.join(keys)}.")
    if about["format"] != _FORMAT:
        raise ValueError(f"it is of format {shown(about['format'])}; this version reads {_FORMAT}.")
    names = about["input_params"], about["weight_params"]
    if not all(isinstance(some, list) and all(isinstance(name, str) for name in some) for some in names):
        raise ValueError("input_params and weight_params must be lists of names.")
    if not isinstance(about["input_gradients"], bool):
        raise ValueError(f"input_gradients must be true or false, got {shown(about['input_gradients'])}.")
    observables = about["observables"]
    if not (isinstance(observables, list) and observables and all(map(_is_sum, observables))):
        raise ValueError("observables must be a list of lists of pairs such as ['ZI', 1.0], at least one.")
    return (
        [SparsePauliOp.from_list([(label, factor) for label, factor in each]) for each in observables],
        *names,
        about["input_gradients"],
    )


def _is_sum(terms: Any) -> bool:
    return (
        isinstance(terms, list)
        and bool(terms)
        and all(isinstance(term, list) and len(term) == 2 for term in terms)
        and all(isinstance(label, str) and label and not set(label) - set("IXYZ") for label, _ in terms)
        and all(type(factor) is float or (type(factor) is int and abs(factor) < 2**63) for _, factor in terms)
        and len({len(label) for label, _ in terms}) == 1
    )


def _described(network: Any) -> str:
    name = type(network).__name__
    known = type(network) in (EstimatorQNN, SamplerQNN) or not isinstance(network, EstimatorQNN | SamplerQNN)
    return f"a {name}" if known else f"a subclass, {name}"


def is_exact(network: EstimatorQNN) -> bool:
    """Tell whether a network's estimator is a simulator that returns exact values, of which a torch engine is known."""
    return _is_exact(network.estimator, network.default_precision)


def _is_exact(estimator: Any, precision: float) -> bool:
    """Tell whether an estimator returns exact values when asked for ``precision``."""
    if type(estimator) is QMLEstimator:
        return estimator.default_precision == 0  # it then ignores the precision asked for
    return type(estimator) in (StatevectorEstimator, TorchEstimator) and precision == 0


def own_gradient(network: EstimatorQNN) -> str | None:
    """Return what makes a network's gradient more than the derivative of its values, or None if nothing does."""
    gradient, estimator = network.gradient, network.estimator
    name = type(gradient).__name__
    if type(gradient) not in (ParamShiftEstimatorGradient, LinCombEstimatorGradient):
        return f"{name} is no exact derivative"
    if gradient.derivative_type is not DerivativeType.REAL:
        return f"{name} is of derivative_type {gradient.derivative_type.name}, not REAL"
    own = gradient._estimator
    if own is not estimator and not (is_exact(network) and _is_exact(own, getattr(own, "default_precision", 1.0))):
        return f"{name} has an estimator of its own, {type(own).__name__}"
    return None


def check_network_values(values: Tensor, network: EstimatorQNN) -> None:
    """Raise :class:`BackendError` for values that no state gives, of a network's estimator."""
    level = getattr(getattr(network.estimator, "options", None), "resilience_level", 0)  # of Qiskit Runtime's
    limits = bounds(ObservablesArray.coerce(list(network.observables)))
    where = type(network.estimator).__name__
    check_values(values.detach().cpu().numpy(), limits, network.default_precision, where, mitigated=level != 0)
