from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qiskit_qattn.errors import ConfigError, QattnError
from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.claims import claim, outcome, verdict_table, verdict_word
from qiskit_qattn.evaluation.comparison.figures import suite_figures
from qiskit_qattn.evaluation.comparison.kinds import control_name, control_of, has_circuit
from qiskit_qattn.evaluation.comparison.paper import render_suite
from qiskit_qattn.evaluation.comparison.plan import open_study, plan_study
from qiskit_qattn.evaluation.comparison.report import collect_report, render_markdown
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.suite import TaskResult, judged, plan_suite, suite_command
from qiskit_qattn.evaluation.comparison.suite_report import collect_suite, write_suite
from qiskit_qattn.evaluation.comparison.summary import summarise
from qiskit_qattn.nn.kinds import HEAD_KINDS
from qiskit_qattn.training.config import TrainConfig, resolve

Plan = Callable[..., Study]
KINDS = "qisa,quadratic,angle"


def done(study: Study, shifts: Mapping[str, float], spread: float = 0.01) -> dict[Cell, dict[str, Any]]:
    """Return records in which each kind's loss is shifted by so much from the reference's."""
    rng = np.random.default_rng(study.config.split)
    base = {seed: 2 + 0.1 * rng.normal() for seed in study.seeds}
    return {
        cell: {
            **{"kind": cell.kind, "seed": cell.seed, "train_seconds": 1.0, "metrics": {}, "data": "same"},
            "val_loss": base[cell.seed] + shifts.get(cell.kind, 0.0) + spread * rng.normal(),
            "causality": {"passed": True, "leakage": 0.0, "gradient": 0.0},
        }
        for cell in study.cells()
    }


@pytest.fixture
def config(text_file: Path, tmp_path: Path, settings: dict[str, Any]) -> TrainConfig:
    return resolve({"data": str(text_file), "out": str(tmp_path / "suite"), **settings})


@pytest.fixture
def settings() -> dict[str, Any]:
    size = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 8, "heads": "classical:2", "num_qubits": 2}
    steps = {"batch_size": 4, "max_steps": 2, "warmup_steps": 1, "eval_interval": 2, "eval_batches": 1}
    return {**size, **steps, "device": "cpu"}


def task(plan: Plan, seeds: int, shifts: Mapping[str, float], splits: int = 1, kinds: str = KINDS) -> TaskResult:
    studies = [plan(kinds, seeds, split=split, allow_unmatched=True) for split in range(splits)]
    return TaskResult("characters", tuple(studies), tuple(done(study, shifts) for study in studies))


def test_the_correction_is_over_all_pairs_of_all_tasks_and_circuits_are_compared_with_their_controls(plan: Plan):
    one = task(plan, 12, {"qisa": -0.5, "quadratic": -0.5})
    other = TaskResult("digits", one.studies, one.records)
    found = judged([one, other])
    pairs = [("qisa", "classical"), ("qisa", "quadratic"), ("quadratic", "classical"), ("angle", "classical")]
    assert sorted(found) == sorted((name, *pair) for name in ("characters", "digits") for pair in pairs)
    least = 2 / 2**12
    assert found["digits", "qisa", "classical"].p_value == pytest.approx(least)
    # Four pairs have the least p; each of them is multiplied by the number of all pairs.
    assert found["digits", "qisa", "classical"].adjusted_p == pytest.approx(8 * least)
    alone = judged([one])
    assert alone["characters", "qisa", "classical"].adjusted_p == pytest.approx(4 * least)


