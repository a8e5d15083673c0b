from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from rich.console import Console

from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.gradients import GRADIENTS
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.measurement import Plan
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.cli.progress import watch_jobs
from qiskit_qattn.evaluation.generation_cost import generation_cost
from qiskit_qattn.evaluation.training_cost import step_cost
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT

Run = Callable[..., Any]


class Recorder(BaseEstimatorV2):
    """Passes jobs on and notes them."""

    def __init__(self, estimator: Any) -> None:
        self.estimator, self.jobs = estimator, []

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        self.jobs.append(list(pubs))
        return self.estimator.run(self.jobs[-1], precision=precision)


def figures(output: str) -> dict[str, str]:
    """Return the rows of the first table, which an empty line ends."""
    rows = takewhile(str.strip, output.splitlines())
    return {name: value.strip() for name, value in (line.split("  ", 1) for line in rows)}


def steps(output: str) -> dict[str, list[str]]:
    """Return the rows of the table of a training step by gradient rule."""
    rows = (line.split() for line in output.splitlines() if line.strip())
    return {row[0]: row[1:] for row in rows if row[0] in GRADIENTS}


@pytest.mark.parametrize("prompt", ["t", "the king and"])
@pytest.mark.parametrize("tokens", [1, 20])
def test_the_count_is_what_a_generation_sends(finished_run: Path, prompt: str, tokens: int):
    model, _, ids = load_model(finished_run, prompt)
    text = "statevector?shots=16&seed=1"
    counted = generation_cost(model, get_backend(text), ids, tokens)
    backend = get_backend(text)
    recorder = Recorder(backend.estimator)
    model.to_backend(Backend(text, recorder, precision=backend.precision, shots=16))
    for _ in model.stream(ids, tokens, seed=3):
        pass
    sizes = [Plan(EstimatorPub.coerce(pub, 0.25)).size for job in recorder.jobs for pub in job]
    assert counted.total.jobs == len(recorder.jobs) == tokens  # one layer
    assert counted.total.circuits == sum(sizes)
    assert counted.total.shots == 16 * sum(sizes)
    assert counted.first is not None and counted.first.circuits == sizes[0]


