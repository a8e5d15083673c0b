"""The statevector engine equals Qiskit's ``Statevector`` on random circuits: values, derivatives and transforms."""

from __future__ import annotations

import inspect

import pytest
import torch
from qiskit.circuit import ParameterExpression
from qiskit.primitives import StatevectorEstimator

from . import checks, expressions
from .circuits import Example
from .engines import connector
from .gates import LEADING, NO_MATRIX, TABLE, library_classes
from .runs import check_engine, known, run_examples

# Torch's forward mode loads decompositions through torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
MORE = ["gate by gate", "connector, TorchEstimator", "dense", "blocks"]


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


@pytest.mark.parametrize("gate", TABLE)
@pytest.mark.parametrize(
    "engine",
    ["connector", *(pytest.param(name, marks=pytest.mark.more) for name in MORE)],
)
def test_values_derivatives_and_transforms(gate: str, engine: str) -> None:
    check_engine(gate, engine)


@pytest.mark.more
@pytest.mark.parametrize("gate", TABLE)
def test_single_precision(gate: str) -> None:
    def check(example: Example) -> None:
        found = known(example)
        checks.check_single_precision(connector(example, StatevectorEstimator(), dtype=torch.float32), found)

    run_examples(check, gate, 5)
