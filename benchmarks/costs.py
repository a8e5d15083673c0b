"""What a layer of attention costs with each kind of head: formulas, beside exponents fitted to measurements.

    python -m benchmarks.costs             # prints the tables, and writes benchmarks/costs.md
    python -m benchmarks.costs --only NAME # one kind; writes nothing
    python -m benchmarks.costs --quick --out FILE  # at the smallest sizes, to see that it works

What is measured is kept beside the page until it is written: after an interruption the same command goes on.

Formulas are those of :mod:`benchmarks.cost_formulas`. Exponents are slopes of least squares over the logarithms of a
quantity and of T or d; over n it is a power or an exponential, whichever is nearer.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from rich.console import Console
from torch import nn

import qiskit_qattn as qa
from benchmarks.cost_formulas import HEAD_SIZE, Sheet, formulas_sheet
from benchmarks.machine import describe
from qiskit_qattn.errors import QattnError
from qiskit_qattn.evaluation.device_cost import estimate
from qiskit_qattn.evaluation.rendering import write_json
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.untrusted import as_type, read_json

SAMPLED_ROW = "classical, stratified?samples=S"
_BATCH, _TURNS = 4, 3
_PATH = Path(__file__).with_name("costs.md")


@dataclass(frozen=True)
class Sizes:
    """Where costs are measured: T, d, n and S, and the processor's seconds for each point at least."""

    tokens: tuple[int, ...] = (64, 128, 256, 512)
    widths: tuple[int, ...] = (16, 32, 64, 128)
    qubits: tuple[int, ...] = (4, 5, 6, 7, 8)
    samples: tuple[int, ...] = (8, 16, 32, 64)
    seconds: float = 0.15


QUICK = Sizes((8, 16), (16, 32), (4, 5), (4, 8), 0.0)


def layer(kind: str, *, T: int, d: int, n: int, L: int = 1, sampling: str | None = None) -> CausalSelfAttention:
    """Return a layer of attention whose heads are all of one kind."""
    heads = d // HEAD_SIZE
    shape = {"vocab_size": 2, "block_size": T, "n_layer": 1, "n_head": heads, "n_embd": d, "reps": L}
    config = qa.GPTConfig(**shape, heads=f"{kind}:{heads}", num_qubits=n, sampling=sampling)
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


def seconds(module: nn.Module, x: torch.Tensor, least: float) -> float:
    """Return the least time of a pass forward and backward in a few turns, as the processor's time of this process."""

    def step() -> None:
        module(x).sum().backward()

    step()
    times = []
    for _ in range(_TURNS):
        count, begin = 0, time.process_time()
        while (spent := time.process_time() - begin) < least / _TURNS or not count:
            step()
            count += 1
        times.append(spent / count)
    return min(times)


def exponents(kind: str, sizes: Sizes) -> dict[str, str]:
    """Return the fitted exponents of one kind as text; a dash where there is no circuit, or none that is sent."""
    torch.manual_seed(0)
    tokens, widths, qubits = sizes.tokens, sizes.widths, sizes.qubits
    n = math.ceil(math.log2(widths[-1])) if head_kind(kind).encodes_token else qubits[0]  # of the largest width

    def timed(T: int, d: int, n: int) -> float:
        return seconds(layer(kind, T=T, d=d, n=n), torch.randn(_BATCH, T, d), sizes.seconds)

    found = {
        "time over T": f"T^{slope(tokens, [timed(T, widths[0], n) for T in tokens]):.2f}",
        "time over d": f"d^{slope(widths, [timed(tokens[0], d, n) for d in widths]):.2f}",
        "time over n": growth(qubits, [timed(tokens[0], widths[0], n) for n in qubits]),
        "parameters over d": f"d^{slope(widths, [_parameters(layer(kind, T=1, d=d, n=n)) for d in widths]):.2f}",
        "circuits over T": "–",
        "depth over n": "–",
    }
    if head_kind(kind).circuits:
        with suppress(QattnError):  # a kind that runs on the exact engine only
            sent = [sent_circuits(kind, T, widths[0], qubits[0])[0] for T in (8, 16, 32)]
            found["circuits over T"] = f"T^{slope((8, 16, 32), sent):.2f}"
            found["depth over n"] = growth(qubits, [sent_circuits(kind, 2, widths[0], n)[1] for n in qubits])
    return found


