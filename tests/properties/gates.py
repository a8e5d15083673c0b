"""Constructors of every gate class of ``qiskit.circuit.library``, as Python code."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from qiskit.circuit import Instruction, library
from qiskit.circuit.library import get_standard_gate_name_mapping

from .expressions import Symbol, angles, numbers

Build = Callable[[st.DrawFn, int, tuple[Symbol, ...]], str]
NO_MATRIX = {"Barrier", "Measure", "PauliProductMeasurement", "Reset", "WeightedSumGate"}  # the last: no definition
LEADING = {"Initialize"}  # it resets its qubits first: only at the start, where circuits.py has it


def library_classes() -> dict[str, type[Instruction]]:
    """Return the instruction classes of Qiskit's library by name."""
    found = {name: item for name, item in vars(library).items() if inspect.isclass(item)}
    return {name: item for name, item in found.items() if issubclass(item, Instruction)}


def _standard() -> dict[str, int]:
    """Return the number of angles of each standard gate."""
    mapping = get_standard_gate_name_mapping().values()
    sizes = {gate.base_class.__name__: len(gate.params) for gate in mapping}
    return {name: size for name, size in sizes.items() if name in library_classes() and name not in NO_MATRIX | LEADING}


def _without_arguments() -> list[str]:
    """Return the classes that need no argument."""
    names = []
    for name, kind in library_classes().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                kind()
            except TypeError:
                continue
        names.append(name)
    return names


def _with_angles(name: str, count: int) -> Build:
    return lambda draw, n, symbols: f"{name}({', '.join(draw(angles(symbols)) for _ in range(count))})"


def _fixed(name: str) -> Build:
    return lambda draw, n, symbols: f"{name}()"


def _integer(draw: st.DrawFn, low: int, high: int) -> int:
    return draw(st.integers(low, high))


def _numbers(draw: st.DrawFn, count: int) -> str:
    return f"[{', '.join(draw(numbers()) for _ in range(count))}]"


def _integers(draw: st.DrawFn, low: int, high: int, count: int) -> list[int]:
    return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))


def unitary(draw: st.DrawFn, qubits: int) -> str:
    """Return a random unitary matrix."""
    return f"random_unitary({2**qubits}, seed={_integer(draw, 0, 99)}).data"


def vector(draw: st.DrawFn, qubits: int) -> str:
    """Return a random state, real or complex."""
    if draw(st.booleans()):
        return f"random_statevector({2**qubits}, seed={_integer(draw, 0, 99)}).data"
    values = np.array(draw(st.lists(st.integers(-3, 3), min_size=2**qubits, max_size=2**qubits)), dtype=float)
    values[0] += 4
    return f"np.array({values.tolist()}) / {float(np.linalg.norm(values))!r}"


def pauli_sum(draw: st.DrawFn, qubits: int, terms: int | None = None) -> str:
    """Return a Hermitian sum of Pauli strings."""
    count = _integer(draw, 1, 3) if terms is None else terms
    labels = [pauli(draw, qubits) for _ in range(count)]
    weights = draw(st.lists(st.sampled_from([1.0, 0.5, -0.5, -1.5]), min_size=count, max_size=count))
    return f"SparsePauliOp({labels}, {weights})"


def pauli(draw: st.DrawFn, qubits: int) -> str:
    """Return a Pauli string."""
    return draw(st.text("IXYZ", min_size=qubits, max_size=qubits))


def _time(draw: st.DrawFn, symbols: tuple[Symbol, ...]) -> str:
    return draw(angles(symbols))


def _bits(draw: st.DrawFn, count: int) -> str:
    return "None" if draw(st.booleans()) else str(_integer(draw, 0, 2**count - 1))


def _expression(draw: st.DrawFn, qubits: int) -> str:
    terms = ["~" * draw(st.booleans()) + letter for letter in "abc"[:qubits]]
    return repr(f" {draw(st.sampled_from('&|^'))} ".join(terms))


