"""Print what rounding a trained model's weights to 8 bits changes: in validation loss, in time and in the file's size.

    python -m benchmarks.quantization RUN

The validation loss is that of the run's report: over all of the run's windows. Times are the fastest of passes that
take turns, of a batch of windows of the whole context, and of one token.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from qiskit_qattn import GPT, GPTConfig, inference
from qiskit_qattn.nn.export import to_bytes
from qiskit_qattn.nn.quantize import quantize
from qiskit_qattn.training.checkpoint import find_model
from qiskit_qattn.training.data import load_corpus
from qiskit_qattn.training.run import saved_config
from qiskit_qattn.training.tokenizer import CharTokenizer
from qiskit_qattn.training.validation import evaluate, final_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="A run folder; without, times of random weights alone.")
    parser.add_argument("--width", type=int, nargs="+", default=[384], help="Of models with random weights.")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("model | loss | int8 | time of 8 windows, int8 / float | of one token | ONNX, MB | int8")
    if options.run is not None:
        _print_run(options.run)
    for width in options.width:
        heads = width // 64
        shape = {"vocab_size": 65, "block_size": 128, "n_layer": 6, "n_head": heads, "n_embd": width, "num_qubits": 6}
        torch.manual_seed(0)
        model = GPT(GPTConfig(**shape, heads=f"qisa:{heads // 2},classical:{heads - heads // 2}"))
        print(f"n_embd={width} | - | - | {_costs(model)}", flush=True)


def _print_run(run: Path) -> None:
    config, folder = saved_config(run), find_model(run)
    model, tokenizer = GPT.from_pretrained(folder), CharTokenizer.load(folder / "tokenizer.json")
    corpus = load_corpus(config.data, config.model.block_size, tokenizer=tokenizer)
    losses = [evaluate(each, final_batches(corpus.val, config)[1]).all_positions for each in (model, quantize(model))]
    print(f"{run.name} | {losses[0]:.4f} | {losses[1]:.4f} | {_costs(model)}", flush=True)


def _costs(model: GPT) -> str:
    """Return the ratios of times, and the sizes of the files."""
    size, found = model.config.block_size, {"float": inference(model), "int8": quantize(model)}
    ratios = []
    for shape in ((8, size), (1, 1)):
        tokens = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
        times = _fastest({name: lambda each=each, tokens=tokens: each(tokens) for name, each in found.items()})
        ratios.append(f"{times['int8'] / times['float']:.2f}")
    sizes = [f"{len(to_bytes(each, 'onnx', {})) / 1e6:.3g}" for each in found.values()]
    return " | ".join([*ratios, *sizes])


@torch.inference_mode()
def _fastest(calls: Mapping[str, Callable[[], object]], rounds: int = 10) -> dict[str, float]:
    """Return the shortest time of each call, in seconds; the calls take turns."""
    times: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name] = min(times.get(name, float("inf")), time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
