"""Observables are distinct, alive, and share few measurement bases."""

import numpy as np
import pytest
from qiskit.quantum_info import Pauli, Statevector, random_statevector

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.observables import (
    basis_expectations,
    basis_rotation,
    measurement_bases,
    random_observables,
    select_observables,
)


@pytest.mark.parametrize("basis", ["Z", "XY", "ZZX", "YXZY"])
def test_basis_expectations_agree_with_statevector(basis, rng):
    n = len(basis)
    state = random_statevector(2**n, seed=rng)
    values = basis_expectations(state.data, basis)
    for mask in range(2**n):
        label = "".join(c if mask >> (n - 1 - i) & 1 else "I" for i, c in enumerate(basis))
        assert values[mask] == pytest.approx(state.expectation_value(Pauli(label)).real, abs=1e-12)


def test_basis_rotation_turns_each_letter_into_z():
    for letter, matrix in zip("XYZ", basis_rotation("ZYX"), strict=True):
        turned = matrix @ Pauli(letter).to_matrix() @ matrix.conj().T
        np.testing.assert_allclose(turned, np.diag([1, -1]), atol=1e-12)


def test_groups_are_measurable_together_and_complete(rng):
    labels = ["".join(rng.choice(list("IXYZ"), 4)) for _ in range(40)]
    groups = measurement_bases(labels)
    assert sorted(m for _, members in groups for m in members) == list(range(40))
    for basis, members in groups:
        assert set(basis) <= set("XYZ")
        assert all(a in ("I", b) for m in members for a, b in zip(labels[m], basis, strict=True))


@pytest.mark.parametrize(("count", "bases"), [(1, 1), (15, 1), (16, 2), (30, 2), (45, 3)])
def test_fewest_bases_for_a_generic_state(count, bases, rng):
    labels = select_observables([random_statevector(16, seed=rng).data], count)
    assert len(set(labels)) == count
    assert len(measurement_bases(labels)) == bases


def test_dead_strings_are_passed_over(rng):
    real = rng.normal(size=8)
    labels = select_observables([real / np.linalg.norm(real)], 35)  # of 63 strings, those with an even number of Y
    assert all(label.count("Y") % 2 == 0 for label in labels)
    with pytest.raises(CircuitError, match="only 35 Pauli strings that are not always zero"):
        select_observables([real / np.linalg.norm(real)], 36)


def test_strings_asked_for_first_come_first(rng):
    labels = select_observables([random_statevector(4, seed=rng).data], 4, ["XI", "IY"])
    assert labels[:2] == ("XI", "IY")
    assert len(set(labels)) == 4


@pytest.mark.parametrize("count", [0, 16, 100])
def test_more_than_exist_or_none_is_an_error(count):
    with pytest.raises(CircuitError, match=str(count)):
        select_observables([Statevector.from_label("+r").data], count)


def test_the_papers_drawing_is_seeded_and_mostly_identity():
    drawn = random_observables(5, 400, seed=3)
    assert drawn == random_observables(5, 400, seed=3) != random_observables(5, 400, seed=4)
    assert 0.87 < np.mean([label.count("I") / 5 for label in drawn]) < 0.93
