"""The report of a fine-tuning, and its cost, from results that are made up."""

from __future__ import annotations

import dataclasses

import pytest

from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.evaluation.finetune_cost import finetune_cost
from qiskit_qattn.evaluation.finetune_report import collect_report, render_markdown, spread, write_report
from qiskit_qattn.training.finetune import FORMAT, prepare
from qiskit_qattn.training.finetune_config import FinetuneConfig


def result(method, seed, score, adapters=100):
    return {
        "format": FORMAT,
        "method": method,
        "seed": seed,
        "scores": {"matthews": score},
        "dev_loss": None if method == "frozen" else 0.5,
        "train_loss": 0.6,
        "history": [],
        "steps": 3,
        "train_rows": 10,
        "dev_rows": 5,
        "parameters": {"total": 1000, "trained": adapters + 10, "adapters": adapters},
        "learning_rate": 1e-3,
        "train_seconds": 1.0,
        "dev_seconds": 0.1,
        "backend": "none",
    }


def study(seeds, tmp_path, **changes):
    config = FinetuneConfig(task="cola", methods="qisa,lora,frozen", seeds=seeds, out=str(tmp_path), **changes)
    gains = {"qisa": 0.1, "lora": 0.0, "frozen": 0.0}
    results = [
        result(method, seed, 0.3 + 0.01 * seed + gain + (0.001 * seed if method == "qisa" else 0))
        for seed in range(seeds)
        for method, gain in gains.items()
    ]
    return config, results


def test_a_gain_in_all_seeds_is_better_and_its_sign_is_that_of_the_score(tmp_path):
    report = collect_report(*study(8, tmp_path))
    found = report["methods"]["qisa"]["against_reference"]
    assert found["verdict"] == "better" and found["mean_difference"] == pytest.approx(-0.1035)
    assert report["methods"]["frozen"]["against_reference"]["verdict"] == "no difference shown"
    assert report["methods"]["lora"]["against_reference"] is None and report["reference"] == "lora"
    said = report["methods"]["qisa"]["sentence"]
    assert said.startswith("qisa has a lower error (1 − Matthews correlation) than lora (-0.1035,")
    assert "Nothing is claimed about its circuit: its dequantised control quadratic was not compared" in said
    text = render_markdown(report)
    assert "| `qisa` | +10.35 |" in text and "| lower error |" in text and "| better |" not in text
    assert "| `qisa` | +10.35 |" in text and "| `frozen` | -0.00 |" not in text
    assert "| `frozen` | 33.5 ± 2.4 | – |" in text


def test_an_adapter_is_better_only_if_it_beats_its_classical_control_too(tmp_path):
    config, results = study(10, tmp_path)
    changed = dataclasses.replace(config, methods="qisa,lora,frozen,quadratic")
    for gain, better in ((0.02, True), (0.2, False)):
        own = [result("quadratic", seed, 0.3 + 0.01 * seed + gain + 0.002 * (seed % 2)) for seed in range(10)]
        report = collect_report(changed, [*results, *own])
        said, text = report["methods"]["qisa"]["sentence"], render_markdown(report)
        assert ("qisa is better than lora" in said) == ("| better |" in text) == better
        assert "its dequantised control quadratic" in said
        assert report["methods"]["quadratic"]["sentence"].startswith("quadratic, a classical method, has a lower error")


def test_sizes_that_differ_are_named(tmp_path):
    config, results = study(2, tmp_path)
    results = [
        {**r, "parameters": {**r["parameters"], "adapters": 110}} if r["method"] == "qisa" else r for r in results
    ]
    assert "Not of the size of `lora`'s adapters within 1 %: `qisa` (+10.0%)." in render_markdown(
        collect_report(config, results)
    )


def test_files_are_written(tmp_path):
    write_report(*study(2, tmp_path, reference="frozen"))
    assert {path.name for path in tmp_path.iterdir()} == {"paper", "report.json", "report.md", "scores.png"}
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "bars: means" in (tmp_path / "paper" / "scores.svg").read_text("utf-8")  # a comment beside the outlines


def test_a_score_of_one_seed_has_no_deviation():
    assert spread([0.5]) == "50.0" and spread([0.4, 0.6]) == "50.0 ± 14.1"


def test_the_cost_counts_steps_and_seeds_that_are_left(tiny_bert, reviews, tmp_path):
    options = {"model": str(tiny_bert), "task": str(reviews), "num_qubits": 2, "max_length": 12, "batch_size": 8}
    backend = get_backend("statevector?shots=100")
    costs = {}
    for seeds, epochs in ((1, 1.0), (2, 1.0), (1, 2.0), (1, 0.0)):
        config = FinetuneConfig(methods="qisa,full", seeds=seeds, epochs=epochs, out=str(tmp_path / "new"), **options)
        costs[seeds, epochs], first = finetune_cost(config, prepare(config), backend)
        assert first is not None and first.jobs == 1
    once = costs[1, 1.0]
    assert once["qisa, training"].jobs > 0 and once["qisa, evaluation"].shots > 0
    assert list(once) == ["qisa, evaluation", "qisa, training"] and list(costs[1, 0.0]) == ["qisa, evaluation"]
    assert costs[2, 1.0]["qisa, training"].jobs == 2 * once["qisa, training"].jobs
    assert costs[1, 2.0]["qisa, training"].jobs == 2 * once["qisa, training"].jobs
    assert costs[1, 2.0]["qisa, evaluation"] == once["qisa, evaluation"]
