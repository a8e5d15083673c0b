"""``generate`` in several threads: the texts and the model's mode are those of one thread."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
import torch

from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT

NOISY = "density_matrix?noise=depolarizing&p1=0.01&p2=0.02"
THREADS = 8
FIRST_CALLS = """
import threading, torch
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
torch.manual_seed(0)
model = GPT(GPTConfig(vocab_size=5, block_size=8, n_layer=1, n_head=2, n_embd=16, heads="qisa:1,zz:1", num_qubits=3))
start, texts = threading.Barrier(8), []
def generate():
    start.wait()
    texts.append(model.generate(torch.zeros(1, 1, dtype=torch.long), 6, seed=1).tolist())
threads = [threading.Thread(target=generate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(texts) == 8 and all(text == texts[0] for text in texts), texts
"""


def make() -> GPT:
    torch.manual_seed(0)
    heads = "qisa:1,zz:1,quadratic:1,classical:1"
    return GPT(GPTConfig(vocab_size=7, block_size=8, n_layer=2, n_head=4, n_embd=16, heads=heads, num_qubits=2))


def keep_training(model: GPT, start: Barrier, enough: Event) -> int:
    optimizer, tokens, steps = torch.optim.AdamW(model.parameters()), torch.arange(8).remainder(7)[None], 0
    start.wait()
    while not enough.is_set():
        loss = model(tokens, tokens)[1]
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(module.training for module in model.modules())
        steps += 1
    return steps


def generate(model: GPT, seed: int) -> list[list[int]]:
    return model.generate(torch.zeros(1, 1, dtype=torch.long), 12, seed=seed).tolist()


@pytest.mark.parametrize("backend", ["statevector", NOISY])
@pytest.mark.parametrize("same", [False, True], ids=["another model trains", "the model trains"])
def test_texts_and_modes_are_those_of_one_thread(backend: str, same: bool):
    model = make().train()
    model.to_backend(backend)
    trained = model if same else make().train()
    expected = {seed: generate(model, seed) for seed in range(THREADS)}
    assert all(module.training for module in model.modules())
    start, enough = Barrier(THREADS + 1), Event()

    def texts(seed: int) -> list[list[list[int]]]:
        start.wait()
        return [generate(model, seed) for _ in range(3)]

    with ThreadPoolExecutor(THREADS + 1) as pool:
        training = pool.submit(keep_training, trained, start, enough)
        found = list(pool.map(texts, range(THREADS)))
        enough.set()
        assert training.result() > 0
    if not same:  # a model that is trained meanwhile gives the text of its weights at the moment
        assert found == [[expected[seed]] * 3 for seed in range(THREADS)]
    assert all(len(text[0]) == 13 for texts in found for text in texts)
    assert all(module.training for module in model.modules())


def test_the_first_calls_of_a_process_may_come_together():
    command = [sys.executable, "-W", "error", "-c", FIRST_CALLS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("backend", [NOISY, "statevector?shots=64&seed=1"])
def test_a_copy_leaves_the_mode_of_heads_that_it_shares(backend: str, mode: bool):
    model = make()
    model.to_backend(backend)
    model.train(mode)
    generate(model, 0)
    assert {module.training for module in model.modules()} == {mode}
