"""The report of a suite as a short paper: question, method, results, figures, limits, and the one command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.comparison.claims import LOSS_IS, control_cells, outcome
from qiskit_qattn.evaluation.comparison.study import TRIAL_SEEDS
from qiskit_qattn.evaluation.comparison.tasks import is_custom
from qiskit_qattn.evaluation.paired_tests import minimum_seeds
from qiskit_qattn.evaluation.rendering import block, code, escaped, number, pairs, table
from qiskit_qattn.training.config import TrainConfig


def render_suite(report: Mapping[str, Any]) -> str:
    """Return the report as one Markdown document."""
    tasks, custom = report["tasks"], _is_custom(report)
    about = _ABOUT_TABLES.format(comparisons=counted(report["comparisons"], "comparison"))
    headline = f"Comparison with {escaped(report['study']['reference'])}"
    parts = [
        f"# {headline if custom else 'Do quantum attention heads help?'}",
        *_incomplete(report),
        "## Question",
        _custom_question(report) if custom else _question(report),
        "## Method",
        _method(report),
        "## Results",
        about if custom else about + _ABOUT_CONTROLS,
    ]
    for name, task in tasks.items():
        title = code(name) if custom else _begun(escaped(name))
        parts += [f"### {title}", f"{_begun(escaped(task['about']))}.", _results(task, controls=not custom)]
        parts += [_splits(task), _sentences(task)]
        if task["left_out"]:
            why = ", ".join(f"{code(kind)} ({escaped(reason)})" for kind, reason in task["left_out"].items())
            parts.append(f"Left out of this task: {why}.")
    parts += [
        f"![Differences from the reference{'' if custom else ' and from the control'}, by task](differences.png)",
        "![Loss against training time, by task](cost.png)",
        "## Limits",
        _limits(report),
        "## Reproduce",
        block(report["command"], "sh"),
        pairs({**report["versions"], **report["machine"]}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_ABOUT_TABLES = (
    "Losses are means over seeds ± standard deviation; lower is better. Differences are paired by seed, with 95 %"
    " bootstrap intervals; p is from a permutation test, with Holm's correction over {comparisons} of all"
    " tasks. A difference counts as lower or higher only if p is at most 0.05 and the interval excludes zero."
)
_ABOUT_CONTROLS = (
    " The last columns compare each circuit with its dequantised control, a classical kind of the same form."
)


def _incomplete(report: Mapping[str, Any]) -> list[str]:
    if report["complete"]:
        return []
    cells = report["cells"]
    failed = [f"- {escaped(name)} failed: {escaped(reason)}" for name, reason in report["failed"].items()]
    done = (
        f"**Incomplete:** {cells['done']:,} of {counted(cells['all'], 'cell')} are done."
        " The command at the end runs the rest."
    )
    return [done, *(["\n".join(failed)] if failed else [])]


def _question(report: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(kind for task in report["tasks"].values() for kind in task["kinds"])
    circuits = dict.fromkeys(
        kind for task in report["tasks"].values() for kind, found in task["kinds"].items() if found["circuit"]
    )
    reference = code(report["study"]["reference"])
    return (
        "Does a transformer learn more when its attention heads are quantum circuits?"
        f" {counted(len(circuits), 'kind')} of circuit and {counted(len(kinds) - len(circuits), 'classical kind')},"
        f" with {reference} as the reference, are compared on {counted(len(report['tasks']), 'task')}. A lower loss"
        " would not show that the circuit is the reason, so each circuit is also compared with its dequantised control,"
        " a classical kind that computes a function of the same form."
    )


def _custom_question(report: Mapping[str, Any]) -> str:
    """Return what a comparison of custom models asks; which of their kinds are circuits is not known."""
    kinds = dict.fromkeys(kind for task in report["tasks"].values() for kind in task["kinds"])
    study = report["study"]
    return (
        f"With which kind do the models that {code(study['build'])} builds learn more? {counted(len(kinds), 'kind')},"
        f" with {code(study['reference'])} as the reference, are compared. What a difference is due to is not known: no"
        " kind is compared with a control."
    )


def _method(report: Mapping[str, Any]) -> str:
    study = report["study"]
    config, rates, custom = study["config"], study.get("rates", []), _is_custom(report)
    splits = max(task["splits"] for task in report["tasks"].values())
    parts = [
        *([] if custom else [_shape(config)]),
        f"{'Models' if custom else 'They'} are trained for {counted(config['max_steps'], 'step')} of {_batch(report)},"
        f" with {counted(len(study['seeds']), 'seed')} of each kind. Models of one seed see the same batches,"
        f" {_matched(report)}{_unmatched(report)}.",
        *([f"Circuits run on {code(config['backend'])}."] if not _is_exact(config) else []),
        *(["Circuits are simulated exactly."] if _is_exact(config) and not custom else []),
        *([f"Attention is sampled: {code(config['sampling'])}."] if config.get("sampling") and not custom else []),
    ]
    if rates:
        parts.append(
            f"The peak learning rate of each kind and task is the best of {', '.join(f'{rate:g}' for rate in rates)} in"
            f" {len(TRIAL_SEEDS)} trials each, with seeds that are not reported; the rate of circuits and the last rate"
            " of the schedule keep their ratio to it. All kinds have the same number of trials."
        )
    else:
        parts.append(f"All kinds have the same peak learning rate, {config['learning_rate']:g}, tuned for none.")
    if splits > 1:
        parts.append(f"Each task is repeated over {splits} splits of its data; losses of a seed are means over them.")
    return " ".join(parts)


def _shape(config: Mapping[str, Any]) -> str:
    """Return the size of the models of this package's own tasks, in words."""
    qubits = counted(config["num_qubits"], "qubit") if config["num_qubits"] else "the fewest qubits"
    return (
        f"All models have {counted(config['n_layer'], 'layer')} of {counted(config['n_head'], 'head')} of one kind,"
        f" width {config['n_embd']} and, except where a kind needs another number, {qubits}."
    )


