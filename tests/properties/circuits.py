"""Random circuits as Python code that a reader can run: the strategies of all property tests.

An :class:`Example` prints as the code that builds it. Angles are drawn together with the point at which the circuit
is evaluated, so that every function is defined and smooth there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.exceptions import QiskitError

from .expressions import Symbol, angles
from .gates import PARAMETRIC, TABLE, pauli, pauli_sum, vector

CLASHING = ("cz", "swap", "ccx", "rz", "p", "u", "cp", "id", "delay", "barrier", "rx", "h", "unitary", "reset")
MAX_GATES = 8
PREAMBLE = """\
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, ControlModifier, Gate, InverseModifier, Parameter, PowerModifier
from qiskit.circuit.library import *
from qiskit.quantum_info import Pauli, SparsePauliOp, random_statevector, random_unitary
"""
_NAMES = ("x0", "x1", "w0", "w1", "θ", "E", "I", "pi", "lambda", "x[1]", "a b", "S")
_REFUSALS = (QiskitError, AttributeError, IndexError, TypeError, ValueError, NotImplementedError)  # for a gate's form
_SCOPE: dict[str, Any] = {}
exec(PREAMBLE, _SCOPE)


@dataclass(eq=False)
class Example:
    """A circuit, its observables, and a point.

    Attributes:
        code: What builds the circuit ``qc``, its lists of parameters ``x`` and ``w``, and ``observables``.
        circuit: The circuit.
        observables: Operators on its qubits.
        input_params: The inputs that occur in the circuit.
        weight_params: The weights that occur in it.
        inputs: Their values, shape ``(num_inputs,)``.
        weights: Their values, shape ``(num_weights,)``.
    """

    code: str
    circuit: QuantumCircuit
    observables: list[Any]
    input_params: list[Parameter]
    weight_params: list[Parameter]
    inputs: np.ndarray
    weights: np.ndarray

    def __repr__(self) -> str:
        used = {p.name for p in self.circuit.parameters}
        lists = [f"{k} = [p for p in {k} if p.name in {used}]\n" for k in "xw"] if used else []
        point = f"inputs, weights = {self.inputs.tolist()}, {self.weights.tolist()}"
        return f"\n{PREAMBLE}{self.code}{''.join(lists)}{point}\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # what hypothesis prints
        printer.text(repr(self))


@dataclass
class _Code:
    """Lines of code, run as they are written."""

    lines: list[str] = field(default_factory=list)
    scope: dict[str, Any] = field(default_factory=lambda: dict(_SCOPE))

    def run(self, line: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(line, self.scope)
        self.lines.append(line)

    def value(self, code: str) -> Any:
        """Return what an expression is, or None where Qiskit refuses it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return eval(code, self.scope)
            except _REFUSALS:
                return None


@st.composite
def examples(draw: st.DrawFn, featured: str | None = None, max_qubits: int = 5) -> Example:
    """Return a circuit of 1 to ``max_qubits`` qubits with 1 to 8 operations, one or two observables, and a point.

    Args:
        draw: Hypothesis gives it.
        featured: A class of Qiskit's library that occurs in the circuit; None for any.
        max_qubits: At least as many as this class needs.
    """
    if featured is None:
        featured = draw(st.sampled_from([name for name in TABLE if TABLE[name][0] <= max_qubits]))
    least = max(1, TABLE[featured][0])
    n = draw(st.sampled_from([k for k in (1, 2, 2, 3, 3, 4, 5) if least <= k <= max_qubits] or [least]))
    fitting = [name for name in TABLE if TABLE[name][0] <= n]
    fitting += 2 * [name for name in fitting if name in PARAMETRIC]
    code, symbols = _Code(), ()
    inputs, weights = draw(_points()), draw(_points())
    names = iter(draw(st.permutations(_NAMES)) if draw(st.integers(0, 3)) == 0 else _NAMES)
    for letter, values in (("x", inputs), ("w", weights)):
        code.run(f"{letter} = [{', '.join(f'Parameter({next(names)!r})' for _ in values)}]")
        symbols += tuple(Symbol(f"{letter}[{i}]", value) for i, value in enumerate(values))
    code.run(f"qc = QuantumCircuit({n})")
    _start(draw, code, n)
    count = draw(st.integers(1, MAX_GATES))
    at = draw(st.integers(0, count - 1))
    for k in range(count):
        _operation(draw, code, "qc", n, symbols, [featured] if k == at else fitting, depth=2)
    if draw(st.integers(0, 7)) == 0:
        code.run(f"qc.global_phase = {draw(angles(symbols))}")
    observables = [
        f"Pauli({'-' * draw(st.booleans()) + pauli(draw, n)!r})" if draw(st.integers(0, 5)) == 0 else pauli_sum(draw, n)
        for _ in range(draw(st.integers(1, 2)))
    ]
    code.run(f"observables = [{', '.join(observables)}]")
    return _example(code, inputs, weights)


def _example(code: _Code, inputs: list[float], weights: list[float]) -> Example:
    """Return the example, with the parameters that the circuit uses."""
    circuit, used = code.scope["qc"], code.scope["qc"].parameters
    pairs = [
        [(param, value) for param, value in zip(code.scope[letter], values, strict=True) if param in used]
        for letter, values in (("x", inputs), ("w", weights))
    ]
    params = [[param for param, _ in some] for some in pairs]
    points = [np.array([value for _, value in some]) for some in pairs]
    lines = "".join(line + "\n" for line in code.lines)
    return Example(lines, circuit, code.scope["observables"], *params, *points)


