"""Measures of states and vectors, from their definitions."""

import math

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector, partial_trace, purity, random_statevector

from qiskit_qattn.evaluation.state_measures import (
    BINS,
    haar_divergence,
    meyer_wallach,
    pair_meyer_wallach,
    participation_ratio,
    unary_meyer_wallach,
)


def vector(state):
    return torch.from_numpy(np.asarray(state.data, dtype=complex))


def ghz(num_qubits):
    circuit = QuantumCircuit(num_qubits)
    circuit.h(0)
    for qubit in range(1, num_qubits):
        circuit.cx(0, qubit)
    return vector(Statevector(circuit))


def haar_states(count, num_qubits, rng):
    real, imaginary = rng.normal(size=(2, count, 2**num_qubits))
    states = torch.from_numpy(real + 1j * imaginary)
    return states / states.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("num_qubits", [2, 3, 5])
def test_a_ghz_state_has_all_entanglement_and_a_product_state_none(num_qubits, rng):
    product = Statevector([1.0])
    for _ in range(num_qubits):
        product = product ^ random_statevector(2, seed=rng)
    found = meyer_wallach(torch.stack([ghz(num_qubits), vector(product)]))
    assert found.tolist() == pytest.approx([1, 0], abs=1e-12)


def test_entanglement_follows_from_qiskits_reduced_states(rng):
    states = [random_statevector(2**4, seed=rng) for _ in range(5)]
    expected = []
    for state in states:
        purities = [purity(partial_trace(state, [q for q in range(4) if q != k])).real for k in range(4)]
        expected.append(2 * (1 - np.mean(purities)))
    assert meyer_wallach(torch.stack([vector(s) for s in states])).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_mean_entanglement_of_haar_random_states_is_known(rng):
    # Mean of Q over Haar: (N - 2) / (N + 1) for N = 2^n
    assert meyer_wallach(haar_states(20_000, 4, rng)).mean().item() == pytest.approx(14 / 17, abs=2e-3)


@pytest.mark.parametrize("num_qubits", [1, 2, 5])
def test_haar_random_states_have_no_divergence(num_qubits, rng):
    pairs = 20_000
    first, second = haar_states(pairs, num_qubits, rng), haar_states(pairs, num_qubits, rng)
    fidelities = (first.conj() * second).sum(-1).abs().square()
    assert 0 <= haar_divergence(fidelities, 2**num_qubits) < BINS / pairs


@pytest.mark.parametrize("num_qubits", [1, 4, 12])
def test_equal_states_have_the_largest_divergence(num_qubits):
    dimension = 2**num_qubits
    idle = haar_divergence(torch.full((10,), 1 + 1e-15, dtype=torch.float64), dimension)
    assert idle == pytest.approx((dimension - 1) * math.log(BINS), rel=1e-12)


def test_the_divergence_is_that_of_two_histograms(rng):
    fidelities = rng.uniform(size=1000)
    shares, edges = np.histogram(fidelities, BINS, (0, 1))
    shares = shares / 1000
    haar = (1 - edges[:-1]) ** 3 - (1 - edges[1:]) ** 3
    expected = sum(p * math.log(p / q) for p, q in zip(shares, haar, strict=True) if p)
    assert haar_divergence(torch.from_numpy(fidelities), 4) == pytest.approx(expected, rel=1e-9)


def test_the_participation_ratio_counts_directions_that_share_the_variance(rng):
    vectors = torch.from_numpy(rng.normal(size=(50_000, 4)))
    alone = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    two = torch.tensor([1.0, 1, 0, 0], dtype=torch.float64)
    found = participation_ratio(torch.stack([vectors, vectors * two, vectors * alone, torch.ones_like(vectors)]))
    assert found.tolist() == pytest.approx([4, 2, 1, 0], abs=5e-3)


def test_the_participation_ratio_knows_neither_scale_nor_rotation_nor_place(rng):
    vectors = torch.from_numpy(rng.normal(size=(100, 5)) * np.arange(1, 6))
    rotation = torch.linalg.qr(torch.from_numpy(rng.normal(size=(5, 5))))[0]
    moved = 1e-3 * vectors @ rotation + 7
    assert participation_ratio(moved).item() == pytest.approx(participation_ratio(vectors).item(), rel=1e-9)


def test_unary_states_have_the_entanglement_of_the_whole_state(rng):
    amplitudes = torch.from_numpy(rng.normal(size=(5, 5)))
    amplitudes /= amplitudes.norm(dim=-1, keepdim=True)
    whole = torch.zeros(5, 16, dtype=torch.float64)
    whole[:, [0, 1, 2, 4, 8]] = amplitudes
    torch.testing.assert_close(unary_meyer_wallach(amplitudes), meyer_wallach(whole))


def test_states_of_pairs_have_the_entanglement_of_the_whole_state(rng):
    amplitudes = torch.from_numpy(rng.normal(size=(5, 7)))
    amplitudes /= amplitudes.norm(dim=-1, keepdim=True)
    whole = torch.zeros(5, 16, dtype=torch.float64)
    whole[:, [0, *(2**i + 2**j for i in range(4) for j in range(i + 1, 4))]] = amplitudes
    torch.testing.assert_close(pair_meyer_wallach(amplitudes), meyer_wallach(whole))