def _batch(report: Mapping[str, Any]) -> str:
    """Return what a step is trained on, in words."""
    study, config = report["study"], report["study"]["config"]
    if _is_custom(report) and not study["text"]:
        return counted(config["batch_size"], "example")
    return f"{config['batch_size']} sequences of at most {config['block_size']} tokens"


def _matched(report: Mapping[str, Any]) -> str:
    """Return how the models of a task are made equally large, in words."""
    if not _is_custom(report):
        return "and the width of the MLP makes all models of a task equally large, to within 1 %"
    if any(size["n_inner"] for size in report["study"]["sizes"].values()):
        return "and the width that the function takes makes all models equally large, to within 1 %"
    return "and all models have the size that the function gives them, equal to within 1 %"


def _results(task: Mapping[str, Any], *, controls: bool) -> str:
    """Return the table of a task, with the comparisons of circuits with their controls if it has any."""
    metrics = list(dict.fromkeys(name for found in task["kinds"].values() for name in found["metrics"]))
    rated = any(any(found["rates"]) for found in task["kinds"].values())
    head = ["Kind", "Loss", *metrics, *(["Rate"] if rated else []), "Parameters", "Training, s"]
    head += [f"Minus {task['reference']}", "p", "Loss is"]
    head += ["Control", "Minus control", "p", "Loss is"] if controls else []
    rows = []
    for kind, found in sorted(task["kinds"].items(), key=lambda item: (item[1]["mean"] is None, item[1]["mean"])):
        spread = f" ± {found['sd']:.4f}" if found["sd"] is not None else ""
        rows.append(
            [
                code(kind),
                number(found["mean"], "{:.4f}") + spread,
                *(number(found["metrics"].get(name), "{:.3f}") for name in metrics),
                *([", ".join(f"{rate:g}" for rate in found["rates"] if rate) or "–"] if rated else []),
                f"{found['size']['total']:,}",
                number(found["seconds"], "{:.1f}"),
                *_compared(found["against_reference"]),
                *([control_cells(found)[0], *_compared(found["against_control"])] if controls else []),
            ]
        )
    return table(head, rows)


def _compared(verdict: Mapping[str, Any] | None) -> list[str]:
    if verdict is None or verdict["mean_difference"] is None:
        return ["–", "–", "–"]
    low, high = verdict["interval"] or (None, None)
    interval = f" ({low:+.4f} to {high:+.4f})" if low is not None else ""
    word = LOSS_IS.get(verdict["verdict"], verdict["verdict"])
    return [f"{verdict['mean_difference']:+.4f}{interval}", number(verdict["adjusted_p"], "{:.2g}"), word]


