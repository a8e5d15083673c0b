from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.quantize import quantize
from qiskit_qattn.training.tokenizer import CharTokenizer

Run = Callable[..., Any]


def test_a_seed_gives_the_text_of_the_model(qattn: Run, finished_run: Path):
    arguments = ("--prompt", "the king", "--tokens", 25, "--seed", 5, "--temperature", 0.7, "--top-k", 4)
    result = qattn("generate", finished_run, *arguments)
    assert result.exit_code == 0, result.output
    folder = finished_run / "model"
    tokenizer = CharTokenizer.load(folder / "tokenizer.json")
    ids = tokenizer.encode("the king")[None]  # (1, P)
    expected = GPT.from_pretrained(folder).generate(ids, 25, temperature=0.7, top_k=4, seed=5)  # (1, P + 25)
    assert result.stdout == tokenizer.decode(expected[0]) + "\n"
    assert qattn("generate", folder, *arguments).stdout == result.stdout


def test_a_checkpoint_will_do(qattn: Run, finished_run: Path, tmp_path: Path):
    (tmp_path / "checkpoints").symlink_to(finished_run / "checkpoints")
    result = qattn("generate", tmp_path, "--tokens", 3)
    assert result.exit_code == 0, result.output
    assert len(result.stdout) == 1 + 3 + 1


def test_a_backend_can_be_named(qattn: Run, finished_run: Path):
    one, other = (qattn("generate", finished_run, "--seed", 1, *more) for more in ([], ["--backend", "statevector"]))
    assert one.exit_code == 0
    assert one.stdout == other.stdout


def test_a_chain_tells_where_calls_ran(qattn: Run, finished_run: Path):
    exact = qattn("generate", finished_run, "--seed", 1, "--tokens", 5)
    chain = qattn("generate", finished_run, "--seed", 1, "--tokens", 5, "--backend", "statevector -> density_matrix")
    assert chain.exit_code == 0, chain.output
    assert chain.stdout == exact.stdout
    assert chain.stderr.startswith("Calls: ") and "on statevector" in chain.stderr and "density" not in chain.stderr


@pytest.mark.usefixtures("laboratory")
def test_falls_are_lines_of_their_own_the_reason_once(qattn: Run, finished_run: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = qattn("generate", finished_run, "--seed", 1, "--tokens", 3, "--backend", "lab?fails=all -> statevector")
    assert found.exit_code == 0, found.output
    first, *others, calls = found.stderr.splitlines()
    assert first.endswith("call 1, forward pass: lab?fails=all failed, statevector is next. The laboratory is closed.")
    assert others and all(line.endswith("lab?fails=all failed as before, statevector is next.") for line in others)
    assert calls == f"Calls: {len(others) + 1} on statevector"


def test_a_chain_with_an_unknown_link_starts_nothing(qattn: Run, finished_run: Path):
    unknown = qattn("generate", finished_run, "--tokens", 1, "--backend", "statevector -> nowhere")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "nowhere" in unknown.stderr


@pytest.mark.parametrize(
    ("backend", "modules"),
    [
        ("statevector", []),
        ("aer?noise=fake_manila", ["qiskit_aer", "qiskit_ibm_runtime"]),
        ("ibm:fake_manila?mode=session&shots=64", ["qiskit_aer", "qiskit_ibm_runtime"]),
        ("braket:local", ["braket"]),
    ],
)
def test_the_model_that_was_trained_generates_anywhere(qattn: Run, finished_run: Path, backend: str, modules: list):
    for module in modules:
        pytest.importorskip(module)
    result = qattn("generate", finished_run, "--backend", backend, "--tokens", 2, "--prompt", "the king")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("the king") and len(result.stdout) == 8 + 2 + 1


def test_rounded_weights_write_a_text_of_their_own_model(qattn: Run, finished_run: Path):
    arguments = ("--prompt", "the king", "--tokens", 25, "--temperature", 0, "--quantize", "int8")
    found = qattn("generate", finished_run, *arguments)
    assert found.exit_code == 0, found.output
    folder = finished_run / "model"
    tokenizer = CharTokenizer.load(folder / "tokenizer.json")
    model = quantize(GPT.from_pretrained(folder))
    assert (
        found.stdout
        == tokenizer.decode(model.generate(tokenizer.encode("the king")[None], 25, temperature=0)[0]) + "\n"
    )
