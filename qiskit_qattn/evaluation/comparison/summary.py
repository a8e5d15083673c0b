"""The result of a study: means and standard deviations by kind, and which kinds get a verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.statistics import Comparison, compare_to_reference

LOSS = "val_loss"  # the figure that decides verdicts
METRIC = "metric "  # comes before the name of a metric of one's own
#: The figures that are averaged over seeds, by their group in a cell's record.
FIGURES: dict[str, tuple[str, ...]] = {
    "": (
        *(LOSS, "val_loss_last_position", "train_loss"),
        *("tokens_per_second", "train_seconds", "wall_seconds", "cpu_seconds", "qpu_seconds", "peak_rss_mib"),
    ),
    "prediction": ("character_error_rate", "word_error_rate"),
    "circuits": (
        *("gradient_variance", "effective_dimension", "meyer_wallach"),
        *("expressibility", "expressibility_random_weights"),
    ),
}


Losses = dict[str, dict[int, float]]  # by kind and seed; none of a kind without a verdict


def objections(study: Study, records: Mapping[Cell, Mapping[str, Any]]) -> dict[str, str]:
    """Return why kinds get no verdict, for those that get none; for all of them if the reference is one."""
    by_kind = _by_kind(study, records)
    against = by_kind[study.reference]
    found = {kind: why for kind in study.kinds if (why := _objection(study, kind, by_kind[kind], against)) is not None}
    if (why := found.get(study.reference)) is not None:
        rest = {kind: f"the reference {study.reference} has none: {why}" for kind in study.kinds if kind not in found}
        found |= rest
    return found


def ranked_losses(study: Study, records: Mapping[Cell, Mapping[str, Any]]) -> Losses:
    """Return the validation losses of each kind by seed; none of a kind that gets no verdict."""
    withheld = objections(study, records)
    by_kind = _by_kind(study, records)
    return {
        kind: {} if kind in withheld else {seed: record[LOSS] for seed, record in found.items()}
        for kind, found in by_kind.items()
    }


def summarise(
    study: Study, records: Mapping[Cell, Mapping[str, Any]], verdicts: Mapping[str, Comparison] | None = None
) -> dict[str, Any]:
    """Return, for each kind, its figures over the seeds, whether it is ranked, and its verdict.

    A kind gets a verdict when all cells of it and of the reference are done, and all their models are causal. Holm's
    correction is over all kinds of the study, including those without a verdict, so that later cells do not enlarge the
    family and so revoke a verdict. Timings do not affect verdicts.

    Args:
        study: The study.
        records: The records of the cells that are done.
        verdicts: The comparisons by kind, if they were made together with those of other studies.

    Returns:
        Kinds in the study's order, each with ``size``, ``seeds``, ``figures`` (mean and sample standard deviation),
        ``leaks`` (the seeds of models that depend on future tokens), ``withheld`` (why there is no verdict, or None),
        ``comparison`` and ``sentence``.
    """
    by_kind, reasons = _by_kind(study, records), objections(study, records)
    if verdicts is None:
        verdicts = {}
        if study.reference not in reasons and len(reasons) < len(study.kinds) - 1:
            verdicts = compare_to_reference(ranked_losses(study, records), study.reference)
    summary = {}
    for kind, found in by_kind.items():
        withheld = reasons.get(kind)
        verdict = verdicts.get(kind) if withheld is None else None
        summary[kind] = {
            "size": study.sizes[kind].to_dict(),
            "seeds": sorted(found),
            "figures": {name: _spread(values) for name, values in _figures(list(found.values())).items()},
            "leaks": _leaks(found),
            "withheld": withheld,
            "comparison": verdict.to_dict() if verdict else None,
            "sentence": _sentence(study, kind, withheld, verdict.sentence if verdict else None),
        }
    return summary


def _by_kind(study: Study, records: Mapping[Cell, Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return the records of each kind by seed."""
    return {
        kind: {c.seed: records[c] for c in study.cells() if c.kind == kind and c in records} for kind in study.kinds
    }


def _figures(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return the figures of a kind's records by name, the metrics of models of one's own last."""
    found = {
        name: [((record.get(group) or {}) if group else record).get(name) for record in records]
        for group, names in FIGURES.items()
        for name in names
    }
    metrics = dict.fromkeys(name for record in records for name in record.get("metrics", {}))
    return found | {f"{METRIC}{name}": [record.get("metrics", {}).get(name) for record in records] for name in metrics}


def _leaks(found: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Return the seeds of models that read ahead; models that are no language models cannot."""
    return [seed for seed, record in sorted(found.items()) if not (record["causality"] or {"passed": True})["passed"]]


def _objection(
    study: Study, kind: str, found: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]]
) -> str | None:
    """Return why a kind gets no verdict whatever the reference, or None."""
    shared = [seed for seed in sorted(found) if seed in reference]
    if other := [seed for seed in shared if found[seed].get("data") != reference[seed].get("data")]:
        return f"its data are not those of {study.reference} with the same seed ({', '.join(map(str, other))})"
    if leaks := _leaks(found):
        where = f"seed{'s' if len(leaks) > 1 else ''} {', '.join(map(str, leaks))}"
        return f"its model reads its own future ({where}), so its losses are not comparable"
    if missing := len(study.seeds) - len(found):
        return f"{missing} of its {len(study.seeds)} cells {'is' if missing == 1 else 'are'} not done"
    return None


def _spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Return the mean and the sample standard deviation; None where there are too few values."""
    numbers = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(numbers) if numbers else None,
        "sd": statistics.stdev(numbers) if len(numbers) > 1 else None,
    }


def _sentence(study: Study, kind: str, withheld: str | None, verdict: str | None) -> str:
    if withheld is not None:
        return f"{kind}: verdict withheld because {withheld}."
    if verdict is not None:
        return verdict
    return f"{kind}: the reference." if kind == study.reference else f"{kind}: no kind to compare it with."
