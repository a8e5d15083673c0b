"""A result is kept for the same values, and for nothing else."""

from __future__ import annotations

import copy
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.circuit.library import UnitaryGate

from qiskit_qattn.simulation.cache import LatestResult, ResultPool, circuit_content

CHANGES = {
    "a value": ([torch.tensor([1.0, 2.0]), torch.tensor([3.5])], "key"),
    "a shape": ([torch.tensor([1.0]), torch.tensor([2.0, 3.0])], "key"),
    "a dtype": ([torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0]).double()], "key"),
    "another's dtype": ([torch.tensor([1.0, 2.0]), torch.tensor([3.0]).double()], "key"),
    "the key": ([torch.tensor([1.0, 2.0]), torch.tensor([3.0])], "another"),
    "NaN": ([torch.tensor([1.0, 2.0]), torch.tensor([torch.nan])], "key"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_computed_again(change):
    kept, calls = LatestResult[int](), []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    assert kept.get(compute, tensors, "key") == kept.get(compute, [t.clone() for t in tensors], "key") == 1
    other, key = CHANGES[change]
    assert kept.get(compute, other, key) == 2


@torch.no_grad()
def test_edits_in_place_are_seen():
    kept, weight = LatestResult[float](), torch.nn.Parameter(torch.ones(2))
    assert kept.get(lambda: float(weight.sum()), [weight]) == 2
    weight.data[0] = 5
    assert kept.get(lambda: float(weight.sum()), [weight]) == 6


def test_what_is_lent_comes_back_and_is_with_one_borrower():
    lent = ResultPool[str]()
    assert lent.take("key") is None
    lent.give("key", "result")
    assert (lent.take("key"), lent.take("key")) == ("result", None)
    lent.give("key", "result")
    for other in (copy.copy(lent), copy.deepcopy(lent), pickle.loads(pickle.dumps(lent))):
        assert other.take("key") is None


def test_the_least_recently_used_go_first():
    lent = ResultPool[int](most=3, most_bytes=100)
    for number in range(3):
        lent.give(number, number, 40 if number == 0 else 0)
    lent.give(0, lent.take(0), 40)
    lent.give(3, 3)
    assert lent.take(1) is None  # 0 was used after it
    lent.give(4, 4, 101)
    assert lent.take(4) is None
    lent.give(5, 5, 70)
    assert [lent.take(number) for number in (0, 2, 3, 5)] == [None, None, 3, 5]


X = Parameter("x")


def small_circuit(angle=X, *, name="a circuit"):
    circuit = QuantumCircuit(2, name=name)
    circuit.rx(angle, 0)
    circuit.cx(0, 1)
    return circuit


def test_content_is_the_same_for_the_same_circuit():
    circuit = small_circuit()
    assert circuit_content(circuit) == circuit_content(circuit) == circuit_content(circuit.copy(circuit.name))
    assert circuit_content(circuit) == circuit_content(small_circuit())
    others = [small_circuit(angle) for angle in (2 * X, X * 0.1, X * np.nextafter(0.1, 1), Parameter("x"), 0.1)]
    others.append(small_circuit(np.nextafter(0.1, 1)))
    assert len({circuit_content(each) for each in [circuit, *others]}) == 7


def edit_matrix(circuit):
    circuit.data[-1].operation.params[0][:] = [[0, 1], [1, 0]]


def edit_definition(circuit):
    circuit.data[0].operation.definition.x(0)


@pytest.mark.parametrize(
    "edit",
    [
        lambda circuit: circuit.x(0),
        lambda circuit: circuit.data.pop(),
        lambda circuit: circuit.data.reverse(),
        lambda circuit: setattr(circuit, "global_phase", 1.0),
        edit_matrix,
        edit_definition,
    ],
)
def test_an_edit_in_place_changes_the_content(edit):
    circuit = QuantumCircuit(2)
    circuit.append(small_circuit().to_gate(), [0, 1])
    circuit.append(UnitaryGate(np.eye(2)), [1])
    before = circuit_content(circuit)
    edit(circuit)
    assert before is not None and circuit_content(circuit) != before


def test_a_class_that_was_defined_again_is_another(monkeypatch):
    contents = []
    for _ in range(2):
        again = type("Again", (Gate,), {"__module__": __name__})
        monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Again=again))
        circuit = QuantumCircuit(1, name="a circuit")
        circuit.append(again("again", 1, []), [0])
        contents.append(circuit_content(circuit))
    assert None not in contents and contents[0] != contents[1]


def test_what_cannot_be_written_down_has_no_content():
    class Local(Gate):
        pass

    circuit = QuantumCircuit(1)
    circuit.append(Local("local", 1, []), [0])
    assert circuit_content(circuit) is None
