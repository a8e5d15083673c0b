"""Print what sampled attention costs beside exact attention in inference, as ratios of times of one run.

Each line is one call of a layer's heads: exact attention by torch's fused kernel, then sampled attention in whole and
in its parts. ``decode`` is one query that sees all keys, ``all`` is as many queries as keys.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.nn.attention import attend
from qiskit_qattn.nn.draws import random_words
from qiskit_qattn.nn.estimates import estimate
from qiskit_qattn.nn.sampling import SampledMean, Scheme

_COLUMNS = ("case", "T", "h", "exact, ms", "sampled / exact", "weights", "words", "keys", "values read", "all values")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sampling", default="stratified?samples=32")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096, 16384, 65536])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(" | ".join(_COLUMNS))
    for length in options.lengths:
        for case in ("decode", "all") if length <= 2048 else ("decode",):
            print(" | ".join(_line(case, length, options)), flush=True)


@torch.inference_mode()
def _line(case: str, keys: int, options: argparse.Namespace) -> list[str]:
    rows = 1 if case == "decode" else keys
    q, k, v = (torch.randn(1, options.heads, n, options.width, device=options.device) for n in (rows, keys, keys))
    mean = SampledMean(Scheme.parse(options.sampling)).eval()
    samples, heads = mean.scheme.last, torch.arange(options.heads, device=options.device)
    p = _weights(q, k)
    words = random_words(samples, torch.arange(rows, device=options.device)[None], heads, seed=0, step=0, stream=0)
    draw = mean.scheme.draw(p, words)
    places = torch.arange(rows, device=options.device)[None]
    exact = _time(lambda: F.scaled_dot_product_attention(q, k, v))
    parts = [
        lambda: attend(q, k, v, "dot", mix=mean),
        lambda: _weights(q, k),
        lambda: random_words(samples, places, heads, seed=0, step=0, stream=0),
        lambda: mean.scheme.draw(p, words),
        lambda: estimate(p, v, draw, gather=True),
        lambda: estimate(p, v, draw),
    ]
    return [case, str(keys), str(options.width), f"{exact:.3f}", *(f"{_time(part) / exact:.2f}" for part in parts)]


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


def _time(call: Callable[[], object]) -> float:
    """Return the least of several times in ms."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times[1:])


if __name__ == "__main__":
    main()