def _splits(task: Mapping[str, Any]) -> str:
    """Return the differences by split; empty for one split."""
    if task["splits"] < 2:
        return ""
    head = ["Kind", *(f"Split {index}" for index in range(task["splits"]))]
    rows = [
        [code(kind), *(number(value, "{:+.4f}") for value in found["by_split"])]
        for kind, found in task["kinds"].items()
        if kind != task["reference"]
    ]
    return f"Mean differences from {code(task['reference'])} in each split of the data:\n\n{table(head, rows)}"


def _sentences(task: Mapping[str, Any]) -> str:
    """Return what is said of the kinds, those of the same outcome together; their figures are in the table."""
    few = "not enough seeds"
    short = [
        kind for kind in task["sentences"] if (task["kinds"][kind]["against_reference"] or {}).get("verdict") == few
    ]
    groups: dict[str, list[str]] = {}
    withheld: dict[str, list[str]] = {}
    for kind in task["sentences"]:
        each = task["kinds"][kind]
        if each["against_reference"] is None:
            withheld.setdefault(escaped(each["withheld"] or "it was not compared"), []).append(code(kind))
        elif kind not in short:
            control = f" (control {code(each['control'])})" if each["circuit"] and each["control"] else ""
            groups.setdefault(outcome(each, code(task["reference"])), []).append(code(kind) + control)
    found = [f"{said}: {', '.join(kinds)}." for said, kinds in sorted(groups.items())]
    found += [f"{', '.join(kinds)}: verdict withheld because {why}." for why, kinds in withheld.items()]
    found += [f"Not enough seeds for a verdict: {', '.join(map(code, short))}."] if short else []
    return "\n".join(f"- {sentence}" for sentence in found)


def _unmatched(report: Mapping[str, Any]) -> str:
    """Return which models are of another size, in words."""
    found = [
        f"{code(kind)} on {escaped(name)} ({each['size']['deviation']:+.1%})"
        for name, task in report["tasks"].items()
        for kind, each in task["kinds"].items()
        if not each["size"]["matched"]
    ]
    return f", except {', '.join(found)}" if found else ""


def _limits(report: Mapping[str, Any]) -> str:
    study = report["study"]
    config, needed = study["config"], minimum_seeds(num_comparisons=max(1, report["comparisons"]))
    comparisons = report["comparisons"]
    largest = max(found["size"]["total"] for task in report["tasks"].values() for found in task["kinds"].values())
    splits = max(task["splits"] for task in report["tasks"].values())
    limits = [
        f"Models have at most {largest:,} parameters and are trained for {counted(config['max_steps'], 'step')}."
        " Larger models, longer training and other data may give other results.",
    ]
    if _is_exact(config) and not _is_custom(report):
        limits.append(
            "Circuits are simulated exactly, without noise or shots. Nothing is said about speed on a device."
        )
    if study.get("rates"):
        limits.append(
            f"Learning rates were searched on a grid of {len(study['rates'])}; other settings of the optimizer are the"
            " same for all kinds and tuned for none. The rates were chosen on the validation data that the losses"
            " are measured on, for every kind alike."
        )
        chosen = [
            rate
            for task in report["tasks"].values()
            for found in task["kinds"].values()
            for rate in found["rates"]
            if rate is not None
        ]
        if at_edge := sum(rate in (min(study["rates"]), max(study["rates"])) for rate in chosen):
            limits.append(
                f"Of {len(chosen)} searches {at_edge} chose the lowest or the highest rate of the grid; a better one"
                " may lie outside."
            )
    if splits == 1:
        limits.append("Seeds change weights and batches, not the split of the data.")
    if len(study["seeds"]) < needed:
        limits.append(
            f"{counted(len(study['seeds']), 'seed')} cannot show any difference with"
            f" {counted(comparisons, 'comparison')}, however large; that takes at least {needed}."
            " This is a trial run."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _is_custom(report: Mapping[str, Any]) -> bool:
    """Return whether a user's build function built the models."""
    return is_custom(report["study"].get("build", ""))


def _is_exact(config: Mapping[str, Any]) -> bool:
    return bool(config["backend"] == TrainConfig.backend)


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]