def test_losses_are_paired_by_seed_and_averaged_over_splits(plan: Plan):
    found = task(plan, 3, {"qisa": 1.0}, splits=2)
    for seed in (0, 1, 2):
        losses = [records[Cell(seed, "qisa")]["val_loss"] for records in found.records]
        assert found.losses["qisa"][seed] == pytest.approx(sum(losses) / 2)
    assert len(set(losses)) == 2
    del found.records[1][Cell(2, "qisa")]
    again = TaskResult(found.name, found.studies, found.records)
    assert again.losses["qisa"] == {}
    assert "1 of its 3 cells is not done" in again.withheld["qisa"]
    text = render_suite(collect_suite([task(plan, 3, {}, splits=2)], {}, {}, "qattn compare"))
    assert "| Split 0 | Split 1 |" in text and "repeated over 2 splits" in text
    report = collect_suite([again], judged([again]), {}, "qattn compare")
    assert not report["complete"]
    assert "verdict withheld because 1 of its 3 cells" in render_suite(report)


SAID = {"mean_difference": -0.1, "adjusted_p": 0.01, "sentence": "Not enough.", "diverged": [], "detectable": None}
VERDICTS: list[dict[str, Any] | None] = [
    None,
    *(
        {**SAID, "verdict": verdict, "interval": interval}
        for verdict, interval in (
            ("better", (-0.2, -0.1)),
            ("worse", (0.1, 0.2)),
            ("no difference shown", (-0.1, 0.1)),
            ("not enough seeds", None),
        )
    ),
]


@pytest.mark.parametrize("circuit", [True, False])
def test_no_circuit_is_called_better_without_its_control_beside_it(circuit: bool):
    for reference, control, withheld in itertools.product(VERDICTS, VERDICTS, (None, "it leaks")):
        found = {
            **{"circuit": circuit, "control": "quadratic" if circuit else None, "withheld": withheld},
            **{"against_reference": reference, "against_control": control if circuit else None},
        }
        said, word = claim("qisa", "classical", found), verdict_word(found)
        if withheld is None and reference and reference["verdict"] != "not enough seeds":
            together = outcome(found, "classical")
            assert ("better" in together) == (word == "better")
            assert not circuit or "dequantised controls" in together
            for words in ("a lower loss than classical", "a higher loss than classical", "not what helps"):
                assert (words in together) == (words in said)
        assert (word == "better") == ("better" in said)
        if "better" in said or "a lower loss than classical" in said:
            assert reference is not None and reference["verdict"] == "better"
            assert not circuit or control is None or "its dequantised control quadratic" in said
        if "better" in said:
            assert circuit and control is not None and control["verdict"] == "better"
        elif circuit and reference and reference["verdict"] == "better" and withheld is None:
            assert re.search("Nothing is claimed|not what helps|not shown to come from the circuit", said)
            assert "its dequantised control quadratic" in said and word == "lower loss"


def test_the_paper_names_the_control_of_every_circuit_and_claims_nothing_where_there_is_none(plan: Plan):
    found = task(plan, 12, {"qisa": -0.5, "angle": -0.5}, kinds="qisa,quadratic,angle")
    report = collect_suite([found], judged([found]), {}, "qattn compare")
    text = render_suite(report)
    better = (
        "Circuits that are better than `classical` and than their dequantised controls: `qisa` (control `quadratic`)."
    )
    assert better in text
    assert "whose dequantised controls were not compared, so that nothing is claimed: `angle` (control `mps`)." in text
    sentences = report["tasks"]["characters"]["sentences"]
    assert "than its dequantised control quadratic" in sentences["qisa"]
    assert "Nothing is claimed about its circuit: its dequantised control mps was not compared" in sentences["angle"]
    control = task(plan, 12, {"qisa": -0.5, "quadratic": -0.5})
    text = render_suite(collect_suite([control], judged([control]), {}, "qattn compare"))
    assert not re.search(r"\bqisa\b[^.]*\bbetter\b", text)
    assert "Classical kinds with a lower loss than `classical`: `quadratic`." in text
    few = task(plan, 2, {"qisa": -0.5})
    text = render_suite(collect_suite([few], judged([few]), {}, "qattn compare"))
    assert "This is a trial run" in text
    assert not re.search("better than|a lower loss", text)


