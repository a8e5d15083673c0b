"""Angles of gates as a torch function of a circuit's parameters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import groupby
from operator import mul
from typing import Any

import numpy as np
import torch
from qiskit.circuit import Parameter, ParameterExpression
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.elementary import Angle
from qiskit_qattn.simulation.precision import LARGEST_SUM, reduced, without_autocast

Monomial = tuple[Any, ...]  # sympy factors; a parameter is its position, an int


class AngleMap(ConstantModule):
    r"""The map :math:`p \mapsto C\,[p, f(p), m(p, f)] + b` from parameter values to angles.

    Angles that are affine in the parameters, as most are, cost one matrix product. Other functions of
    parameters, such as sines, become extra columns f; products of columns become extra columns m.

    Args:
        angles: Numbers or parameter expressions, in radians.
        params: The parameters, in the order in which their values will be given.
        combine: Matrix applied to the angles, multiplied into C; None for the identity.

    Raises:
        CircuitError: For an expression that uses a parameter outside ``params`` or a function without a torch rule.

    Angles are unbounded, so their rounding errors would dominate all others. They are computed in float64, or, where a
    module forms unitaries in float32 and they are sums of parameters times multiples of 1/2, from reduced parameters.
    """

    matrix: Tensor
    offset: Tensor
    position: Tensor
    factor: Tensor

    def __init__(self, angles: Sequence[Angle], params: Sequence[Any], combine: np.ndarray | None = None) -> None:
        super().__init__()
        position = {param: i for i, param in enumerate(params)}
        rows = [_coefficients(angle, position) for angle in angles]
        monomials = list(dict.fromkeys(m for row in rows for m in row if m))
        functions = list(dict.fromkeys(f for m in monomials for f in m if not isinstance(f, int)))
        base = {i: i for i in range(len(params))} | {f: len(params) + j for j, f in enumerate(functions)}
        products = sorted((m for m in monomials if len(m) > 1), key=len)
        column = {(f,): i for f, i in base.items()} | {m: len(base) + j for j, m in enumerate(products)}
        matrix, offset = np.zeros((len(rows), len(column))), np.zeros(len(rows))
        for i, row in enumerate(rows):
            for monomial, coefficient in row.items():
                if monomial:
                    matrix[i, column[monomial]] += coefficient
                else:
                    offset[i] += coefficient
        if combine is not None:
            matrix, offset = combine @ matrix, combine @ offset
        halves = np.array_equal(2 * matrix, np.round(2 * matrix))  # so that parameters may be reduced modulo 4π
        small = np.abs(matrix).sum(1).max(initial=0) <= LARGEST_SUM and np.abs(offset).max(initial=0) <= 4 * np.pi
        self.needs_float64 = bool(functions or products or not (halves and small))
        self._names = {param.name: i for param, i in position.items()}
        self._functions = functions
        # Bare parameters in order, as weights usually are, need no product; most others need no offset.
        self._plain = matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))
        self._shifted = bool(offset.any())
        self.num_angles = len(matrix)
        # In float32 cosines are good for a number of any size, which is exact if it is a parameter times a power of 2.
        alone = (np.count_nonzero(matrix, axis=1) <= 1).all() and set(np.abs(matrix).ravel()) <= {0.0, 0.5, 1.0, 2.0}
        self._alone = bool(column and alone and not (self._shifted or functions or products))
        if self._alone:
            self.add_constant("position", np.abs(matrix).argmax(1))
            self.add_constant("factor", matrix.sum(1))
        # Products of a degree are taken at once; the positions of their first factors, then of their second, and so on.
        self._degrees = [degree for degree, _ in groupby(products, len)]
        for degree in self._degrees:
            places = [[base[f] for f in m] for m in products if len(m) == degree]
            self.add_constant(f"factors_{degree}", np.array(places).T.ravel())
        self.add_constant("matrix", matrix.T, double=True)  # (columns, K)
        self.add_constant("offset", offset, double=True)  # (K,)
        for f in functions:  # raises now, not in training, if a rule is missing
            _evaluate(f, {name: torch.ones(()) for name in self._names})

    def forward(self, params: Tensor) -> Tensor:
        """Return the angles, shape ``(..., K)``, for parameter values of shape ``(..., num_params)``."""
        return self.combine(self.columns(params))

    @property
    def affine(self) -> tuple[Tensor, Tensor | None]:
        """C, transposed, shape ``(columns, K)``, and b, shape ``(K,)``, or None where that is zero."""
        return self.matrix, self.offset if self._shifted else None

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """C, transposed, and b as numpy arrays."""
        return self._masters["matrix"], self._masters["offset"]

    def combine(self, columns: Tensor) -> Tensor:
        """Return the angles for what :meth:`columns` gave."""
        columns = self.rounded(columns)
        if self._plain:
            return columns + self.offset if self._shifted else columns
        if self._alone and columns.dtype == torch.float32:  # no product either, which may round factors
            return columns.index_select(-1, self.position) * self.factor
        with without_autocast(columns.device):
            return F.linear(columns, self.matrix.mT, self.offset if self._shifted else None)  # (..., K)

    def rounded(self, columns: Tensor) -> Tensor:
        """Return what C acts on in C's dtype; if that is float32, reduced where rounding errors would add up."""
        dtype = self.matrix.dtype
        if dtype == torch.float64:
            return columns.to(dtype)
        wide = columns if columns.dtype == torch.float64 else columns.to(dtype)
        return wide if self._alone and wide.dtype == dtype else reduced(wide).to(dtype)

    def columns(self, params: Tensor) -> Tensor:
        """Return what C acts on: the parameters, and where angles are not affine in them, functions and products."""
        columns = params
        if self._functions or self._degrees:
            columns = params = params.to(self.matrix.dtype)
        if self._functions:
            values = {name: params[..., i] for name, i in self._names.items()}
            columns = torch.cat([columns, torch.stack([_evaluate(f, values) for f in self._functions], -1)], -1)
        if self._degrees:
            every = [columns.index_select(-1, self.constant(f"factors_{d}")).chunk(d, -1) for d in self._degrees]
            columns = torch.cat([columns, *(reduce(mul, factors) for factors in every)], -1)
        return columns


