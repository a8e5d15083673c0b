"""What a layer of attention costs with each kind of head, as formulas.

They are of one layer of H heads of width h = d/H on T tokens, with circuits of n qubits and L ansatz layers. Tests
compare those of parameters, circuits and depth with what is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qiskit_qattn.evaluation.rendering import table
from qiskit_qattn.nn.kinds import head_kind

HEAD_SIZE = 8


@dataclass(frozen=True)
class Sheet:
    """A table with a title, and notes below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]

    def markdown(self) -> str:
        """Return it as Markdown."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"## {self.title}\n\n{table(self.header, self.rows)}\n\n{notes}\n"


@dataclass(frozen=True)
class Formula:
    """What a layer costs, in d, h, H, n, L and T; those with a meaning in Python are expressions of it.

    Attributes:
        parameters: Number of trained and frozen parameters.
        operations: Multiplications of a pass on the exact engine, to leading order, beside those that all kinds have.
        circuits: Circuits for one sequence, with b measurement bases; empty for a classical kind.
        depth: Layers of two-qubit gates of a circuit; empty for a classical kind.
    """

    parameters: str
    operations: str
    circuits: str = ""
    depth: str = ""


_AMPLITUDE = "2**n - 2 + n*L"
FORMULAS = {
    "classical": Formula("4*d**2", "–"),
    "qisa-v1": Formula("d**2 + 9*n*L*H + 3*d", "T H 4ⁿ", "3*T*H*b", _AMPLITUDE),
    "qisa-v2": Formula("d**2 + 9*n*L*H + 3*d", "T H 4ⁿ", "3*T*H*b", _AMPLITUDE),
    "qisa-v3": Formula("3*d**2 + d*H*2**n + 3*n*L*H + d", "T d H 2ⁿ + T H 4ⁿ", "T*H*b", _AMPLITUDE),
    "frozen": Formula("3*d**2 + d*H*2**n + 3*n*L*H + d", "T d H 2ⁿ + T H 4ⁿ", "T*H*b", _AMPLITUDE),
    "qsann": Formula("d**2 + 6*d*H*n + 3*H*n*(4*L + 2) + 3*d", "T d H n + T H L n 2ⁿ", "3*T*H*b", "n*(1 + L)"),
    "zz": Formula("3*d**2 + d*H*n + H*n*(L + 1) + d", "T d H n + T H 4ⁿ", "T*H*b", "n*(2 + L)"),
    "angle": Formula("d**2 + 3*d*H*n + 3*H*n*L + 3*d", "T d H n + T H 4ⁿ", "3*T*H*b", "n*L"),
    "orthogonal": Formula("2*d**2 + 3*H*L*h*(h - 1)//2 + 3*d", "T d h + H h³", "3*T*H*b", "4 + 2*(2*h - 3)*L"),
    "overlap": Formula("4*d**2 + 6*m*L*H + H", "T d 2ᵐ + T² H 2ᵐ", "T*(T + 1)//2*H", "2*(2**m - 2 + m*L)"),
    "qmsan": Formula(
        "3*d**2 + d*H*2**n + 3*n*L*H + d + 6*m*L*H + H",
        "T d H 2ⁿ + T H 4ⁿ + T² H 2ᵐ",
        "T*(T + 1)//2*H + T*H*b",
        _AMPLITUDE,
    ),
    "qcsam": Formula(
        "3*d**2 + d*H*2**n + 3*n*L*H + d + 6*m*L*H",
        "T d H 2ⁿ + T H 4ⁿ + T² H 2ᵐ",
        "T*(T + 1)*H + T*H*b",
        "max(2**n - 2 + n*L, 3*2**m - m - 2 + (6*m + 2)*L)",
    ),
    "butterfly": Formula("2*d**2 + 3*H*L*h//2*m + 3*d", "T d h + H h³", "3*T*H*b", "2*(h - 1) + 2*m*L"),
    "qasa": Formula("3*d**2 + d*H*(n - 1) + H*(n*L + n - 1) + d*(n - 1)", "T d H n + T H 4ⁿ", "T*H*b", "1 + (n - 1)*L"),
    "probabilities": Formula("3*d**2 + d*H*2**n + 3*n*L*H + d", "T d H 2ⁿ + T H 4ⁿ", "T*H*b", _AMPLITUDE),
    "compound": Formula(
        "3*d**2 + d*H*q**2//4 + H*L*q*(q - 1)//2 + d", "T d H q² + T H q⁴", "T*H*b", "q + 3 + 2*(2*q - 3)*L"
    ),
    "reflections": Formula("d**2 + 2*d*H*2**n + 2*d*2**n + 2*d + 36*H", "T d H 2ⁿ + T H 8ⁿ + T² H 4ⁿ + T d 2ⁿ"),
    "bottleneck": Formula("3*d**2 + d*H*(n - 1) + 5*H*(n - 1) + d*(n - 1)", "T d H n"),
    "born": Formula("3*d**2 + 2*d**2 + d", "T d h"),
    "pair-linear": Formula("3*d**2 + d*H*q**2//4 + d*q**2//4", "T d H q² + T d q²"),
    "quixer": Formula("d**2 + 4*d*H*n + 4*n*L*H + d + 68*H", "T d H n + T H 8ⁿ + T² H 4ⁿ"),
    "kernel": Formula("4*d**2 + 4*d*2**m + H", "T d 2ᵐ + T² H 2ᵐ"),
    "low-rank": Formula("3*d**2 + d*H*2**n + 2*d*2**n + 2*d + 4*d*2**m + H", "T d H 2ⁿ + T d 2ⁿ + T² H 2ᵐ"),
    "complex": Formula("3*d**2 + d*H*2**n + 2*d*2**n + 2*d + 4*d*2**m", "T d H 2ⁿ + T d 2ⁿ + T² H 2ᵐ"),
    "quadratic": Formula("3*d**2 + d*H*2**n + 2*d*2**n + 2*d", "T d H 2ⁿ + T d 2ⁿ"),
    "rff": Formula("4*d**2", "T d²"),
    "unit-linear": Formula("2*d**2 + 3*d*h", "T d h"),
    "mps": Formula("3*d**2 + d*H*n + H*(12 + 48*(n - 1) + 4*h)", "T d H n + T H (16 n + 4 h)"),
}


#: Classical heads whose attention is sampled, S keys per row, by the string that asks for it.
SAMPLED = {
    "stratified?samples=S": Formula("4*d**2", "T² H + T H S log₂ T, T S d in place of T² d"),
    "amplitude?qubits=n": Formula("4*d**2", "T² H", "T*H", "2**n - 2"),
}
#: Shots where the first gain is not that of a state of n qubits, nor of h numbers in unary encoding.
_GAINS = {"compound": "q (q - 1)/2 s²/ε²", "qasa": "g²/ε²", "probabilities": "g²/ε²"}


def value(formula: str, *, d: int, n: int, T: int = 1, L: int = 1, h: int = HEAD_SIZE, b: int = 1) -> int:
    """Return what a formula gives."""
    names = {"d": d, "h": h, "H": d // h, "n": n, "L": L, "T": T, "b": b, "m": math.ceil(math.log2(h)), "max": max}
    names["q"] = 2 * math.ceil(math.sqrt(h))
    return int(eval(formula, {"__builtins__": {}}, names))


def formulas_sheet(kinds: Sequence[str]) -> Sheet:
    """Return the table of formulas."""
    rows = [
        [f"`{kind}`", *map(_shown, (f.parameters, f.operations, f.circuits or "–", f.depth or "–")), _shots(kind)]
        for kind in kinds
        if (f := FORMULAS.get(kind))
    ]
    rows += [
        [f"`classical`, `{name}`", *map(_shown, (f.parameters, f.operations, f.circuits or "–", f.depth or "–")), "S"]
        for name, f in SAMPLED.items()
        if "classical" in kinds
    ]
    notes = (
        "One layer of H heads of width h = d/H on T tokens; circuits of n qubits with L ansatz layers; b measurement"
        " bases of the h observables; m = ⌈log₂ h⌉; q = 2 ⌈√h⌉.",
        "Operations are those on the exact engine beside what all kinds have: T d² for projections, T² d for scores and"
        " for mixing values. `classical` has nothing else: it is classical attention.",
        "The last rows are sampled attention of S keys per row, with n = ⌈log₂ T⌉ qubits. T² H is the distribution"
        " function of each row, T H S log₂ T the search in it. Without gradients and from 8 S keys on, it reads the"
        " values of drawn keys, T S d, in place of the product with all, T² d. `amplitude` takes a circuit for each row"
        " and head, fewer where rows are equal, and its shots are the samples.",
        "Depth counts layers of two-qubit gates before they are mapped to a device.",
        "Shots per circuit are those for an error ε of a value at the start of training, where gains are"
        " 2^(n/2) s, with s = 0.25 the spread of a linear value; g, the gain at the start where it is no such formula.",
    )
    header = ("kind", "parameters", "operations", "circuits per sequence", "two-qubit depth", "shots per circuit")
    return Sheet("Formulas", header, rows, notes)


def _shots(kind: str) -> str:
    found = head_kind(kind)
    if not FORMULAS[kind].circuits:
        return "–"
    if found.circuit is None:
        return "1/ε²"  # a probability, of which the score is made
    if kind in _GAINS:
        return _GAINS[kind]
    return "h s²/ε²" if found.qubits is not None else "2ⁿ s²/ε²"


def _shown(formula: str) -> str:
    for old, new in (("**n", "ⁿ"), ("**m", "ᵐ"), ("**2", "²"), ("//", "/"), ("*", " ")):
        formula = formula.replace(old, new)
    return formula