def test_reports_of_single_studies_name_the_control_of_every_circuit_too(plan: Plan):
    """Of a study alone, of one task of several, and of one split of several: nothing is better without its control."""
    for kinds, shifts, told in [
        ("qisa", {"qisa": -0.5}, "Nothing is claimed about its circuit: its dequantised control quadratic was not"),
        ("qisa,quadratic", {"qisa": -0.5, "quadratic": -0.5}, "no difference from its dequantised control quadratic"),
        ("qisa,quadratic", {"qisa": -0.5, "quadratic": -0.9}, "the circuit is not what helps"),
        ("qisa,quadratic", {"qisa": -0.5}, "qisa is better than classical"),
        ("rff", {"rff": -0.5}, "rff, a classical kind, has a lower loss than classical"),
    ]:
        found = task(plan, 12, shifts, kinds=kinds)
        study, done_cells = found.studies[0], found.records[0]
        summary = summarise(study, done_cells)
        sentences, words = " ".join(each["sentence"] for each in summary.values()), verdict_table(summary, "classical")
        assert told in sentences
        assert ("better" in sentences) == ("**better**" in words) == told.startswith("qisa is better")
        assert ("`quadratic`" in words) == ("qisa" in kinds)


def test_a_report_says_what_its_p_values_are_corrected_over(plan: Plan):
    one = task(plan, 2, {})
    for split, study in enumerate(one.studies):
        alone = render_markdown(collect_report(study, {}))
        assert "correction over 4 comparisons: of kinds" in alone and "over kinds" not in alone
        part = render_markdown(collect_report(study, {}, {}, together=7))
        assert "correction over 7 comparisons of all tasks of which this study is one" in part
        part = render_markdown(collect_report(study, {}, together=9))
        assert "correction over 4 comparisons of this split alone" in part and split == 0


def test_of_models_of_ones_own_nothing_is_said_about_circuits(plan_own: Plan):
    study = plan_own(seeds=8)
    found = summarise(study, done(study, {"quantum": -0.5}))["quantum"]
    assert found["sentence"].startswith("quantum has a lower loss than plain (-0.4")
    assert "no control was compared" in found["sentence"] and "classical" not in found["sentence"]
    suite = TaskResult(study.build, (study,), (done(study, {"quantum": -0.5}),))
    report = collect_suite([suite], judged([suite]), {}, "qattn compare")
    text = render_suite(report)
    assert "Kinds with a lower loss than `plain`: `quantum`." in text
    assert text.startswith("# Comparison with plain\n") and "### `ownmodels:build`\n" in text
    assert "2 kinds, with `plain` as the reference" in text
    assert "correction over 1 comparison of all tasks" in text
    assert "Models are trained for 12 steps of 4 examples, with 8 seeds of each kind." in text
    for wrong in ("classical", "transformer", "quantum circuit", "heads", "tokens", "MLP", "dequantised", "simulated"):
        assert wrong not in text
    figures = suite_figures(report)
    [axes] = figures["cost"].axes
    assert [label.get_text() for label in axes.get_legend().get_texts()] == ["plain", "quantum"]
    assert (
        axes.get_xlabel() == "training time, s\nfront: quantum" and not axes.texts
    )  # names that could hide each other
    assert "95% intervals" in figures["differences"].get_supxlabel()
    [axes] = figures["differences"].axes
    assert [label.get_text() for label in axes.get_legend().get_texts()] == ["from plain", "not shown to differ"]


def test_the_control_of_a_mix_is_the_mix_of_the_controls():
    among = ("classical", "quadratic", "quadratic:1,classical:1", "qisa:1,classical:1")
    assert control_of("qisa", among) == "quadratic"
    assert control_of("classical:1,qisa:1", among) == "quadratic:1,classical:1"
    assert control_of("orthogonal", among) is None and control_name("orthogonal") == "unit-linear"
    assert control_name("quadratic") is None and control_name("qisa:1,rff:1") == "quadratic:1,rff:1"
    assert has_circuit("qisa:1,classical:1") and not has_circuit("quadratic")
    assert has_circuit("overlap")  # only its scores are circuits
    assert control_of("overlap", ("classical", "kernel")) == "kernel"


