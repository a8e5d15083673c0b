"""Measure starts of circuit weights and tools for training circuits; prints tables.

python benchmarks/train_circuits.py                 # all: half an hour on one core
python benchmarks/train_circuits.py starts zz-deep  # some parts
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import torch
from circuit_training import starts, tools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"starts, {', '.join(tools.STUDY)}; default: all")
    parser.add_argument("--seeds", type=int, help="how many, in place of 8 or 12")
    parser.add_argument("--steps", type=int, help="of each training, in place of 150 or 600")
    options = parser.parse_args()
    parts = options.parts or ["starts", *tools.STUDY]
    unknown = [part for part in parts if part not in ("starts", *tools.STUDY)]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are starts, {', '.join(tools.STUDY)}")
    torch.set_num_threads(1)
    if "starts" in parts:
        show(starts.HEADER, starts.table())
    studies = [part for part in parts if part != "starts"]
    show(tools.HEADER, tools.rows(studies, options.seeds, options.steps))


def show(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table, each row as soon as it is known."""
    for row in (header, ["---"] * len(header)):
        print(f"| {' | '.join(row)} |", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