@pytest.mark.parametrize("heads", ["qisa:1,classical:1", "qsann:2", "qisa-v1:1,zz:1"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_count_of_a_step_is_what_it_sends(heads: str, gradient: str):
    model = GPT(GPTConfig(10, 3, 1, 2, 4, heads=heads, num_qubits=2))
    batch = torch.randint(10, (2, 4))
    backend = get_backend(f"statevector?shots=4001&seed=1&gradient={gradient}")  # no two values are equal
    counted = step_cost(model, backend, batch)
    assert {row["backend"] for row in model.head_backends()} <= {"statevector", "torch"}  # the heads came back
    recorder = CountingEstimator(estimator=backend.estimator)
    model.to_backend(dataclasses.replace(backend, estimator=recorder))
    model(batch[:, :-1], batch[:, 1:])[1].backward()
    assert counted == recorder.total
    assert counted.jobs == (1 if gradient == "simulated" else 2) and counted.circuits > 0


def test_a_step_is_estimated_for_each_gradient(qattn: Run, finished_run: Path):
    result = qattn("estimate", finished_run, "--backend", "statevector?shots=10", "--batch-size", 2)
    assert "A training step of 2 × 8 tokens" in result.stdout
    rows = {name: [int(number.replace(",", "")) for number in row] for name, row in steps(result.stdout).items()}
    assert rows.keys() == GRADIENTS.keys()
    assert all(row[2] == 10 * row[1] for row in rows.values())
    assert rows["parameter_shift"][1] == 33 * rows["simulated"][1]  # 16 angles, two shifts each, and the values
    assert rows["spsa"][1] == 17 * rows["simulated"][1]  # 8 directions
    assert "of 4 × 8 tokens" in qattn("estimate", finished_run, "--backend", "statevector?shots=10").stdout  # the run's
    assert not steps(qattn("estimate", finished_run, "--backend", "statevector").stdout)  # autograd sends nothing


def test_every_link_of_a_chain_is_estimated(qattn: Run, finished_run: Path):
    chain = "statevector?shots=10 -> statevector -> classical"
    result = qattn("estimate", finished_run, "--backend", chain, "--tokens", 3)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.split("2 of 2, if it answers all calls\n")
    assert first.startswith("1 of 2, if it answers all calls\n")
    assert figures(first.split("\n", 1)[1])["backend"] == "statevector?shots=10"
    assert figures(second)["backend"] == "statevector"
    assert result.stdout.endswith("Then the classical twin of each head, which sends nothing.\n")


def test_a_snapshot_is_estimated_as_its_device(qattn: Run, finished_run: Path):
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    text = "ibm:fake_manila?resilience=0&shots=256"
    result = qattn("estimate", finished_run, "--backend", text, "--tokens", 5)
    assert result.exit_code == 0, result.output
    model, _, ids = load_model(finished_run, "\n")
    cost = generation_cost(model, get_backend(text), ids, 5)
    assert cost.total.seconds > 5 * 2 and cost.depth > 0
    found = figures(result.stdout)
    assert found == {
        "backend": text,
        "text": "5 tokens after a prompt of 1",
        "jobs": "5",
        "circuits": f"{cost.total.circuits}",
        "two-qubit depth": f"{cost.depth}, transpiled",
        "shots": f"{256 * cost.total.circuits:,}",
        "processor": f"{cost.total.seconds:.3g} s on the device itself",
        "price": "free",
    }
    assert Ledger().rows() == []


@pytest.mark.parametrize("backend", ["statevector", "statevector?shots=64", "aer"])
def test_local_backends_cost_nothing(qattn: Run, finished_run: Path, backend: str):
    if backend == "aer":
        pytest.importorskip("qiskit_aer")
    result = qattn("estimate", finished_run, "--backend", backend, "--tokens", 12)
    assert result.exit_code == 0, result.output
    found = figures(result.stdout)
    assert found["jobs"] == "12"
    assert found["price"] == "free: it runs in this process"
    # 8 tokens fill the context; then half of it is computed again, and 4 more follow: 8 + 4 + 3 sets of parameters
    circuits = int(found["circuits"].partition(",")[0])
    if backend.endswith("shots=64"):
        assert found["shots"] == f"{64 * circuits:,}" and circuits % 15 == 0
    else:
        assert found["circuits"] == "15, of exact values" and found["shots"] == "none"


def test_a_model_without_circuits_sends_nothing(qattn: Run, finished_run: Path, tmp_path: Path):
    config = dataclasses.replace(load_model(finished_run, "t")[0].config, heads="classical:2", observables=None)
    GPT(config).save_pretrained(tmp_path)
    shutil.copy(finished_run / "model" / "tokenizer.json", tmp_path)
    result = qattn("estimate", tmp_path, "--backend", "statevector?shots=9")
    assert result.exit_code == 0, result.output
    assert "none: no head of the model is a circuit" in result.stdout


def test_what_cannot_be_estimated_is_one_line(qattn: Run, finished_run: Path):
    for arguments in (
        (finished_run, "--backend", "statevectr"),
        (finished_run, "--backend", "statevector", "--tokens", 0),
        (finished_run, "--backend", "statevector", "--prompt", ""),
        (finished_run,),
        (finished_run / "nothing", "--backend", "statevector"),
    ):
        result = qattn("estimate", *arguments)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")


def test_generate_says_what_was_sent_and_what_the_ledger_served(qattn: Run, finished_run: Path):
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    arguments = (finished_run, "--backend", "ibm:fake_manila?resilience=0&seed=1&shots=64", "--seed", 1, "--yes")
    first = qattn("generate", *arguments, "--tokens", 2)
    assert first.exit_code == 0, first.output
    assert len(first.stdout) == 1 + 2 + 1
    *messages, used = first.stderr.splitlines()
    assert used == "ibm:fake_manila: jobs sent: 2; served from the ledger: 0"
    assert sum(line.endswith(": sent") for line in messages) == 2
    again = qattn("generate", *arguments, "--tokens", 2)
    assert again.stdout == first.stdout
    assert again.stderr == "ibm:fake_manila: jobs sent: 0; served from the ledger: 2\n"
    assert logging.getLogger("qiskit_qattn.backends").level == logging.NOTSET


def test_a_terminal_shows_the_last_message_below_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TERM", "xterm")
    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80)
    logger = logging.getLogger("qiskit_qattn.backends.some.device")
    with watch_jobs(terminal, terminal) as write:
        write("one\ntw")
        logger.info("%s job %s: queued, position 3, 0 s elapsed", "ibm:far", "j" * 60)
        write("o")
        logger.warning("the batch was closed")
    logger.info("too late")
    shown = screen.getvalue()
    assert "one\n" in shown and "the batch was closed\n" in shown and "too late" not in shown
    frames = [line for line in shown.splitlines() if "queued" in line]
    assert frames and all("…" in line and "position 3, 0 s elapsed" in line for line in frames)
    assert capsys.readouterr().out == "two"  # the line that had not ended
