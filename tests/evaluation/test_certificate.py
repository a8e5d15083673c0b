"""The certificate of causality: edits and gradients together, on models of strangers and on every backend."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from qiskit_qattn.evaluation.gradient_leakage import COSTS_CIRCUITS, NO_EMBEDDING, NO_GRAPH, NO_MODULE, NOT_WANTED
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.kinds import HEAD_KINDS

VOCABULARY, LENGTH = 7, 6


class Stranger(nn.Module):
    """A model that sums up the past, and may look ahead."""

    def __init__(self, future: float = 0.0) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(VOCABULARY, 8), nn.Embedding(LENGTH, 8)
        self.out = nn.Linear(8, VOCABULARY)
        self.future = future

    def mix(self, x: Tensor) -> Tensor:
        """Return the tokens (B, T, d), mixed along T."""
        return x.cumsum(1) + self.future * x.roll(-1, 1) * (torch.arange(x.shape[1]) == 2)[:, None]

    def forward(self, idx: Tensor) -> SimpleNamespace:
        places = torch.arange(idx.shape[1]).expand_as(idx)
        x = self.embed(idx) + self.positions(places)  # (B, T, d)
        return SimpleNamespace(logits=self.out(self.mix(x)))


class ByFourier(Stranger):
    """The same sum as a convolution, by Fourier transform: causal up to rounding."""

    def mix(self, x: Tensor) -> Tensor:
        size = 2 * x.shape[1]
        kernel = torch.fft.rfft(torch.ones(x.shape[1]), n=size)[:, None]
        return torch.fft.irfft(torch.fft.rfft(x, n=size, dim=1) * kernel, n=size, dim=1)[:, : x.shape[1]]


class LikeliestOnly(Stranger):
    """A model that answers with a choice, which no gradient passes."""

    def forward(self, idx: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(super().forward(idx).logits.argmax(-1), VOCABULARY).float()


class BesideItself(Stranger):
    """A model whose logits sum up to the same whatever it reads ahead."""

    def forward(self, idx: Tensor) -> Tensor:
        return super().forward(idx).logits.log_softmax(-1)


def test_a_causal_stranger_passes_by_edits_and_by_gradients():
    found = leakage(Stranger(), VOCABULARY, LENGTH)
    assert (found.passed, found, found.gradient, found.worst, found.worst_gradients) == (True, 0, 0, (), ())
    assert "causality: passed" in str(found)
    assert str(found).count("exactly 0") == 2
    assert f"{found:.0e}" == "0e+00"


@pytest.mark.parametrize("model", [Stranger, BesideItself])
def test_a_leak_is_located_twice(model: type[Stranger]):
    found = leakage(model(future=1.0), VOCABULARY, LENGTH)
    assert found.verdict == "failed"
    assert found.gradient > 1e-3
    assert [pair[:2] for pair in found.worst] == [pair[:2] for pair in found.worst_gradients] == [(3, 2)]
    assert found.worst[0][2] == found
    assert "token 3 → output 2" in found.summary()


def test_gradients_see_what_rounding_hides_from_edits():
    found = leakage(Stranger(future=1e-12), VOCABULARY, LENGTH)
    assert found == 0
    assert 0 < found.gradient < 1e-9
    assert not found.passed


def test_edits_see_what_has_no_gradient():
    class Counts(Stranger):
        def forward(self, idx: Tensor) -> Tensor:
            return super().forward(idx).logits + idx.sum(1)[:, None, None]  # reads the ids themselves

    found = leakage(Counts(), VOCABULARY, LENGTH)
    assert (found.gradient, found.passed) == (0, False)
    assert len(found.worst) == 5


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        (Stranger().forward, {}, ""),
        (LikeliestOnly(), {}, NO_GRAPH),
        (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, LENGTH)), nn.Embedding(VOCABULARY, 3).float()), {}, ""),
        (torch.no_grad()(Stranger().forward), {}, NO_MODULE),
        (Stranger(), {"gradients": False}, NOT_WANTED),
    ],
)
def test_it_says_why_there_are_no_gradients(model, options, why: str):
    found = leakage(model, VOCABULARY, LENGTH, edits=1, **options)
    assert found.skipped == why
    assert (found.gradient is None) == bool(why)
    assert found.passed
    assert why in found.summary()


def test_ids_that_no_embedding_takes_are_told():
    class OneHot(nn.Module):
        def forward(self, idx: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(idx, VOCABULARY).float().cumsum(1)

    assert leakage(OneHot(), VOCABULARY, LENGTH).skipped == NO_EMBEDDING


def test_rounding_passes_with_a_tolerance_only():
    model = ByFourier()
    found = leakage(model, VOCABULARY, LENGTH)
    assert 0 < found < 1e-5
    assert not found.passed
    assert leakage(model, VOCABULARY, LENGTH, tolerance=1e-4).passed
    assert "tolerance: 1.0e-04" in leakage(model, VOCABULARY, LENGTH, tolerance=1e-4).summary()


def test_answers_that_vary_are_decided_by_gradients():
    class Noisy(Stranger):
        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx).logits
            return logits + 0.01 * torch.randn_like(logits)

    found = leakage(Noisy(), VOCABULARY, LENGTH)
    assert found > 0
    assert found.noise > 0
    assert found.passed
    assert leakage(Noisy(), VOCABULARY, LENGTH, gradients=False).verdict == "undecided"
    assert leakage(Noisy(future=0.1), VOCABULARY, LENGTH).verdict == "failed"
    assert leakage(Noisy(future=100.0), VOCABULARY, LENGTH, gradients=False).verdict == "failed"


def test_hooks_and_parameters_are_left_as_they_were():
    model = Stranger()
    leakage(model, VOCABULARY, LENGTH)
    assert not model.embed._forward_hooks
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def gpt(kind: str, backend: str) -> GPT:
    """Return a small GPT whose heads are all of one kind."""
    shape = {"vocab_size": 5, "block_size": 3, "n_layer": 1, "n_head": 1, "n_embd": 4}
    model = GPT(GPTConfig(**shape, heads=f"{kind}:1", num_qubits=2))
    model.to_backend(backend)
    return model


@pytest.mark.parametrize("kind", HEAD_KINDS)
@pytest.mark.parametrize("backend", ["statevector", "density_matrix?noise=depolarizing&p1=0.01&p2=0.02", "aer"])
def test_every_kind_passes(kind: str, backend: str):
    if kind == "quixer" and backend != "statevector":
        pytest.skip("its window is too large for circuits; tests/nn/test_quixer.py has a smaller one")
    found = leakage(gpt(kind, backend), edits=2)
    assert (found.passed, found) == (True, 0), found.summary()
    quantum = bool(HEAD_KINDS[kind].circuits)
    assert found.skipped == (COSTS_CIRCUITS if backend == "aer" and quantum else "")


@pytest.mark.parametrize("backend", ["aer:matrix_product_state", "statevector?method=mps", "braket:local"])
def test_other_exact_backends_pass(backend: str):
    assert leakage(gpt("qisa", backend), edits=1).passed


@pytest.mark.parametrize("backend", ["statevector?shots=64&seed=3", "aer?shots=64&seed=3"])
def test_sampled_backends_pass_by_gradients(backend: str):
    found = leakage(gpt("qisa", backend), edits=2, gradients=True)
    assert (found.passed, found.gradient) == (True, 0), found.summary()
    assert found.noise > 0


def test_where_gradients_cost_circuits_none_are_taken():
    for backend in ("aer", "aer -> statevector"):
        assert leakage(gpt("qisa", backend), edits=1).skipped == COSTS_CIRCUITS
    assert leakage(gpt("qisa", "aer"), edits=1, gradients=True).gradient == 0