def test_every_control_is_a_classical_kind():
    named = {kind.name: kind.control for kind in HEAD_KINDS.values() if kind.control}
    assert {"qisa-v3", "qsann", "orthogonal"} <= set(named)
    assert not any(HEAD_KINDS[control].circuits for control in named.values())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tasks": ["chess"]}, "Unknown task 'chess'"),
        ({"tasks": ["digits", "digits"]}, "once"),
        ({"tasks": ["digits"], "build": "a:b"}, "--build"),
        ({"splits": 0}, "--splits"),
        ({"splits": 11}, "--splits"),
        ({"splits": 2, "split": 3}, "split = 3 is for one study of one task, but --tasks and --splits choose"),
        ({"tasks": ["digits"], "split": 1}, "split = 1 is for one study of one task"),
    ],
)
def test_what_makes_no_suite_is_told(config: TrainConfig, options: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        plan_suite(config.replace(split=options.pop("split", 0)), "rff", 1, "classical", **options)


def test_a_function_without_splits_cannot_be_repeated_over_them(config: TrainConfig, own: Callable[..., str]):
    with pytest.raises(ConfigError, match="takes split"):
        plan_suite(resolve({"out": config.out}), "quantum", 1, "plain", build=own(), splits=2)
    with pytest.raises(ConfigError, match="takes split"):
        plan_suite(resolve({"out": config.out, "split": 1}), "quantum", 1, "plain", build=own())


def test_a_folder_with_a_single_study_takes_no_suite(config: TrainConfig):
    open_study(plan_study(config, "rff", 1, "classical"))
    with pytest.raises(QattnError, match="holds a study of one task"):
        plan_suite(config, "rff", 1, "classical", splits=2)


def test_a_suite_of_two_tasks_is_trained_and_told_in_one_report(config: TrainConfig, tmp_path: Path):
    studies = plan_suite(config, "quadratic", 1, "classical", tasks=["characters", "digits"])
    for study in map(open_study, studies):
        for cell in study.cells():
            run_cell(study, cell)
    assert len({study.folder for study in studies}) == 2
    assert [bool(study.text) for study in studies] == [True, False]
    report = write_suite(studies, config.folder, {})
    assert report["complete"] and list(report["tasks"]) == ["characters", "digits"]
    assert report == json.loads((config.folder / "report.json").read_text())
    text = (config.folder / "report.md").read_text()
    assert "--tasks characters,digits" in text
    assert suite_command(studies, config.folder) in text
    assert all((config.folder / name).read_bytes().startswith(b"\x89PNG") for name in ("differences.png", "cost.png"))
    assert all((study.folder / "report.md").is_file() for study in studies)


def test_the_paper_says_where_circuits_run_and_how_attention_is_sampled(plan: Plan):
    found = task(plan, 2, {})
    report = collect_suite([found], judged([found]), {}, "qattn compare")
    text = render_suite(report)
    assert "A GPT that predicts" in text and "simulated exactly" in text and "sampled" not in text
    kinds = report["tasks"]["characters"]["kinds"]
    report["study"]["rates"] = [1e-3, 1e-2, 1e-1]
    for kind, rate in zip(kinds, (1e-1, 1e-2, 1e-1, None), strict=True):
        kinds[kind]["rates"] = [rate]
    assert "Of 3 searches 2 chose the lowest or the highest rate of the grid" in render_suite(report)
    report["study"]["config"] |= {"backend": "aer?shots=64", "sampling": "naive?samples=8"}
    text = render_suite(report)
    assert "Circuits run on `aer?shots=64`." in text and "Attention is sampled: `naive?samples=8`." in text
    assert "simulated exactly" not in text
