"""Gate angles as functions of parameters."""

import numpy as np
import pytest
import torch
from qiskit.circuit import Parameter, ParameterVector

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.angles import AngleMap

X = ParameterVector("x", 3)
EXPRESSIONS = [
    X[0],
    2 * X[0] + 1,
    X[0] * X[1],
    2 * (np.pi - X[0]) * (np.pi - X[1]),
    X[0].sin() * X[1] + X[2] ** 2,
    X[0] / X[1],
    X[0].abs(),
    X[0].exp() + X[1].log(),
    X[0].cos() + X[1].tan() - X[2].arctan(),
    X[2].arcsin() * X[2].arccos(),
    (X[0] * 1.0).sign(),
    X[0].conjugate(),
    (X[0] + X[1]).sin() ** 2,
    2 ** X[0],
    2.5 ** (X[0] * X[1]) * (3 ** X[2]),
    X[0] ** X[1],
    X[0] ** -1.5 - (X[0] + 2) ** -2,
    (X[0] - 2) ** 3,
    (X[0] - 1 - X[1]) ** 15,
    (X[0] / X[1]) / (X[1] / X[2]) - (1 - X[0]) * (X[1] + 2),
    1 / X[0] - 3 / (X[1] * X[2]),
    (X[0] - 0.5).abs() * (X[1] - 0.5).sign(),
    (X[0] * X[1]).conjugate() * X[0],
    (X[0] + X[1]).subs({X[1]: 2 * X[2]}),
    abs(-X[0]) - (-X[1]),
    (X[0] + X[1] + X[2] + 1) ** 2 * X[0],
    X[0] ** 0.5,
    X[0] - X[0] + 0.25,
    X[0] * 0 - 2,  # Qiskit cannot hash this one
]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_every_function_of_parameters(expression, rng):
    values = rng.uniform(0.1, 0.9, size=(4, 3))
    angles = AngleMap([expression, 0.5], list(X))(torch.from_numpy(values))
    for row, angle in zip(values, angles, strict=True):
        bound = expression.bind({p: row[p.index] for p in expression.parameters})
        assert float(angle[0]) == pytest.approx(float(bound), abs=1e-12)
        assert float(angle[1]) == 0.5


def test_together_and_combined(rng):
    combine = rng.normal(size=(2, len(EXPRESSIONS)))
    values = torch.from_numpy(rng.uniform(0.1, 0.9, size=(4, 3)))
    plain = AngleMap(EXPRESSIONS, list(X))(values)
    combined = AngleMap(EXPRESSIONS, list(X), combine=combine)(values)
    torch.testing.assert_close(combined, plain @ torch.from_numpy(combine.T), atol=1e-12, rtol=0)


def test_gradcheck(rng):
    values = torch.from_numpy(rng.uniform(0.1, 0.9, size=(2, 3))).requires_grad_()
    assert torch.autograd.gradcheck(AngleMap(EXPRESSIONS, list(X)), values)


def test_order_is_the_callers_not_the_names(rng):
    b, a = Parameter("b"), Parameter("a")
    angles = AngleMap([b, 2 * a], [b, a])(torch.tensor([1.0, 10.0]))
    assert angles.tolist() == [1.0, 20.0]


def test_an_unknown_parameter_is_an_error():
    with pytest.raises(CircuitError, match=r"\['y'\]"):
        AngleMap([Parameter("y")], list(X))


def test_powers_keep_their_accuracy():
    x, w = Parameter("x"), Parameter("w")
    values = torch.tensor([3.0, 2.9], dtype=torch.float64)
    found = AngleMap([(x - w) ** 20], [x, w])(values)
    assert float(found[0]) == pytest.approx(0.1**20, rel=1e-10)


@pytest.mark.parametrize("expression", [X[0] * 1j, X[0] * 2j + X[1]], ids=str)
def test_an_angle_that_is_no_finite_real_number_is_an_error(expression):
    with pytest.raises(CircuitError, match="finite real"):
        AngleMap([expression], list(X))