def _points() -> st.SearchStrategy[list[float]]:
    values = st.integers(-250, 250).filter(lambda k: abs(k) > 20).map(lambda k: k / 100)
    return st.sampled_from([1, 2, 1, 2, 0]).flatmap(lambda size: st.lists(values, min_size=size, max_size=size))


def _where(draw: st.DrawFn, n: int, size: int) -> str:
    return repr(draw(st.permutations(range(n)))[:size])


def _start(draw: st.DrawFn, code: _Code, n: int) -> None:
    """Prepare a state that is no basis state, most of the time."""
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return
    size = draw(st.integers(1, n)) if kind < 4 else n
    if kind == 1:
        code.run(f"qc.initialize({vector(draw, size)}, {_where(draw, n, size)})")
    elif kind == 2:
        label = draw(st.text("01+-rl", min_size=size, max_size=size))
        code.run(f"qc.append(Initialize({label!r}), {_where(draw, n, size)})")
    elif kind == 3:
        code.run(f"qc.prepare_state({vector(draw, size)}, {_where(draw, n, size)})")
        code.run("qc.barrier()")
    else:
        if kind == 4:
            code.run("qc.reset(range(qc.num_qubits))")
        code.run(f"for q in range({n}): qc.u(0.4 + 0.3 * q, 0.5, 0.7 * q, q)")


def _operation(
    draw: st.DrawFn, code: _Code, circuit: str, n: int, symbols: tuple[Symbol, ...], names: Sequence[str], depth: int
) -> None:
    """Append an operation to a circuit of the code."""
    kind = draw(st.integers(0, 11))
    if kind == 0 and depth:
        gate, size = _composite(draw, code, n, symbols, names, depth - 1)
    elif kind == 1 and circuit == "qc" and len(names) > 1:
        line = draw(st.sampled_from(["barrier()", f"delay(100, {n - 1})", f"id({n - 1})", "barrier(0)"]))
        return code.run(f"{circuit}.{line}")
    else:
        gate = _form(draw, code, n, symbols, names)
        if gate is None:
            return None
        size = code.value(gate).num_qubits
    return code.run(f"{circuit}.append({gate}, {_where(draw, n, size)})")


def _composite(
    draw: st.DrawFn, code: _Code, n: int, symbols: tuple[Symbol, ...], names: Sequence[str], depth: int
) -> tuple[str, int]:
    """Write a circuit with the name of one of Qiskit's gates, and return it as an operation."""
    most = max(TABLE[name][0] for name in names) if len(names) == 1 else 1
    size = draw(st.integers(max(1, most), n))
    sub = f"sub{sum(line.startswith('sub') and ' = ' in line for line in code.lines)}"
    name = draw(st.sampled_from(CLASHING))
    code.run(f"{sub} = QuantumCircuit({size}, name={name!r})")
    fitting = [name for name in names if TABLE[name][0] <= size]
    for _ in range(draw(st.integers(1, 2))):
        _operation(draw, code, sub, size, symbols, fitting, depth)
    kind = draw(st.integers(0, 4))
    if kind == 0 or code.value(f"{sub}.to_gate()") is None:
        return f"{sub}.to_instruction()", size
    if kind == 1:  # a gate of the user's own
        code.run(f"{sub}_gate = Gate({name!r}, {size}, list({sub}.parameters))")
        code.run(f"{sub}_gate.definition = {sub}")
        return f"{sub}_gate", size
    gate = f"{sub}.to_gate()"
    if kind == 2 and size < n:
        controlled = f"{gate}.control(1, ctrl_state={draw(st.integers(0, 1))})"
        if code.value(controlled) is not None:
            return controlled, size + 1
    if kind == 3 and code.value(f"{gate}.inverse()") is not None:
        return f"{gate}.inverse()", size
    return gate, size


def _form(draw: st.DrawFn, code: _Code, n: int, symbols: tuple[Symbol, ...], names: Sequence[str]) -> str | None:
    """Return a gate, in one of its forms where Qiskit has it, or None where the library refuses it."""
    name = draw(st.sampled_from(names))
    least, build = TABLE[name]
    controls = draw(st.sampled_from([0, 0, 0, 1, 1, 2]))
    if max(1, least) + controls > n:
        controls = 0
    gate = build(draw, n - controls, symbols)
    if code.value(gate) is None:
        return None
    forms = []
    if controls:
        state = draw(st.integers(0, 2**controls - 1))
        forms += 3 * [f"{gate}.control({controls}, ctrl_state={state})"]
        forms.append(f"{gate}.control({controls}, ctrl_state={state}, annotated=True)")
        forms.append(f"AnnotatedOperation({gate}, [InverseModifier(), ControlModifier({controls}, {state})])")
    else:
        power = draw(st.sampled_from(["2", "3", "0.5", "-1", "0"]))
        forms += [gate] * 12
        forms += [f"{gate}.inverse()", f"{gate}.inverse(annotated=True)", f"{gate}.to_mutable()"]
        forms += [f"{gate}.power({power})", f"{gate}.power({power}, annotated=True)", f"{gate}.repeat(2)"]
        forms.append(f"AnnotatedOperation({gate}, [PowerModifier({power}), InverseModifier()])")
    form = draw(st.sampled_from(forms))
    operation = code.value(form)
    return form if operation is not None and operation.num_qubits <= n else gate
