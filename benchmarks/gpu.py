"""Measure on a GPU what quantum heads and circuits cost beside classical ones, and write ``gpu.md``."""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from on_gpu import circuits, models, speed
from on_gpu.clock import Bench

_FILE = Path(__file__).with_name("gpu.md")
_PACKAGES = ("qiskit-qattn", "torch", "triton", "qiskit", "torq-quantum", "pennylane", "pennylane-lightning-gpu")


def main() -> None:
    options = _parser().parse_args()
    if not options.smoke and not torch.cuda.is_available():
        sys.exit(f"no GPU: torch {torch.__version__} sees none, so nothing is measured, and gpu.md is as it was.")
    warnings.filterwarnings("ignore", module="torch")  # its compiler warns of its own insides
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(device, options.smoke, begin + 60 * options.minutes)
    head = f"{date.today().isoformat()}, {describe(device)}"
    print(head, flush=True)
    text = [f"# Speed on a GPU\n\nThe last run: {head}.\n"]
    tables = (
        ("Models, eager", models.HEADER, models.measure(bench, "eager")),
        ("A user's circuit, forward and backward; × is to ours", circuits.HEADER, circuits.measure(bench)),
        ("Models, compiled (CUDA graphs)", models.HEADER, models.measure(bench, "compiled")),
        ("nanoGPT's GPU configuration, steps", speed.HEADER, speed.measure(bench, options.nanogpt)),
    )
    for title, header, rows in tables:
        text.append(table(title, header, rows))
    took = f"The run took {(time.monotonic() - begin) / 60:.1f} minutes."
    absent = "".join(f"- {line}\n" for line in dict.fromkeys(bench.absent)) or "- nothing\n"
    text.append(f"## Not measured\n\n{absent}\n{took}\n")
    print(text[-1])
    if not options.smoke:
        _FILE.write_text("\n".join(text), encoding="utf-8")
        print("Written to benchmarks/gpu.md.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny, on any device; shows that it works, writes nothing")
    parser.add_argument("--minutes", type=float, default=4.5, help="start nothing new after them; default: 4.5")
    parser.add_argument("--nanogpt", type=Path, metavar="FOLDER", help="a clone of github.com/karpathy/nanoGPT")
    return parser


def describe(device: torch.device) -> str:
    """Return the device and the versions in a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU, this is the CPU"
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{name}, Python {platform.python_version()}, {', '.join(versions)}"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as Markdown, and print each as soon as it is measured."""
    lines = [f"## {title}\n", _line(header), "|" + " --- |" * len(header)]
    print("\n" + "\n".join(lines), flush=True)
    for row in rows:
        lines.append(_line(row))
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
