"""What may be said of a kind that was compared.

A circuit may only be called better than the reference in a sentence that also says how it compares with its dequantised
control, and only if it is better than that too: :func:`claim`, :func:`outcome` and :func:`verdict_word` decide on such
words, for the reports of studies, of comparisons over tasks, and of fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from qiskit_qattn.evaluation.paired_tests import POWER
from qiskit_qattn.evaluation.rendering import code, number, table

#: A verdict as a statement about losses, without a claim of what is better.
LOSS_IS = {"better": "lower", "worse": "higher"}


class Found(TypedDict):
    """What was found of a kind.

    Attributes:
        withheld: Why it has no verdict, or None.
        circuit: Whether it has a circuit; None for custom models, of which that is not known.
        control: The name of its dequantised control, whether or not that was compared; None if it has none.
        against_reference: Its comparison with the reference as plain values, or None.
        against_control: Its comparison with its control; None if the control was not compared.
    """

    withheld: str | None
    circuit: bool | None
    control: str | None
    against_reference: Mapping[str, Any] | None
    against_control: Mapping[str, Any] | None


def claim(kind: str, reference: str, found: Found, *, measure: str = "loss", what: str = "kind") -> str:
    """Return in words how a kind compares with the reference and, if it is a circuit, with its dequantised control.

    Args:
        kind: The kind.
        reference: The reference.
        found: What was found of it.
        measure: What is compared, of which less is better.
        what: What a kind is called.
    """
    verdict, control = found["against_reference"], found["against_control"]
    if found["withheld"] is not None or verdict is None:
        return f"{kind}: verdict withheld because {found['withheld'] or 'it was not compared'}."
    if verdict["verdict"] == "not enough seeds":
        return str(verdict["sentence"])
    more = ""
    if verdict["verdict"] == "no difference shown" and verdict["detectable"] is not None:
        more += f" A true difference of {verdict['detectable']:.4f} would be detected in {POWER:.0%} of such studies."
    if verdict["diverged"]:
        listed = ", ".join(map(str, verdict["diverged"]))
        more += f" A {measure} is not finite for seed {listed}: excluded, and no claim is made."
    base = f"{_relation(verdict, measure)} {reference} ({_figures(verdict)})"
    if found["circuit"] is None:
        return f"{kind} {base}. How much of that is due to a circuit is not known: no control was compared.{more}"
    if not found["circuit"]:
        return f"{kind}, a classical {what}, {base}.{more}"
    if control is None:
        return f"{kind} {base}. Nothing is claimed about its circuit: {_lack(found)}.{more}"
    beside = f"its dequantised control {found['control']}"
    against = f"({_figures(control)})" if control["interval"] else f"({control['verdict']})"
    lower = verdict["verdict"] == "better"
    if control["verdict"] == "better":
        if lower:
            return f"{kind} is better than {reference} ({_figures(verdict)}) and than {beside} {against}."
        return f"{kind} {base}, and a lower one than {beside} {against}.{more}"
    if control["verdict"] == "worse":
        why = ": the circuit is not what helps" if lower else ""
        return f"{kind} {base}, but a higher one than {beside} {against}{why}.{more}"
    why = ": the gain is not shown to come from the circuit" if lower else ""
    return f"{kind} {base}; no difference from {beside} is shown {against}{why}.{more}"


def outcome(found: Found, reference: str) -> str:
    """Return what was found of a kind without its figures, as what a list of kinds of the same outcome begins with."""
    verdict, control = found["against_reference"], found["against_control"]
    name = "" if verdict is None else str(verdict["verdict"])
    base = {"better": f"a lower loss than {reference}", "worse": f"a higher loss than {reference}"}.get(
        name, f"a loss that is not shown to differ from that of {reference}"
    )
    if not found["circuit"]:
        return f"Classical kinds with {base}" if found["circuit"] is False else f"Kinds with {base}"
    if control is None:
        return f"Circuits with {base}, whose dequantised controls were not compared, so that nothing is claimed"
    if control["verdict"] == "better":
        if name == "better":
            return f"Circuits that are better than {reference} and than their dequantised controls"
        return f"Circuits with {base}, and a lower one than their dequantised controls"
    if control["verdict"] == "worse":
        why = ", so that the circuit is not what helps" if name == "better" else ""
        return f"Circuits with {base}, and a higher one than their dequantised controls{why}"
    why = ", so that the gain is not shown to come from the circuit" if name == "better" else ""
    return f"Circuits with {base}, and no difference shown from their dequantised controls{why}"


def verdict_word(found: Found, measure: str = "loss") -> str:
    """Return the verdict of a kind as an entry of a table: *better* only for a circuit that beats its control too."""
    verdict, control = found["against_reference"], found["against_control"]
    if found["withheld"] is not None or verdict is None:
        return "withheld"
    name = str(verdict["verdict"])
    if name == "better" and found["circuit"] and control is not None and control["verdict"] == "better":
        return name
    return f"{LOSS_IS[name]} {measure}" if name in LOSS_IS else name


def verdict_table(kinds: Mapping[str, Any], reference: str) -> str:
    """Return the verdict of each kind but the reference, with its dequantised control beside it."""
    head = [
        "Kind",
        "Verdict",
        f"Minus {reference}",
        "95% interval",
        "p (Holm)",
        "Effect size",
        "Seeds needed to detect",
    ]
    rows = []
    for kind, found in kinds.items():
        verdict, cells = found["against_reference"], ["–"] * 5
        if kind == reference:
            continue
        if verdict is not None:
            needed = verdict["seeds_needed"]
            cells = [
                number(verdict["mean_difference"], "{:+.4f}"),
                " to ".join(f"{end:+.4f}" for end in verdict["interval"]) if verdict["interval"] else "–",
                number(verdict["adjusted_p"], "{:.3g}"),
                number(verdict["effect_size"], "{:+.2f}"),
                f"{verdict['difference']:g}: {needed:,}" if needed else "–",
            ]
        word = "withheld" if verdict is None else f"**{verdict_word(found)}**"
        rows.append([code(kind), word, *cells, *control_cells(found)])
    return table([*head, "Control", "Minus its control"], rows)


def control_cells(found: Found) -> list[str]:
    """Return the dequantised control of a kind and the difference from it, as two entries of a table."""
    control = found["against_control"]
    if found["control"] is None:
        return ["none" if found["circuit"] else "–", "–"]
    if control is None:
        return [code(found["control"]), "not compared"]
    known = control["mean_difference"] is not None and control["interval"]
    return [code(found["control"]), _figures(control) if known else str(control["verdict"])]


def _lack(found: Found) -> str:
    """Return why a circuit has no comparison with its control."""
    if found["control"] is None:
        return "it has no dequantised control"
    return f"its dequantised control {found['control']} was not compared"


def _relation(verdict: Mapping[str, Any], measure: str) -> str:
    """Return a verdict in words."""
    word = LOSS_IS.get(verdict["verdict"])
    return f"has a {word} {measure} than" if word else f"has a {measure} that is not shown to differ from that of"


def _figures(verdict: Mapping[str, Any]) -> str:
    low, high = verdict["interval"]
    return f"{verdict['mean_difference']:+.4f}, {low:+.4f} to {high:+.4f}, p = {verdict['adjusted_p']:.2g}"
