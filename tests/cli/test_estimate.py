from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from rich.console import Console

from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.gradients import GRADIENTS
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.measurement import Plan
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.cli.messages import watch_jobs
from qiskit_qattn.evaluation.device_cost import forward_cost, generation_cost, network_step_cost, step_cost
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.connector import TorchConnector
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


# Networks


def own_network(**options: Any) -> EstimatorQNN:
    x, w = ParameterVector("x", 12), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.ry(x[10], 0)  # of a vector of which nothing else is used
    circuit.rx(x[2] * w[0], 1)
    circuit.cx(0, 1)
    circuit.rz(w[2], 1)
    circuit.ry(w[1], 1)
    observables = [SparsePauliOp(["ZI", "IX"], [1.0, -0.5]), SparsePauliOp("ZZ")]
    params = {"input_params": [x[10], x[2]], "weight_params": [w[1], w[0], w[2]]}
    return EstimatorQNN(circuit=circuit, observables=observables, **params, **options)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Return the folder of a saved network."""
    TorchConnector(own_network(input_gradients=True)).save_pretrained(tmp_path / "network")
    return tmp_path / "network"


@pytest.mark.parametrize("to_inputs", [True, False])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_count_of_a_network_is_what_it_sends(gradient: str, to_inputs: bool):
    layer = TorchConnector(own_network(input_gradients=to_inputs))
    backend = get_backend(f"statevector?shots=4001&seed=1&gradient={gradient}")
    forward, step = forward_cost(layer, backend, 5), network_step_cost(layer, backend, 5)
    assert layer.backend is None and layer.weight.grad is None
    recorder = CountingEstimator(estimator=backend.estimator)
    layer.to_backend(dataclasses.replace(backend, estimator=recorder))
    layer(torch.rand(5, 2, requires_grad=True)).sum().backward()
    assert forward.total == recorder.jobs[0] and step == recorder.total
    assert forward.total.circuits == 10 and forward.total.shots == 10 * 4001  # two bases
    angles = 4 if to_inputs else 3
    assert step.circuits == 10 * (1 + {"parameter_shift": 2 * angles, "spsa": 16, "simulated": 0}[gradient])


def test_a_network_is_estimated(qattn: Run, network: Path):
    result = qattn("estimate", network, "--backend", "statevector?shots=10", "--batch-size", 5)
    assert result.exit_code == 0, result.output
    found = figures(result.stdout)
    assert found["network"] == "a forward pass of 5 samples on 2 qubits"
    assert (found["jobs"], found["circuits"], found["shots"]) == ("1", "10", "100")
    assert "A training step of 5 samples, by the option gradient" in result.stdout
    rows = {name: [number.replace(",", "") for number in row] for name, row in steps(result.stdout).items()}
    assert rows == {
        "parameter_shift": ["2", "90", "900"],  # four angles, two shifts each, and the values; two bases
        "spsa": ["2", "170", "1700"],
        "simulated": ["1", "10", "100"],
    }
    assert "of 12 samples" in qattn("estimate", network, "--backend", "statevector?shots=10").stdout
    assert not steps(qattn("estimate", network, "--backend", "statevector").stdout)


def test_a_network_on_a_snapshot_is_estimated_as_on_its_device(qattn: Run, network: Path):
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    text = "ibm:fake_manila?resilience=0&shots=256"
    result = qattn("estimate", network, "--backend", f"{text} -> statevector", "--batch-size", 3)
    assert result.exit_code == 0, result.output
    first = figures(result.stdout.split("\n", 1)[1])
    cost = forward_cost(TorchConnector.from_pretrained(network), get_backend(text), 3)
    assert first["processor"] == f"{cost.total.seconds:.3g} s on the device itself" and cost.total.seconds > 1
    assert first["two-qubit depth"] == f"{cost.depth}, transpiled" and cost.depth > 0
    assert first["shots"] == f"{256 * cost.total.circuits:,}"
    assert "2 of 2, if it answers all calls" in result.stdout
    assert Ledger().rows() == []


def test_more_qubits_than_the_exact_engine_has_say_why_a_gradient_costs_nothing(qattn: Run, tmp_path: Path):
    w = ParameterVector("w", 17)
    circuit = QuantumCircuit(17)
    for qubit in range(17):
        circuit.ry(w[qubit], qubit)
    network = EstimatorQNN(circuit=circuit, weight_params=w, observables=SparsePauliOp("Z" * 17))
    TorchConnector(network, backend="statevector?shots=9").save_pretrained(tmp_path)
    result = qattn("estimate", tmp_path, "--backend", "statevector?shots=10", "--batch-size", 1)
    assert result.exit_code == 0, result.output
    assert "a forward pass of 1 sample on 17 qubits" in result.stdout
    assert steps(result.stdout)["parameter_shift"] == ["2", "35", "350"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("network.qpy", b"", "network.qpy in .* is no circuit this Qiskit can read"),
        ("network.qpy", b"QISKIT\x10garbage", "is no circuit this Qiskit can read"),
        ("network.qpy", None, "has no saved network: network.qpy missing"),
        ("network.json", None, "has no saved network: network.json missing"),
        ("network.json", b"{", "network.json in .* cannot be used"),
        ("network.json", b"\xff", "network.json in .* cannot be used"),
        ("network.json", b"[]", "must be an object with the keys format, observables"),
        ("network.json", b"[" * 100_000, "network.json in .* cannot be used: it is nested too deeply"),
        ("network.json", b'{"format": NaN}', "network.json in .* cannot be used: it holds the number 'NaN'"),
        ("observables", [[["ZI", 10**400]]], "must be a list of lists of pairs"),
        ("format", "x" * 1000, r"it is of format 'x+\.\.\.x+'; this version"),
        ("format", 9, "it is of format 9; this version reads 1"),
        ("input_params", "x", "must be lists of names"),
        ("input_params", ["x[10]"], r"do not fit together: .*in neither: \['x\[2\]'\]"),
        ("weight_params", ["w[0]", "w[0]", "w[1]", "w[2]"], r"more than once: \['w\[0\]'\]"),
        ("observables", [], "must be a list of lists of pairs"),
        ("observables", [[["ZQ", 1.0]]], "must be a list of lists of pairs"),
        ("observables", [[["ZI", 1.0], ["Z", 1.0]]], "must be a list of lists of pairs"),
        ("observables", [[["ZIZ", 1.0]]], "do not fit together: .*2 letters"),
        ("observables", [[["ZI", "1"]]], "must be a list of lists of pairs"),
        ("input_gradients", 1, "input_gradients must be true or false, got 1"),
    ],
)
def test_a_bad_file_is_one_line(qattn: Run, network: Path, name: str, content: Any, message: str):
    if name.startswith("network."):
        (network / name).unlink() if content is None else (network / name).write_bytes(content)
    else:
        about = json.loads((network / "network.json").read_text())
        (network / "network.json").write_text(json.dumps(about | {name: content}))
    result = qattn("estimate", network, "--backend", "statevector")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")
    assert re.search(message, result.stderr), result.stderr


def test_what_a_network_does_not_take_is_one_line(qattn: Run, network: Path):
    for arguments, message in (
        (("--tokens", 3), "--tokens and --prompt are for models of text"),
        (("--prompt", "x"), "--tokens and --prompt are for models of text"),
        (("--backend", "statevector -> classical"), "A network has no classical twin"),
        (("--backend", "statevectr"), "Did you mean"),
    ):
        result = qattn("estimate", network, "--backend", "statevector", *arguments)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
        assert message in result.stderr


def test_the_cost_is_told_side_by_side_and_one_at_a_time(qattn: Run, finished_run: Path):
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    text = "ibm:fake_torino?gradient=simulated&optimization=0&resilience=0&shots=256"
    alone = figures(qattn("estimate", finished_run, "--backend", text, "--tokens", 5, "--prompt", "the king").stdout)
    tiled = qattn("estimate", finished_run, "--backend", f"{text}&tiles=4", "--tokens", 5, "--prompt", "the king")
    assert tiled.exit_code == 0, tiled.output
    found = figures(tiled.stdout)
    assert found["side by side"] == "up to 4 circuits of heads in one circuit of the device"
    assert found["one at a time"].startswith(
        f"{alone['circuits']} circuits, {alone['shots'].partition(', ')[0]} shots, "
    )
    assert int(found["circuits"]) < int(alone["circuits"])
    rows = [line.strip().split("  ")[0] for line in tiled.stdout.splitlines()]
    assert {"simulated", "simulated, one at a time", "spsa, one at a time"} <= set(rows)
    assert "one at a time" not in alone
