"""What a layer of attention costs with each kind of head: formulas, beside exponents fitted to measurements.

    python -m benchmarks.costs             # prints the tables, and writes benchmarks/costs.md
    python -m benchmarks.costs --only NAME # one kind; writes nothing

Formulas are of one layer of H heads of width h = d/H on T tokens, with circuits of n qubits and L ansatz layers; tests
compare those of parameters, circuits and depth with what is built. Exponents are slopes of least squares over the
logarithms of a quantity and of T or d; over n it is a power or an exponential, whichever is nearer.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

import qiskit_qattn as qa
from benchmarks.machine import describe
from qiskit_qattn.errors import QattnError
from qiskit_qattn.evaluation.device_cost import estimate
from qiskit_qattn.evaluation.rendering import table
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.kinds import head_kind

HEAD_SIZE = 8
TOKENS, WIDTHS, QUBITS = (64, 128, 256, 512), (16, 32, 64, 128), (4, 5, 6, 7, 8)
_BATCH, _SECONDS, _TURNS = 4, 0.15, 3
_PATH = Path(__file__).with_name("costs.md")


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


#: Shots where the first gain is not that of a state of n qubits, nor of h numbers in unary encoding.
_GAINS = {"compound": "q (q - 1)/2 s²/ε²", "qasa": "g²/ε²", "probabilities": "g²/ε²"}


def value(formula: str, *, d: int, n: int, T: int = 1, L: int = 1, h: int = HEAD_SIZE, b: int = 1) -> int:
    """Return what a formula gives."""
    names = {"d": d, "h": h, "H": d // h, "n": n, "L": L, "T": T, "b": b, "m": math.ceil(math.log2(h)), "max": max}
    names["q"] = 2 * math.ceil(math.sqrt(h))
    return int(eval(formula, {"__builtins__": {}}, names))


def layer(kind: str, *, T: int, d: int, n: int, L: int = 1) -> CausalSelfAttention:
    """Return a layer of attention whose heads are all of one kind."""
    heads = d // HEAD_SIZE
    shape = {"vocab_size": 2, "block_size": T, "n_layer": 1, "n_head": heads, "n_embd": d, "reps": L}
    config = qa.GPTConfig(**shape, heads=f"{kind}:{heads}", num_qubits=n)
    return CausalSelfAttention(config, {head_kind(kind).name: heads})


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the exponent e of the power law y = c xᵉ with the least squares of the logarithms."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def growth(xs: Sequence[float], ys: Sequence[float]) -> str:
    """Return the power law or the exponential that is nearer to values, as text: ``n^1.00`` or ``2.00ⁿ``."""
    logs, fits = np.log(ys), []
    for along in (np.log(xs), np.asarray(xs, dtype=float)):
        line = np.polyfit(along, logs, 1)
        fits.append((float(np.square(np.polyval(line, along) - logs).sum()), float(line[0])))
    (power_off, power), (off, rate) = fits
    return f"n^{power:.2f}" if power_off <= off else f"{math.exp(rate):.2f}ⁿ"


def seconds(module: nn.Module, x: torch.Tensor) -> float:
    """Return the least time of a pass forward and backward in a few turns, as the processor's time of this process."""

    def step() -> None:
        module(x).sum().backward()

    step()
    times = []
    for _ in range(_TURNS):
        count, begin = 0, time.process_time()
        while (spent := time.process_time() - begin) < _SECONDS / _TURNS or not count:
            step()
            count += 1
        times.append(spent / count)
    return min(times)


