"""A program: train the nano model for some steps and write its peak memory, in MiB, as JSON."""

from __future__ import annotations

import json
import sys

import torch
from machine import num_cores
from steps import make_model, training_step

from qiskit_qattn.training.config import resolve
from qiskit_qattn.training.metrics import peak_rss_mib


def main(heads: str, num_steps: int) -> None:
    torch.set_num_threads(num_cores())
    config = resolve({}, preset="nano")
    before = peak_rss_mib()
    step = training_step(make_model(config, heads), config)
    for _ in range(num_steps):
        step()
    json.dump({"peak": peak_rss_mib(), "growth": peak_rss_mib() - before}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