def _coefficients(angle: Angle, position: Mapping[Any, int]) -> dict[Monomial, float]:
    """Return an angle as a sum of coefficients times products; the empty product stands for 1."""
    if not isinstance(angle, ParameterExpression):
        return {(): float(angle)}
    unknown = sorted(p.name for p in angle.parameters if p not in position)
    if unknown:
        raise CircuitError(f"Angle {angle} uses {unknown}, which are neither input nor weight parameters.")
    if isinstance(angle, Parameter):
        return {(position[angle],): 1.0}
    import sympy

    index = {param.name: i for param, i in position.items()}
    coefficients: dict[Monomial, float] = {}
    # powers are not expanded: rounding errors would cancel their terms
    products = sympy.expand_mul(_symbolic(angle))
    for term in sympy.Add.make_args(products):
        number, factors = term.as_coeff_mul()
        monomial: list[Any] = []
        for factor in factors:
            symbol, power = factor.as_base_exp()
            if symbol.is_Symbol and power.is_Integer and power > 0:
                monomial.extend([index[symbol.name]] * int(power))
            elif not factor.free_symbols:
                number *= factor
            else:
                monomial.append(factor)
        key = tuple(sorted(monomial, key=str))
        coefficients[key] = coefficients.get(key, 0.0) + _number(number)
    return coefficients


def _symbolic(expression: ParameterExpression) -> Any:
    """Return a parameter expression as one of sympy.

    Qiskit's own ``sympify`` loses numbers raised to a parameter; its record of steps for QPY is complete.

    Raises:
        CircuitError: For an operation without a rule.
    """
    import sympy

    rules: dict[str, Callable[..., Any]] = {
        "ADD": operator.add,
        "SUB": operator.sub,
        "RSUB": lambda a, b: b - a,
        "MUL": operator.mul,
        "DIV": operator.truediv,
        "RDIV": lambda a, b: b / a,
        "POW": operator.pow,
        "RPOW": lambda a, b: b**a,
        "SIN": sympy.sin,
        "COS": sympy.cos,
        "TAN": sympy.tan,
        "ASIN": sympy.asin,
        "ACOS": sympy.acos,
        "ATAN": sympy.atan,
        "EXP": sympy.exp,
        "LOG": sympy.log,
        "ABS": sympy.Abs,
        "SIGN": sympy.sign,
        "CONJ": lambda a: a,  # parameters are real
    }
    found: list[Any] = []

    def operand(value: Any) -> Any:
        if value is None:  # the result of an earlier step
            return found.pop()
        return sympy.Symbol(value.name, real=True) if isinstance(value, ParameterExpression) else sympy.sympify(value)

    for step in expression._qpy_replay:
        name = str(step.op).rpartition(".")[2]
        if name not in rules:
            raise CircuitError(f"No rule for {name} in the angle {expression}; known: {sorted(rules)}.")
        binary = name in ("ADD", "SUB", "RSUB", "MUL", "DIV", "RDIV", "POW", "RPOW")
        second = [operand(step.rhs)] if binary else []  # of two results, the second operand is on top
        found.append(rules[name](operand(step.lhs), *second))
    return found.pop()


def _number(value: Any) -> float:
    """Return a number of sympy that is real and finite.

    Raises:
        CircuitError: For any other.
    """
    if not (value.is_real and value.is_finite):
        raise CircuitError(f"Angles are finite real numbers, got {value}.")
    return float(value)


_TORCH: dict[str, Callable[..., Tensor]] = {
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "exp": torch.exp,
    "log": torch.log,
    "Abs": torch.abs,
    "sign": torch.sign,
    "Add": lambda *terms: sum(terms[1:], terms[0]),
    "Mul": lambda *factors: reduce(mul, factors),
    "Pow": torch.pow,
}


def _evaluate(expression: Any, values: Mapping[str, Tensor]) -> Tensor:
    """Evaluate a sympy expression on tensors."""
    like = next(iter(values.values()))
    if expression.is_Symbol:
        return values[expression.name]
    if expression.is_number:
        return torch.full_like(like, _number(expression))
    rule = _TORCH.get(expression.func.__name__)
    if rule is None:
        raise CircuitError(f"No torch rule for {expression.func.__name__} in a gate's angle; known: {sorted(_TORCH)}.")
    return rule(*(_evaluate(argument, values) for argument in expression.args))
