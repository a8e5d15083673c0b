"""Measure starts of circuit weights and tools for training circuits, and write ``train_circuits.md``."""

from __future__ import annotations

import torch
from circuit_training import starts


def main() -> None:
    torch.set_num_threads(1)
    for row in (starts.HEADER, *starts.table()):
        print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
