"""The counter of calls counts what computes, and its table's promises hold."""

from __future__ import annotations

import torch

import qiskit_qattn as qa
from benchmarks.launches import all_unitaries, as_on_a_gpu, count


def test_views_and_allocations_are_no_calls():
    x = torch.ones(4, 3, requires_grad=True)
    found = count(lambda: torch.empty(2, 2).mT.expand(5, 2, 2))
    assert (found.calls, found.double, found.bytes) == (0, 0, 0)
    found = count(lambda: (x.mT * 2.0).detach().double())
    assert dict(found.names) == {"mul": 1, "_to_copy": 1}
    assert (found.calls, found.double) == (2, 1)
    assert found.bytes == 2 * 48 + 48 + 96


def testall_unitaries_of_a_step_take_few_calls_whatever_the_number_of_layers():
    def calls(n_layer: int) -> int:
        shape = {"vocab_size": 11, "block_size": 4, "n_head": 2, "n_embd": 16}
        model = as_on_a_gpu(qa.GPT(qa.GPTConfig(**shape, n_layer=n_layer, heads="qisa:2", num_qubits=4)))
        return count(lambda: all_unitaries(model).sum().backward()).names

    few, many = calls(1), calls(4)
    assert few.total() <= 25
    assert all(many[name] == few[name] for name in ("mm", "bmm", "cos", "sin", "addmm", "_to_copy"))
