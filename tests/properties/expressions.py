"""Angles as Python code: numbers and every operator and function of ``ParameterExpression``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

LARGEST = 12.0  # of a value; larger ones make differences inaccurate
METHODS = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "exp": math.exp,
    "log": math.log,
    "abs": abs,
    "sign": lambda v: math.copysign(1.0, v),
    "conjugate": lambda v: v,
}
OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}
_INSIDE = {"arcsin": 0.8, "arccos": 0.8, "tan": 1.2}  # largest arguments: where the slope is not steep
_NUMBERS = st.integers(-300, 300).map(lambda k: k / 100)
_FACTORS = st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0])


class Symbol(NamedTuple):
    """A term of code, and its value at the point where the circuit is evaluated."""

    code: str
    value: float
    parametric: bool = True


def numbers() -> st.SearchStrategy[str]:
    """Return numbers as code, of the types that users bring."""
    special = st.sampled_from(["0", "0.0", "1", "np.pi", "np.pi / 2", "-np.pi / 4", "np.float64(0.7)", "7"])
    return _NUMBERS.map(repr) | special


@st.composite
def angles(draw: st.DrawFn, symbols: tuple[Symbol, ...]) -> str:
    """Return an angle: an expression of some of the symbols, or a number."""
    if not symbols or draw(st.integers(0, 3)) == 0:
        return draw(numbers())
    return draw(expressions(symbols)).code


@st.composite
def expressions(draw: st.DrawFn, symbols: tuple[Symbol, ...], depth: int = 2) -> Symbol:
    """Return an expression with its value; functions are drawn only where they are defined and smooth."""
    kind = draw(st.integers(0, 5)) if depth else 0
    if kind <= 1:
        return draw(st.sampled_from(symbols))
    left = draw(expressions(symbols, depth - 1))
    if kind == 2:
        factor, shift = draw(_FACTORS), draw(_NUMBERS)
        return _kept(Symbol(f"({factor!r} * {left.code} + {shift!r})", factor * left.value + shift), left)
    if kind == 3:
        methods = [name for name in METHODS if _smooth(name, left.value)]
        name = draw(st.sampled_from(methods))
        return _kept(Symbol(f"{left.code}.{name}()", METHODS[name](left.value)), left)
    if kind == 4:
        return draw(st.sampled_from([Symbol(f"(-{left.code})", -left.value), Symbol(f"(+{left.code})", left.value)]))
    number = draw(st.sampled_from([-1.5, -1.0, 0.5, 2.0, 3.0]))
    operand = Symbol(repr(int(number) if number % 1 == 0 else number), number, parametric=False)
    right = draw(st.just(operand) | expressions(symbols, depth - 1))
    if draw(st.booleans()):
        left, right = right, left
    operator = draw(st.sampled_from([name for name in OPERATORS if _defined(name, left, right)]))
    symbol = Symbol(f"({_base(left)} {operator} {right.code})", OPERATORS[operator](left.value, right.value))
    return _kept(symbol, left if left.parametric else right)


def _base(symbol: Symbol) -> str:
    """Return an operand; a negative number as the base of a power needs brackets."""
    return symbol.code if symbol.parametric else f"({symbol.code})"


def _kept(symbol: Symbol, otherwise: Symbol) -> Symbol:
    return symbol if abs(symbol.value) <= LARGEST else otherwise


def _smooth(name: str, value: float) -> bool:
    if name in ("log", "abs", "sign"):
        return value > 0.2 or (name != "log" and value < -0.2)
    return abs(value) <= _INSIDE.get(name, 2.4)


def _defined(operator: str, left: Symbol, right: Symbol) -> bool:
    """Tell whether an operation of two terms is defined in a neighbourhood, and not too steep there."""
    if operator == "/":
        return abs(right.value) > 0.3
    if operator == "**":
        whole = not right.parametric and right.value % 1 == 0
        return (left.value > 0.3 or (whole and abs(left.value) > 0.3)) and abs(right.value) <= 3
    return True
