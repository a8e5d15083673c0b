"""The benchmark for GPUs: all of it at a tiny size where there is none; without ``--smoke`` it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so_and_keeps_the_last_results():
    before = (ROOT / "benchmarks" / "gpu.md").read_bytes()
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith("no GPU: ") and done.stderr.count("\n") == 1
    assert (ROOT / "benchmarks" / "gpu.md").read_bytes() == before


@pytest.mark.more  # a minute of compilation
def test_every_table_is_filled_at_a_tiny_size():
    before = (ROOT / "benchmarks" / "gpu.md").read_bytes()
    done = run("--smoke")
    assert done.returncode == 0, done.stderr
    assert (ROOT / "benchmarks" / "gpu.md").read_bytes() == before
    tables, _, absent = done.stdout.partition("## Not measured")
    rows = [line.split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    assert all("ms" in row[3] for row in rows if row[0] == "| tiny" and row[2] != "memory")
    assert sum(row[0] == "| tiny" for row in rows) == 6
    (circuit,) = [row for row in rows if row[0] == "| 2"]
    assert all("ms" in cell for cell in circuit[2:5])  # ours, compiled, plain torch
    speeds = {(row[0], row[1]) for row in rows if row[1] in ("yes", "no")}
    models = ("ours, classical", "torch's layers", "ours, half quantum", "ours, all quantum")
    assert speeds == {(f"| {model}", compiled) for model in models for compiled in ("yes", "no")}
    assert "nanoGPT's model, eager: ImportError: no model.py; give a clone" in absent
    assert all(not line.startswith("- ours") and "ours," not in line for line in absent.splitlines())
