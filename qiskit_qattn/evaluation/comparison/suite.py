"""A comparison over several tasks or splits of the data: a study of each, and one correction over all of them.

The studies are ordinary ones, in subfolders of one folder. Every kind is compared with the reference, and every kind
with a circuit also with its dequantised control; Holm's correction is over all these pairs of all tasks. Losses of a
seed are averaged over the splits, so that the pairs stay those of seeds: the differences between splits are reported
beside them, since splits of the same data are not independent.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from qiskit_qattn.errors import ConfigError, RunFolderError, unknown_name
from qiskit_qattn.evaluation.comparison.kinds import comparisons
from qiskit_qattn.evaluation.comparison.plan import NAME, plan_study
from qiskit_qattn.evaluation.comparison.record import records
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.summary import objections, ranked_losses
from qiskit_qattn.evaluation.comparison.tasks import CHARACTERS, TASKS, is_custom, task_of
from qiskit_qattn.evaluation.statistics import Comparison, compare_pairs
from qiskit_qattn.training.config import SPLITS, TrainConfig
from qiskit_qattn.untrusted import shown

Records = Mapping[Cell, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class TaskResult:
    """What the studies of one task found, over all splits of its data.

    Attributes:
        name: The task.
        studies: Its studies, one for each split.
        records: The records of the cells of each that are done.
    """

    name: str
    studies: tuple[Study, ...]
    records: tuple[Records, ...]

    @property
    def reference(self) -> str:
        """The kind that the others are compared with."""
        return self.studies[0].reference

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that all its studies have."""
        return tuple(kind for kind in self.studies[0].kinds if all(kind in study.kinds for study in self.studies))

    @cached_property
    def withheld(self) -> dict[str, str]:
        """Why kinds get no verdict."""
        found: dict[str, str] = {}
        for study, done in zip(self.studies, self.records, strict=True):
            found = {**objections(study, done), **found}
        return {kind: why for kind, why in found.items() if kind in self.kinds}

    @cached_property
    def by_split(self) -> tuple[dict[str, dict[int, float]], ...]:
        """The losses by kind and seed of each split; none of kinds without a verdict in it."""
        return tuple(ranked_losses(study, done) for study, done in zip(self.studies, self.records, strict=True))

    @cached_property
    def losses(self) -> dict[str, dict[int, float]]:
        """The losses by kind and seed, averaged over splits; none of kinds without a verdict."""
        found: dict[str, dict[int, float]] = {}
        for kind in self.kinds:
            seeds = set.intersection(*(set(split[kind]) for split in self.by_split))
            if kind in self.withheld:
                seeds = set()
            found[kind] = {seed: statistics.fmean(split[kind][seed] for split in self.by_split) for seed in seeds}
        return found

    @property
    def custom(self) -> bool:
        """Whether a user's build function builds the models, so that nothing is known of circuits."""
        return is_custom(self.studies[0].build)


def plan_suite(
    config: TrainConfig,
    kinds: str,
    count: int,
    reference: str,
    *,
    tasks: Sequence[str] = (),
    splits: int = 1,
    build: str = "",
    rates: Sequence[float] = (),
    allow_unmatched: bool = False,
) -> list[Study]:
    """Return the plans of the studies of a comparison: one alone in its folder, or one for each task and split.

    Args:
        config: As for :func:`~qiskit_qattn.evaluation.comparison.plan.plan_study`, as all the following.
        kinds: The kinds.
        count: Number of seeds.
        reference: The kind that the others are compared with.
        tasks: Names of :data:`~qiskit_qattn.evaluation.comparison.tasks.TASKS`; none: the text, or what ``build``
            returns.
        splits: Number of splits of the data of each task.
        build: A user's function that builds the models.
        rates: Learning rates to search.
        allow_unmatched: Accept kinds of another size.

    Raises:
        UnknownNameError: For an unknown task.
        ConfigError: For tasks and splits that do not fit, and as :func:`plan_study` does.
        RunFolderError: If the folder holds a single study, and several are planned.
    """
    if not 1 <= splits <= SPLITS:
        raise ConfigError(f"--splits is {shown(splits)}, but must be from 1 to {SPLITS}.")
    for name in tasks:
        if name not in TASKS:
            raise unknown_name("task", name, TASKS)
    if tasks and (build or len(set(tasks)) < len(tasks)):
        raise ConfigError(f"--tasks {','.join(tasks)} must name each task once, and cannot be used with --build.")
    plan = partial(
        plan_study, kinds=kinds, count=count, reference=reference, rates=rates, allow_unmatched=allow_unmatched
    )
    if not tasks and splits == 1:
        return [plan(config, build=build)]
    if config.split:
        raise ConfigError(
            f"split = {config.split} is for one study of one task, but --tasks and --splits choose the splits"
            f" themselves, from 0 on; leave split out."
        )
    if os.path.isfile(config.folder / NAME):
        raise RunFolderError(f"{str(config.folder)!r} holds a study of one task; give another --out.")
    studies = []
    for name in tasks or ("models" if build else CHARACTERS,):
        for split in range(splits):
            folder = config.folder / name / (f"split-{split}" if splits > 1 else "")
            part = config.replace(out=str(folder), split=split)
            function = TASKS[name] if tasks else build
            studies.append(plan(part, build=function))
    return studies


def results(studies: Sequence[Study]) -> list[TaskResult]:
    """Return what is known of each task of a suite."""
    by_task: dict[str, list[Study]] = {}
    for study in studies:
        by_task.setdefault(task_of(study.build), []).append(study)
    return [TaskResult(name, tuple(of_task), tuple(map(records, of_task))) for name, of_task in by_task.items()]


def judged(tasks: Sequence[TaskResult]) -> dict[tuple[str, str, str], Comparison]:
    """Return all comparisons of a suite by task, kind and what the kind is compared with, corrected together."""
    keys = [
        (task.name, kind, against)
        for task in tasks
        for kind, against in comparisons(task.kinds, task.reference, custom=task.custom)
    ]
    losses = {task.name: task.losses for task in tasks}
    pairs = [(kind, against, losses[name][kind], losses[name][against]) for name, kind, against in keys]
    return dict(zip(keys, compare_pairs(pairs, what="comparisons"), strict=True))


def suite_command(studies: Sequence[Study], folder: Any) -> str:
    """Return the command line of a suite."""
    first = studies[0]
    names = list(dict.fromkeys(task_of(study.build) for study in studies))
    splits = len(studies) // len(names)
    custom = is_custom(first.build)
    more: dict[str, Any] = {} if custom else {"tasks": ",".join(names)}
    kinds = list(dict.fromkeys(kind for study in studies for kind in study.kinds))
    more |= {"splits": splits} if splits > 1 else {}
    return first.command(kinds=kinds, out=folder, split=None, **({} if custom else {"build": None}), **more)
