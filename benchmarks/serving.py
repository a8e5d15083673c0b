"""Print what a server's engine gains by shared passes, what quantum heads cost it, and how long a start takes.

Ratios of one run, in which the engines take turns:

- tokens per second of 64 requests at once, over those of requests one by one;
- the same of ``qattn serve`` in a process of its own, asked by the ``openai`` client, and whether texts are the same;
- those of a model with all heads classical, over those with half of the heads quantum;
- seconds from the start of a process to the first token of a run folder's model.

The first two are given by the clock and by the processor's time of the process, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from machine import describe, load
from openai import AsyncOpenAI

from qiskit_qattn import GPT, GPTConfig
from qiskit_qattn.serving.engine import Engine, Sampling
from qiskit_qattn.serving.models import ServedGPT
from qiskit_qattn.training.tokenizer import CharTokenizer

LETTERS = CharTokenizer("".join(map(chr, range(32, 97))))
HEADS = {"quantum": "qisa:2,classical:2", "classical": "classical:4"}
SERVE = "from qiskit_qattn.cli.main import main; main()"
READY = """
import asyncio, sys
from qiskit_qattn.serving.engine import Engine, Sampling
from qiskit_qattn.serving.models import load
async def main():
    engine = Engine(load(sys.argv[1]))
    async for piece in engine.submit([1], Sampling(1)):
        pass
    await engine.drain(1)
asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{describe()}; load {load():.1f}")
    models = {name: _model(heads) for name, heads in HEADS.items()}
    engines = {name: Engine(ServedGPT(name, model, LETTERS), max_batch=options.batch) for name, model in models.items()}
    rates: dict[tuple[str, str, str], list[float]] = {}
    for turn in range(options.rounds + 1):
        for name, engine in list(engines.items())[:: 1 if turn % 2 else -1]:
            for how, count in (("at once", options.requests), ("one by one", options.requests // 8)):
                found = asyncio.run(_rates(engine, count, options.tokens, at_once=how == "at once"))
                for clock, rate in found.items() if turn else ():  # after a warm-up
                    rates.setdefault((clock, name, how), []).append(rate)
    for clock in ("clock", "processor"):
        for name in engines:
            at_once, alone = rates[clock, name, "at once"], rates[clock, name, "one by one"]
            _print(clock, name, at_once, alone)
        for how in ("at once", "one by one"):
            ratio = _ratio(rates[clock, "classical", how], rates[clock, "quantum", how])
            print(f"{clock}: classical / quantum, {how}: {ratio}")
    for engine in engines.values():
        engine.close()
    with tempfile.TemporaryDirectory() as folder:
        models["quantum"].save_pretrained(folder)
        LETTERS.save(Path(folder) / "tokenizer.json")
        times = []
        for _ in range(3):
            begin, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, "-c", READY, folder], check=True)
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            times.append(f"{time.perf_counter() - begin:.1f} s, {used:.1f} s of the processor")
        asyncio.run(_asked(folder, options))
    print(f"start to first token: {'; '.join(times)}; load {load():.1f}")


def _model(heads: str) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=LETTERS.vocab_size, heads=heads)).eval()


async def _rates(engine: Engine, requests: int, tokens: int, *, at_once: bool) -> dict[str, float]:
    """Return tokens per second, by the clock and of the processor's time."""

    async def one(i: int) -> None:
        async for _ in engine.submit([i % LETTERS.vocab_size] * (1 + i % 24), Sampling(tokens, seed=i)):
            pass

    begin = time.perf_counter(), time.process_time()
    if at_once:
        await asyncio.gather(*(one(i) for i in range(requests)))
    else:
        for i in range(requests):
            await one(i)
    taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
    return dict(zip(("clock", "processor"), (requests * tokens / each for each in taken), strict=True))


async def _asked(folder: str, options: argparse.Namespace) -> None:
    """Print the tokens per second that the client gets from a server."""
    command = [sys.executable, "-c", SERVE, "serve", folder, "--port", "0", "--max-batch", str(options.batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        process = psutil.Process(server.pid)

        def clocks() -> tuple[float, float]:
            used = process.cpu_times()
            return time.perf_counter(), used.user + used.system

        try:
            url = next(line.split()[-1] for line in server.stderr or () if line.startswith("Serving "))
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:

                async def one(i: int) -> str:
                    prompt = LETTERS.characters[i % LETTERS.vocab_size] * (1 + i % 24)
                    asked = {"model": Path(folder).name, "prompt": prompt, "max_tokens": options.tokens, "seed": i}
                    return (await client.completions.create(**asked)).choices[0].text

                numbers, same = range(options.requests), True
                rates: dict[tuple[str, str], list[float]] = {}
                for turn in range(options.rounds + 1):
                    begin = clocks()
                    together = await asyncio.gather(*map(one, numbers))
                    between = clocks()
                    some = numbers[turn % 8 :: 8]
                    same &= [await one(i) for i in some] == [together[i] for i in some]
                    end = clocks()
                    for i, clock in enumerate(("clock", "processor") if turn else ()):
                        found = len(together) / (between[i] - begin[i]), len(some) / (end[i] - between[i])
                        for how, rate in zip(("at once", "one by one"), found, strict=True):
                            rates.setdefault((clock, how), []).append(rate * options.tokens)
            for clock in ("clock", "processor"):
                _print(clock, "openai client", rates[clock, "at once"], rates[clock, "one by one"])
            print(f"texts of the openai client at once are those one by one: {same}")
        finally:
            server.terminate()


def _print(clock: str, name: str, at_once: list[float], alone: list[float]) -> None:
    rates = f"{statistics.median(at_once):,.0f} tokens/s at once, {statistics.median(alone):,.0f} one by one"
    print(f"{clock}: {name}, {rates}: {_ratio(at_once, alone)} times as many", flush=True)


def _ratio(above: list[float], below: list[float]) -> str:
    """Return the median and the range of the quotients of each round."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


if __name__ == "__main__":
    main()
