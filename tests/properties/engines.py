"""The exact engines as functions of inputs and weights, for examples of :mod:`circuits`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from hypothesis import reject
from qiskit.primitives import StatevectorEstimator
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import Tensor

from qiskit_qattn import TorchConnector, TorchEstimator, compile_qnn, get_backend
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.blockwise import Blockwise
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram
from qiskit_qattn.simulation.statevector import StatevectorProgram

from .circuits import Example

Function = Callable[[Tensor, Tensor], Tensor]  # inputs (B, num_inputs) and weights to values (B, M)


def network(example: Example, estimator: object) -> EstimatorQNN:
    """Return an example as a network of Qiskit Machine Learning's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EstimatorQNN(
            circuit=example.circuit,
            observables=example.observables,
            input_params=example.input_params,
            weight_params=example.weight_params,
            estimator=estimator,
            default_precision=0.0,
            input_gradients=True,
        )


def connector(example: Example, estimator: object, kind: type = StatevectorProgram, dtype=torch.float64) -> Function:
    """Return an example's connector, which must run a program of this kind."""
    model = TorchConnector(network(example, estimator)).to(dtype)
    if not isinstance(model._program, kind):
        compiled = compile_qnn(model.neural_network)
        assert compiled.engine == "network" and "whole numbers" in compiled.reason, str(compiled)
        reject()  # a fractional power of a gate with parameters
    return lambda x, w: torch.func.functional_call(model, {"weight": w}, (x,))


def program(example: Example) -> StatevectorProgram:
    """Return an example's program."""
    params = {"input_params": example.input_params, "weight_params": example.weight_params}
    try:
        return StatevectorProgram(example.circuit, example.observables, **params).double()
    except CircuitError as error:
        if "whole numbers" not in str(error):
            raise
        reject()


def gate_by_gate(example: Example) -> Function:
    """Return an example's program, which forms no matrices."""
    found = program(example)
    found.unitaries = None
    return found


def blocks(example: Example) -> Function:
    """Return an example's program in blocks of two qubits, so that many operations are larger than a block."""
    found = program(example)
    found.unitaries, found.gates = None, Blockwise(found.plan, width=2).double()
    return found


ENGINES: dict[str, tuple[int, Callable[[Example], Function]]] = {  # with the most qubits of an example
    "connector": (5, lambda example: connector(example, StatevectorEstimator())),
    "connector, TorchEstimator": (5, lambda example: connector(example, TorchEstimator())),
    "density_matrix": (
        3,
        lambda example: connector(example, get_backend("density_matrix").estimator, DensityMatrixProgram),
    ),
    "dense": (5, program),
    "gate by gate": (5, gate_by_gate),
    "blocks": (5, blocks),
}