def exponents(kind: str) -> dict[str, str]:
    """Return the fitted exponents of one kind as text; a dash where there is no circuit, or none that is sent."""
    torch.manual_seed(0)
    n = 7 if head_kind(kind).encodes_token else 4  # those encode a token of the largest width

    def timed(T: int, d: int, n: int) -> float:
        return seconds(layer(kind, T=T, d=d, n=n), torch.randn(_BATCH, T, d))

    found = {
        "time over T": f"T^{slope(TOKENS, [timed(T, WIDTHS[0], n) for T in TOKENS]):.2f}",
        "time over d": f"d^{slope(WIDTHS, [timed(TOKENS[0], d, n) for d in WIDTHS]):.2f}",
        "time over n": growth(QUBITS, [timed(TOKENS[0], WIDTHS[0], n) for n in QUBITS]),
        "parameters over d": f"d^{slope(WIDTHS, [_parameters(layer(kind, T=1, d=d, n=n)) for d in WIDTHS]):.2f}",
        "circuits over T": "–",
        "depth over n": "–",
    }
    if head_kind(kind).circuits:
        with suppress(QattnError):  # a kind that runs on the exact engine only
            sent = [_sent(kind, T, QUBITS[0])[0] for T in (8, 16, 32)]
            found["circuits over T"] = f"T^{slope((8, 16, 32), sent):.2f}"
            found["depth over n"] = growth(QUBITS, [_sent(kind, 2, n)[1] for n in QUBITS])
    return found


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _sent(kind: str, T: int, n: int) -> tuple[int, int]:
    """Return how many circuits one sequence takes, and the depth of the deepest."""
    cost = estimate(layer(kind, T=T, d=WIDTHS[0], n=n), torch.randn(1, T, WIDTHS[0]), "aer?shots=1000")
    return cost.total.circuits, cost.depth


def formulas_sheet(kinds: Sequence[str]) -> Sheet:
    """Return the table of formulas."""
    rows = [
        [f"`{kind}`", *map(_shown, (f.parameters, f.operations, f.circuits or "–", f.depth or "–")), _shots(kind)]
        for kind in kinds
        if (f := FORMULAS.get(kind))
    ]
    notes = (
        "One layer of H heads of width h = d/H on T tokens; circuits of n qubits with L ansatz layers; b measurement"
        " bases of the h observables; m = ⌈log₂ h⌉; q = 2 ⌈√h⌉.",
        "Operations are those on the exact engine beside what all kinds have: T d² for projections, T² d for scores and"
        " for mixing values. `classical` has nothing else: it is classical attention.",
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


def exponents_sheet(kinds: Sequence[str], progress: Callable[[str], None] = lambda kind: None) -> Sheet:
    """Measure each kind, and return the table of exponents."""
    found: dict[str, dict[str, str]] = {}
    notes = [
        f"Times are processor times of a pass forward and backward on one thread, for {_BATCH} sequences, heads of"
        f" width {HEAD_SIZE}, and T = {TOKENS[0]}, d = {WIDTHS[0]}, n = 4 where they do not vary; n = 7 for kinds that"
        " encode the token.",
        f"Ranges: T from {TOKENS[0]} to {TOKENS[-1]}, d from {WIDTHS[0]} to {WIDTHS[-1]}, n from {QUBITS[0]} to"
        f" {QUBITS[-1]}. At these sizes the cost of calls is part of every time, so exponents are below those of the"
        " leading terms.",
    ]
    for kind in kinds:
        progress(kind)
        try:
            found[kind] = exponents(kind)
        except QattnError as error:
            notes.append(f"`{kind}` could not be measured: {' '.join(str(error).split())[:160]}")
    names = list(next(iter(found.values()), {}))
    rows = [[f"`{kind}`", *(each[name] for name in names)] for kind, each in found.items()]
    return Sheet("Fitted exponents", ("kind", *names), rows, notes)


def main() -> None:
    """Print both tables, and write them unless only some kinds are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=qa.list_heads(), metavar="NAME", help="one kind of head")
    chosen = parser.parse_args().only
    torch.set_num_threads(1)
    console = Console()
    kinds = chosen or qa.list_heads()
    with console.status("Measuring") as status:
        sheets = [formulas_sheet(kinds), exponents_sheet(kinds, lambda kind: status.update(f"Measuring {kind}"))]
    text = "\n".join(sheet.markdown() for sheet in sheets)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not chosen:
        _PATH.write_text(f"# What a layer costs\n\n{describe()}\n\n{text}", encoding="utf-8")
        console.print(f"Written to benchmarks/{_PATH.name}.")


if __name__ == "__main__":
    main()
