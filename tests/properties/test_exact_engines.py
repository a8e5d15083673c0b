"""The exact engines equal Qiskit's ``Statevector`` on random circuits: values, derivatives and transforms of torch."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import reject
from qiskit.circuit import ParameterExpression
from qiskit.primitives import StatevectorEstimator

from . import checks, expressions
from .circuits import Example
from .engines import ENGINES, connector
from .gates import LEADING, NO_MATRIX, TABLE, library_classes
from .reference import Reference, reference
from .runs import run_examples

# Torch's forward mode loads decompositions through torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
IN_MORE = {"connector, TorchEstimator", "dense"}  # the same program as the connector's
GATES = [
    pytest.param(gate, engine, id=f"{engine}-{gate}", marks=[pytest.mark.more] if engine in IN_MORE else [])
    for engine, (most, _) in ENGINES.items()
    for gate in TABLE
    if TABLE[gate][0] <= most
]


def test_every_gate_class_of_qiskits_library_is_drawn():
    assert library_classes().keys() - NO_MATRIX - LEADING == TABLE.keys()


def test_every_operation_of_parameter_expressions_is_drawn():
    no_expression = {"assign", "bind", "bind_all", "gradient", "numeric", "simplify", "subs", "sympify"}
    no_expression |= {"is_real", "is_symbol", "structurally_equal"}
    methods = {name for name, _ in inspect.getmembers(ParameterExpression, callable) if not name.startswith("_")}
    assert methods - no_expression == expressions.METHODS.keys()
    signs = {"__add__", "__sub__", "__mul__", "__truediv__", "__pow__"}
    operators = {name for name in dir(ParameterExpression) if name.replace("__r", "__") in signs}
    assert len(operators) == 2 * len(signs) == 2 * len(expressions.OPERATORS)


@pytest.mark.parametrize(("gate", "engine"), GATES)
def test_values_derivatives_and_transforms(gate: str, engine: str) -> None:
    most, build = ENGINES[engine]

    def check(example: Example) -> None:
        found = known(example)
        function = build(example)
        checks.check_values(function, found)
        checks.check_derivatives(function, found)
        checks.check_transforms(function, found)

    run_examples(check, gate, most)


@pytest.mark.more
@pytest.mark.parametrize("gate", TABLE)
def test_single_precision(gate: str) -> None:
    def check(example: Example) -> None:
        checks.check_single_precision(connector(example, StatevectorEstimator(), dtype=torch.float32), known(example))

    run_examples(check, gate, 5)


def known(example: Example) -> Reference:
    """Return what Qiskit says; an example that it cannot evaluate is no example."""
    found = reference(example)
    return found if found is not None else reject()