def _permutation(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    return f"PermutationGate({draw(st.permutations(range(_integer(draw, 1, n))))})"


def _linear(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    size = _integer(draw, 1, n)
    matrix = np.tril(np.ones((size, size), dtype=int))[draw(st.permutations(range(size)))]
    return f"LinearFunction({matrix.tolist()})"


def _graph(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    size = _integer(draw, 1, n)
    upper = np.triu(np.array(_integers(draw, 0, 1, size * size)).reshape(size, size), 1)
    return f"GraphStateGate({(upper + upper.T).tolist()})"


def _mcx(name: str, least: int = 1) -> Build:
    def build(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
        controls = _integer(draw, least, n - 1)
        return f"{name}({controls}, ctrl_state={_bits(draw, controls)})"

    return build


def _mcphase(name: str) -> Build:
    def build(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
        controls = _integer(draw, 1, n - 1)
        return f"{name}({draw(angles(symbols))}, {controls}, ctrl_state={_bits(draw, controls)})"

    return build


def _mcmt(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    controls = _integer(draw, 1, n - 1)
    targets = _integer(draw, 1, n - controls)
    gate = draw(st.sampled_from(["XGate()", "ZGate()", "HGate()", f"RYGate({draw(angles(symbols))})"]))
    return f"MCMTGate({gate}, {controls}, {targets}, ctrl_state={_bits(draw, controls)})"


def _logic(name: str) -> Build:
    def build(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
        size = _integer(draw, 1, n - 1)
        return f"{name}({size}, {_integers(draw, -1, 1, size)})"

    return build


def _superposition(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    return f"UniformSuperpositionGate({_integer(draw, 2, 2**n - 1) if n > 1 else 2}, {n})"


def _ucgate(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    return f"UCGate([{', '.join(unitary(draw, 1) for _ in range(2 ** _integer(draw, 0, n - 1)))}])"


def _ucrotation(name: str, axes: str = "") -> Build:
    def build(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
        axis = f", {draw(st.sampled_from(axes))!r}" if axes else ""
        return f"{name}({_numbers(draw, 2 ** _integer(draw, 0, n - 1))}{axis})"

    return build


def _evolution(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    return f"PauliEvolutionGate({pauli_sum(draw, _integer(draw, 1, n))}, {_time(draw, symbols)})"


def _hamiltonian(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    return f"HamiltonianGate({pauli_sum(draw, _integer(draw, 1, min(n, 2)))}.to_matrix(), {_time(draw, symbols)})"


def _preparation(draw: st.DrawFn, n: int, symbols: tuple[Symbol, ...]) -> str:
    size = _integer(draw, 1, n)
    label = draw(st.text("01+-rl", min_size=size, max_size=size))
    return f"StatePreparation({draw(st.sampled_from([repr(label), vector(draw, size)]))})"


# Name: the fewest qubits, and the code of a gate on at most n qubits.
_OTHERS: dict[str, tuple[int, Build]] = {
    "AndGate": (2, _logic("AndGate")),
    "BitFlipOracleGate": (2, lambda draw, n, s: f"BitFlipOracleGate({_expression(draw, min(n - 1, 3))})"),
    "BitwiseXorGate": (
        1,
        lambda draw, n, s: f"BitwiseXorGate({n}, {_integer(draw, 0, 2**n - 1)})",
    ),
    "DiagonalGate": (
        1,
        lambda draw, n, s: (
            f"DiagonalGate({draw(st.lists(st.sampled_from([1, -1, 1j]), min_size=2**n, max_size=2**n))})"
        ),
    ),
    "ExactReciprocalGate": (2, lambda draw, n, s: f"ExactReciprocalGate({min(n - 1, 2)}, 0.{_integer(draw, 1, 9)})"),
    "FullAdderGate": (4, lambda draw, n, s: "FullAdderGate(1)"),
    "GraphStateGate": (1, _graph),
    "HalfAdderGate": (3, lambda draw, n, s: "HalfAdderGate(1)"),
    "HamiltonianGate": (1, _hamiltonian),
    "InnerProductGate": (2, lambda draw, n, s: f"InnerProductGate({_integer(draw, 1, n // 2)})"),
    "IntegerComparatorGate": (
        2,
        lambda draw, n, s: f"IntegerComparatorGate({n - 1}, {_integer(draw, 0, 3)}, geq={draw(st.booleans())})",
    ),
    "Isometry": (2, lambda draw, n, s: f"Isometry({unitary(draw, 2)}[:, : {2 ** _integer(draw, 0, 2)}], 0, 0)"),
    "LinearAmplitudeFunctionGate": (
        2,
        lambda draw, n, s: (
            f"LinearAmplitudeFunctionGate({min(n - 1, 2)}, 0.5, 0.{_integer(draw, 1, 9)}, (0, 1), (0, 2))"
        ),
    ),
    "LinearFunction": (1, _linear),
    "LinearPauliRotationsGate": (
        2,
        lambda draw, n, s: (
            f"LinearPauliRotationsGate({n - 1}, {draw(numbers())}, {draw(numbers())}, {draw(st.sampled_from('XYZ'))!r})"
        ),
    ),
    "MCGupDiag": (1, lambda draw, n, s: f"MCGupDiag({unitary(draw, 1)}, {_integer(draw, 0, n - 1)}, 0, 0)"),
    "MCMTGate": (2, _mcmt),
    "MCPhaseGate": (2, _mcphase("MCPhaseGate")),
    "MCU1Gate": (2, _mcphase("MCU1Gate")),
    "MCXGate": (2, _mcx("MCXGate")),
    "MCXGrayCode": (2, _mcx("MCXGrayCode")),
    "MCXRecursive": (2, lambda draw, n, s: f"MCXRecursive({_integer(draw, 1, min(n - 1, 3))})"),
    "MCXVChain": (2, lambda draw, n, s: f"MCXVChain({3 if n == 5 else _integer(draw, 1, min(n - 1, 2))})"),
    "MSGate": (2, lambda draw, n, s: f"MSGate({_integer(draw, 2, n)}, {draw(angles(s))})"),
    "ModularAdderGate": (2, lambda draw, n, s: f"ModularAdderGate({_integer(draw, 1, n // 2)})"),
    "MultiplierGate": (4, lambda draw, n, s: "MultiplierGate(1)"),
    "OrGate": (2, _logic("OrGate")),
    "PauliEvolutionGate": (1, _evolution),
    "PauliGate": (1, lambda draw, n, s: f"PauliGate({pauli(draw, n)!r})"),
    "PauliProductRotationGate": (
        1,
        lambda draw, n, s: f"PauliProductRotationGate(Pauli({pauli(draw, _integer(draw, 1, n))!r}), {draw(angles(s))})",
    ),
    "PermutationGate": (1, _permutation),
    "PhaseOracleGate": (1, lambda draw, n, s: f"PhaseOracleGate({_expression(draw, min(n, 3))})"),
    "PiecewiseChebyshevGate": (
        3,
        lambda draw, n, s: f"PiecewiseChebyshevGate(lambda v: np.sin(v) / 2, 1, 1, [0, {_integer(draw, 1, 2)}])",
    ),
    "PiecewiseLinearPauliRotationsGate": (
        2,
        lambda draw, n, s: f"PiecewiseLinearPauliRotationsGate({1 if n < 4 else 2}, [0], [{draw(numbers())}], [0.3])",
    ),
    "PiecewisePolynomialPauliRotationsGate": (
        2,
        lambda draw, n, s: (
            f"PiecewisePolynomialPauliRotationsGate({1 if n < 4 else 2}, [0], [[{draw(numbers())}, 0.5]])"
        ),
    ),
    "PolynomialPauliRotationsGate": (
        2,
        lambda draw, n, s: (
            f"PolynomialPauliRotationsGate({n - 1}, {_numbers(draw, 3)}, {draw(st.sampled_from('XYZ'))!r})"
        ),
    ),
    "QFTGate": (1, lambda draw, n, s: f"QFTGate({_integer(draw, 1, n)})"),
    "QuadraticFormGate": (3, lambda draw, n, s: f"QuadraticFormGate({n - 2}, [[1, 0], [-1, 1]], [1, -1], 1)"),
    "RVGate": (1, lambda draw, n, s: f"RVGate({draw(numbers())}, {draw(numbers())}, {draw(numbers())})"),
    "StatePreparation": (1, _preparation),
    "UCGate": (1, _ucgate),
    "UCPauliRotGate": (1, _ucrotation("UCPauliRotGate", "XYZ")),
    "UCRXGate": (1, _ucrotation("UCRXGate")),
    "UCRYGate": (1, _ucrotation("UCRYGate")),
    "UCRZGate": (1, _ucrotation("UCRZGate")),
    "UniformSuperpositionGate": (1, _superposition),
    "UnitaryGate": (1, lambda draw, n, s: f"UnitaryGate({unitary(draw, _integer(draw, 1, min(n, 3)))})"),
}


def _table() -> dict[str, tuple[int, Build]]:
    """Return, by class, the fewest qubits and the code of a gate on at most n qubits."""
    classes = library_classes()
    table = dict(_OTHERS)
    for name, count in _standard().items():
        size = classes[name](*[0.1] * count).num_qubits
        table.setdefault(name, (size, _with_angles(name, count)))
    for name in _without_arguments():
        if name not in table and name not in NO_MATRIX | LEADING:
            table[name] = (classes[name]().num_qubits, _fixed(name))
    return dict(sorted(table.items()))


TABLE = _table()
PARAMETRIC = {name for name, count in _standard().items() if count} | {
    "HamiltonianGate",
    "MCMTGate",
    "MCPhaseGate",
    "MCU1Gate",
    "MSGate",
    "PauliEvolutionGate",
    "PauliProductRotationGate",
}
