"""A program: two passes of the user's circuit, forward and backward; it writes its peak memory, in MiB, as JSON."""

from __future__ import annotations

import json
import sys

import torch
from machine import num_cores
from networks import user_network
from steps import forward_backward

import qiskit_qattn as qa
from qiskit_qattn.training.metrics import peak_rss_mib


def main(num_qubits: int, batch: int) -> None:
    torch.set_num_threads(num_cores())
    before = peak_rss_mib()
    torch.manual_seed(0)
    connector = qa.TorchConnector(user_network(num_qubits))
    step = forward_backward(connector, torch.randn(batch, num_qubits))
    for _ in range(2):
        step()
    json.dump({"peak": peak_rss_mib(), "growth": peak_rss_mib() - before}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
