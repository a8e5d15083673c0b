"""The result of a study: means and standard deviations by kind, and what may be said of each."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qiskit_qattn.evaluation.comparison.claims import Found, claim
from qiskit_qattn.evaluation.comparison.kinds import comparisons, control_name, control_of, has_circuit
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.tasks import is_custom
from qiskit_qattn.evaluation.statistics import Comparison, compare_pairs

LOSS = "val_loss"  # the figure that decides verdicts
METRIC = "metric "  # comes before the name of a custom model's metric
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
Verdicts = Mapping[tuple[str, str], Comparison]  # by kind and what it is compared with


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


def judged_alone(study: Study, records: Mapping[Cell, Mapping[str, Any]]) -> Verdicts:
    """Return the comparisons of a study by kind and what the kind is compared with, corrected together.

    Holm's correction is over all of them, those of kinds without a verdict included, so that later cells do not enlarge
    the family and so revoke a verdict.
    """
    losses = ranked_losses(study, records)
    keys = comparisons(study.kinds, study.reference, custom=is_custom(study.build))
    pairs = [(kind, against, losses[kind], losses[against]) for kind, against in keys]
    return dict(zip(keys, compare_pairs(pairs, what="comparisons"), strict=True))


def found_of(
    kind: str,
    kinds: Sequence[str],
    reference: str,
    verdicts: Verdicts,
    *,
    withheld: str | None = None,
    custom: bool = False,
) -> Found:
    """Return what was found of a kind, in the form from which its verdict is worded.

    Args:
        kind: The kind.
        kinds: All that were compared.
        reference: The reference.
        verdicts: The comparisons by kind and what it is compared with.
        withheld: Why it has no verdict.
        custom: Whether a user's build function builds its models, so that nothing is known of circuits.
    """
    among = None if custom else control_of(kind, kinds)
    against, beside = verdicts.get((kind, reference)), verdicts.get((kind, among or ""))
    return Found(
        withheld=withheld,
        circuit=None if custom else has_circuit(kind),
        control=among or (None if custom else control_name(kind)),
        against_reference=against.to_dict() if against and withheld is None else None,
        against_control=beside.to_dict() if beside and withheld is None else None,
    )


def summarise(
    study: Study, records: Mapping[Cell, Mapping[str, Any]], verdicts: Verdicts | None = None
) -> dict[str, Any]:
    """Return, for each kind, its figures over the seeds, whether it is ranked, and its verdict.

    A kind gets a verdict when all cells of it and of the reference are done, and all their models are causal. Timings
    do not affect verdicts.

    Args:
        study: The study.
        records: The records of the cells that are done.
        verdicts: The comparisons by kind and what it is compared with, if they were made together with those of other
            studies; None makes those of this study.

    Returns:
        Kinds in the study's order, each with ``size``, ``seeds``, ``figures`` (mean and sample standard deviation),
        ``leaks`` (the seeds of models that depend on future tokens), the parts of
        :class:`~qiskit_qattn.evaluation.comparison.claims.Found`, and ``sentence``.
    """
    by_kind, reasons = _by_kind(study, records), objections(study, records)
    verdicts = judged_alone(study, records) if verdicts is None else verdicts
    custom, summary = is_custom(study.build), {}
    for kind, found in by_kind.items():
        known = found_of(kind, study.kinds, study.reference, verdicts, withheld=reasons.get(kind), custom=custom)
        said = f"{kind}: the reference."
        if kind != study.reference or known["withheld"] is not None:
            said = claim(kind, study.reference, known)
        summary[kind] = {
            "size": study.sizes[kind].to_dict(),
            "seeds": sorted(found),
            "figures": {name: _spread(values) for name, values in _figures(list(found.values())).items()},
            "leaks": _leaks(found),
            **known,
            "sentence": said,
        }
    return summary


def _by_kind(study: Study, records: Mapping[Cell, Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return the records of each kind by seed."""
    return {
        kind: {c.seed: records[c] for c in study.cells() if c.kind == kind and c in records} for kind in study.kinds
    }


def _figures(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return the figures of a kind's records by name, the metrics of custom models last."""
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