def sampled_exponents(sizes: Sizes) -> dict[str, str]:
    """Return those of classical heads with sampled attention, over S in place of n."""
    torch.manual_seed(0)
    tokens, widths, samples = sizes.tokens, sizes.widths, sizes.samples

    def timed(T: int, d: int, S: int) -> float:
        module = layer("classical", T=T, d=d, n=4, sampling=f"stratified?samples={S}")
        return seconds(module, torch.randn(_BATCH, T, d), sizes.seconds)

    return {
        "time over T": f"T^{slope(tokens, [timed(T, widths[0], samples[0]) for T in tokens]):.2f}",
        "time over d": f"d^{slope(widths, [timed(tokens[0], d, samples[0]) for d in widths]):.2f}",
        "time over n": f"S^{slope(samples, [timed(tokens[0], widths[0], S) for S in samples]):.2f}",
        "parameters over d": f"d^{slope(widths, [_parameters(layer('classical', T=1, d=d, n=4)) for d in widths]):.2f}",
        "circuits over T": "–",
        "depth over n": "–",
    }


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def sent_circuits(kind: str, T: int, d: int, n: int, sampling: str | None = None) -> tuple[int, int]:
    """Return how many circuits one sequence takes, and the depth of the deepest."""
    cost = estimate(layer(kind, T=T, d=d, n=n, sampling=sampling), torch.randn(1, T, d), "aer?shots=1000")
    return cost.total.circuits, cost.depth


def exponents_sheet(found: dict[str, dict[str, str]], failed: dict[str, str], sizes: Sizes) -> Sheet:
    """Return the table of measured exponents, with why some kinds have none."""
    tokens, widths, qubits, samples = sizes.tokens, sizes.widths, sizes.qubits, sizes.samples
    notes = [
        f"Times are processor times of a pass forward and backward on one thread, for {_BATCH} sequences, heads of"
        f" width {HEAD_SIZE}, and T = {tokens[0]}, d = {widths[0]}, n = {qubits[0]}, S = {samples[0]} where they do not"
        f" vary; n = {math.ceil(math.log2(widths[-1]))} for kinds that encode the token.",
        f"Ranges: T from {tokens[0]} to {tokens[-1]}, d from {widths[0]} to {widths[-1]}, n from {qubits[0]} to"
        f" {qubits[-1]}, S from {samples[0]} to {samples[-1]}, which takes the place of n for sampled attention. At"
        " these sizes the cost of calls is part of every time, so exponents are below those of the leading terms.",
        *(f"`{kind}` could not be measured: {why}" for kind, why in failed.items()),
    ]
    names = list(next(iter(found.values()), {}))
    rows = [[f"`{kind}`", *(each[name] for name in names)] for kind, each in found.items()]
    return Sheet("Fitted exponents", ("kind", *names), rows, notes)


class Measured(TypedDict):
    """What is kept of an unfinished run: where and at which sizes it measures, and what it has so far."""

    setting: str
    found: dict[str, dict[str, str]]
    failed: dict[str, str]


def measure(kinds: Sequence[str], sizes: Sizes, kept: Path | None, progress: Callable[[str], None]) -> Measured:
    """Measure each kind, and sampled attention, and return what was found.

    Args:
        kinds: The kinds.
        sizes: Where.
        kept: A file for what is measured, from which a run that was interrupted goes on.
        progress: Called with each kind that is measured.
    """
    setting = f"{describe().partition(', ')[2]}; {sizes}"  # without the day
    known = Measured(setting=setting, found={}, failed={})
    if kept is not None and kept.is_file():
        with suppress(ValueError):  # a damaged file, which is written anew
            there: Measured = as_type(read_json(kept), Measured)
            known = there if there["setting"] == setting else known
    for kind in (*kinds, SAMPLED_ROW):
        if kind in known["found"] or kind in known["failed"]:
            continue
        progress(kind)
        try:
            known["found"][kind] = sampled_exponents(sizes) if kind == SAMPLED_ROW else exponents(kind, sizes)
        except QattnError as error:
            known["failed"][kind] = " ".join(str(error).split())[:160]
        if kept is not None:
            write_json(kept, known)
    return known


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, and write them unless only some kinds are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=qa.list_heads(), metavar="NAME", help="one kind of head")
    parser.add_argument("--quick", action="store_true", help="at the smallest sizes, which measures nothing of use")
    parser.add_argument("--out", type=Path, help="the page; benchmarks/costs.md unless --quick")
    given = parser.parse_args(arguments)
    page = None if given.only else given.out or (None if given.quick else _PATH)
    kept = None if page is None else page.with_suffix(".part.json")
    torch.set_num_threads(1)
    console, kinds, sizes = Console(), given.only or qa.list_heads(), QUICK if given.quick else Sizes()
    with console.status("Measuring") as status:
        known = measure(kinds, sizes, kept, lambda kind: status.update(f"Measuring {kind}"))
    sheets = [formulas_sheet(kinds), exponents_sheet(known["found"], known["failed"], sizes)]
    text = "\n".join(sheet.markdown() for sheet in sheets)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if page is not None and kept is not None:
        page.write_text(f"# What a layer costs\n\n{describe()}\n\n{text}", encoding="utf-8")
        kept.unlink(missing_ok=True)
        console.print(f"Written to {page}.", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
