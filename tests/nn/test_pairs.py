"""Heads whose scores compare states: on the exact engine, on estimators, and their controls."""

import math

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector, partial_trace
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import ConfigError, EncodingError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.library.pairs import kept_qubits
from qiskit_qattn.nn.attention import KeyValueCache, attend
from qiskit_qattn.nn.audit import FallbackWarning
from qiskit_qattn.nn.pairs import LinearStates, PairHead, Pairing

COMPARISONS = ["overlap", "mixed", "complex"]
KINDS = {"overlap": "overlap", "qmsan": "mixed", "qcsam": "complex"}
CONTROLS = {"kernel": "overlap", "low-rank": "mixed", "complex": "complex"}


def gpt(heads, **options):
    n_head = sum(int(part.split(":")[1]) for part in heads.split(","))
    shape = {"vocab_size": 7, "block_size": 6, "n_layer": 1, "n_head": n_head, "n_embd": 4 * n_head, "num_qubits": 2}
    return qa.GPT(qa.GPTConfig(heads=heads, **(shape | options)))


def state(circuit: AttentionCircuit, vector: np.ndarray, weights: np.ndarray) -> Statevector:
    """Return the state of a vector in amplitudes and the ansatz, by Qiskit."""
    encoded = np.zeros(2**circuit.num_qubits)
    encoded[: len(vector)] = vector / np.linalg.norm(vector)
    ansatz = circuit.ansatz.assign_parameters(dict(zip(circuit.weight_params, weights, strict=True)))
    return Statevector(encoded).evolve(ansatz)


def by_hand(head: PairHead, q, k):
    """Return what compares all pairs of queries ``(S, h)`` and keys ``(T, h)`` of the first head, from definitions."""
    theta, phi = head.weight[0].detach().double().numpy().reshape(2, -1)
    queries = [state(head.states, x.double().numpy(), theta) for x in q]
    keys = [state(head.states, x.double().numpy(), phi) for x in k]
    n = head.states.num_qubits
    found = np.array([[a.inner(b) for b in keys] for a in queries])
    if head.comparison == "mixed":
        traced = list(range(kept_qubits(n), n))
        rhos, sigmas = ([partial_trace(each, traced).data for each in states] for states in (queries, keys))
        found = np.array([[np.trace(rho @ sigma).real for sigma in sigmas] for rho in rhos])
    elif head.comparison == "overlap":
        found = np.abs(found) ** 2
    return found


def weights_by_hand(head: PairHead, q, k):
    """Return the causal weights of the first head, complex for ``complex``."""
    scores = by_hand(head, q, k)
    if head.comparison == "complex":
        weights = np.tril(scores)
        return weights / np.abs(weights).sum(-1, keepdims=True)
    tau = head.gain[0, 0].item() ** 2 * 2**head.states.num_qubits
    return torch.from_numpy(tau * scores).masked_fill(~torch.ones(scores.shape).tril().bool(), -math.inf).softmax(-1)


@pytest.mark.parametrize("head_size", [3, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_qiskits_states(kind, head_size):
    model = gpt(f"{kind}:1", n_embd=head_size, n_layer=1).double()
    attention = model.blocks[0].attn
    head = attention.scores[kind]
    if head.gain is not None:
        nn.init.constant_(head.gain, 1.3)
    with torch.no_grad():
        x = torch.randn(1, 5, head_size, dtype=torch.float64)
        q, k = attention.c_attn(x)[0, :, : 2 * head_size].split(head_size, -1)
        v = attention._head_values(x, dict(zip(attention.maps, attention._project(x)[1:], strict=True)), {})[kind][0, 0]
        found = attention(x)
    weights, half = weights_by_hand(head, q, k), head_size // 2
    if KINDS[kind] == "complex":
        values = torch.complex(v[:, :half], v[:, half : 2 * half])
        mixed = torch.from_numpy(weights) @ values
        rest = torch.from_numpy(weights.real) @ v[:, 2 * half :]
        y = torch.cat([mixed.real, mixed.imag, rest], -1)
    else:
        y = weights @ v
    torch.testing.assert_close(found[0], attention.c_proj(y), atol=1e-6, rtol=0)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_gradcheck(comparison):
    head = PairHead(attention_circuit("qisa", 2), comparison, 2).double()
    q, k = (torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    score = {"mixed": "dot"}.get(comparison, comparison)

    def outputs(q, k, *weights):
        found = torch.func.functional_call(Encoded(head), dict(zip(names, weights, strict=True)), (q, k))
        return attend(*found, v, score, causal=True)[0]

    names, weights = zip(*((f"head.{name}", each) for name, each in head.named_parameters()), strict=True)
    assert torch.autograd.gradcheck(outputs, (q, k, *weights))


class Encoded(nn.Module):
    """Calls :meth:`encode` of a head."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, q, k):
        return self.head.encode(q, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "backend", ["aer", "density_matrix?noise=depolarizing&p1=0&p2=0", "aer -> statevector", "statevector -> aer"]
)
def test_circuits_of_pairs_give_the_values_of_the_exact_engine(kind, backend):
    model, idx = gpt(f"{kind}:2"), torch.randint(7, (2, 4))
    exact = model(idx)[0]
    model.to_backend(backend)
    torch.testing.assert_close(model(idx)[0], exact, atol=1e-5, rtol=0)
    assert {row["backend"] for row in model.head_backends()} == {backend.split(" -> ")[0].replace("statevector?", "")}


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_sampled_scores_are_within_shot_noise(comparison):
    head, shots = PairHead(attention_circuit("qisa", 2), comparison, 2), 4000
    x = torch.randn(2, 30, 8)
    exact = head.reference()(x)
    expected = head(x)
    head.to_backend(f"aer?shots={shots}&seed=5")
    with torch.no_grad():
        found = head(x)
    scale = (expected / exact).mean(1, keepdim=True)
    errors = ((found - expected) / scale).abs() * math.sqrt(shots)
    assert errors.max() < 4.5 and errors.square().mean() < 1.1  # standard errors, of variances of at most 1
    assert errors.max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_parameter_shift_are_those_of_the_exact_engine(kind):
    model, idx = gpt(f"{kind}:1"), torch.randint(7, (1, 3))
    grads = []
    for backend in ("statevector", "aer"):
        model.to_backend(backend)
        model.zero_grad()
        model(idx, idx)[1].backward()
        grads.append({name: each.grad.clone() for name, each in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)
    assert all(grad.abs().max() > 0 for name, grad in grads[0].items() if "wpe" not in name)


def counting(model, run):
    """Return the cost of a run on a simulator that counts."""
    estimator = CountingEstimator()
    with model.to_backend(Backend("counting", estimator)):
        run()
    return estimator.total


@pytest.mark.parametrize(("heads", "jobs"), [("overlap:2,classical:1", 1), ("overlap:1,kernel:1", 1)])
def test_all_pairs_of_a_layer_go_into_one_job_and_masked_ones_are_not_sent(heads, jobs):
    model, idx = gpt(heads), torch.tensor([[0, 1, 2, 3, 4], [2, 4, 1, 0, 3]])
    count = model.config.layers()[0]["overlap"]
    cost = counting(model, lambda: model(idx))
    assert (cost.jobs, cost.circuits) == (jobs, count * 2 * 15)  # j <= i of 5 tokens
    real = torch.ones(2, 5, dtype=torch.bool)
    real[1, :2] = False  # padding on the left: pairs of 3 tokens are left
    cost = counting(model, lambda: model(idx, real=real))
    assert cost.circuits == count * (15 + 6)


def test_a_new_token_costs_a_pair_per_token_before_it():
    model, caches = gpt("overlap:1"), [KeyValueCache()]
    counts = []
    for position, steps in ((0, 3), (3, 1), (4, 2)):
        idx = torch.arange(position, position + steps)[None]
        cost = counting(model, lambda idx=idx, at=position: model(idx, caches=caches, position=at))
        counts.append(cost.circuits)
    assert counts == [6, 4, 5 + 6]


@pytest.mark.parametrize("kind", [*KINDS, *CONTROLS])
def test_generation_on_an_estimator_uses_the_cache(kind):
    model, idx = gpt(f"{kind}:1"), torch.randint(7, (2, 3))
    expected = model.generate(idx, 3, seed=3)
    with model.to_backend("density_matrix?noise=depolarizing&p1=0&p2=0"):
        assert torch.equal(model.generate(idx, 3, seed=3), expected)


def test_a_chain_falls_with_values_and_gradients(laboratory):
    model, idx = gpt("qmsan:1,overlap:1"), torch.randint(7, (1, 3))
    exact, loss = model(idx, idx)
    loss.backward()
    wanted = {name: each.grad.clone() for name, each in model.named_parameters()}
    model.to_backend("lab?fails=all -> statevector")
    model.zero_grad()
    with pytest.warns(FallbackWarning, match=r"Layer 0, (qmsan|overlap) heads, call 1, forward pass"):
        found, loss = model(idx, idx)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
    loss.backward()
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.grad, wanted[name], atol=1e-5, rtol=1e-4, msg=name)
    record = qa.audit(model)
    names = ["maps.qmsan", "scores.qmsan", "scores.overlap"]
    assert [each["name"] for each in record["heads"]] == [f"blocks.0.attn.{name}" for name in names]
    assert record["calls"] == record["gradients"] == {"statevector": 3}
    assert [row["calls"] for row in model.head_backends()] == [{"statevector": 2}, {"statevector": 1}]


@pytest.mark.parametrize(("kind", "circuits"), [("overlap", [11]), ("qmsan", [9, 11]), ("qcsam", [9, 21])])
def test_what_a_call_costs_is_estimated(kind, circuits):
    found = qa.estimate(gpt(f"{kind}:1"), torch.arange(4)[None], "ibm:fake_manila?shots=100")
    assert found.total.jobs == len(circuits)  # each with one circuit that calibrates the readout
    assert found.total.circuits == sum(circuits)  # 4 values in 2 bases; 10 pairs in 1, or 2
    assert found.depth > 0


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_controls_have_the_scores_of_every_circuit(comparison):
    head = PairHead(attention_circuit("qisa", 2), comparison, 2).double()
    control = LinearStates(comparison, 2, 4, 2).double()
    basis = torch.eye(4, dtype=torch.float64).expand(1, 2, -1, -1)
    with torch.no_grad():
        states = head._encoded(head._program, basis, basis)
        control.weight.copy_(torch.stack([each[0] for each in states]))  # the unitaries' columns
    q, k = torch.randn(2, 1, 2, 5, 4, dtype=torch.float64)
    for found, expected in zip(control.encode(q, k), head.encode(q, k), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_controls_are_their_definitions(comparison):
    control, size = LinearStates(comparison, 1, 3, 2).double(), 4
    q, k, v = torch.randn(3, 1, 1, 4, 3, dtype=torch.float64)
    maps = torch.view_as_complex(control.weight.detach().unflatten(-1, (2, size)).movedim(-2, -1).contiguous())
    states = [each[0, 0].to(maps.dtype) @ matrix[0] for each, matrix in zip((q, k), maps, strict=True)]  # (4, 4)
    one, other = (each / each.norm(dim=-1, keepdim=True) for each in states)
    overlap = one.conj() @ other.mT
    if comparison == "mixed":
        matrices = [each.unflatten(-1, (2, 2)).mT for each in (one, other)]  # qubit 0, which is kept, comes last
        rho, sigma = (each @ each.mH for each in matrices)
        overlap = torch.einsum("iab,jba->ij", rho, sigma).real
    tril = torch.ones(4, 4).tril().bool()
    if comparison == "complex":
        weights = overlap * tril / (overlap * tril).abs().sum(-1, keepdim=True)
        mixed = weights @ torch.complex(v[0, 0, :, 0], v[0, 0, :, 1])
        expected = torch.stack([mixed.real, mixed.imag, weights.real @ v[0, 0, :, 2]], -1)
    else:
        scores = overlap.abs().square() if comparison == "overlap" else overlap
        expected = (size * scores).masked_fill(~tril, -math.inf).softmax(-1) @ v[0, 0]
    found, _ = attend(*control.encode(q, k), v, {"mixed": "dot"}.get(comparison, comparison), causal=True)
    torch.testing.assert_close(found[0, 0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_the_scale_of_queries_and_keys_does_not_matter(comparison):
    head = PairHead(attention_circuit("qisa", 2), comparison, 1)
    q, k = torch.randn(2, 1, 1, 3, 4)
    for found, expected in zip(head.encode(1e-20 * q, 1e20 * k), head.encode(q, k), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    zero = head.encode(torch.zeros_like(q), k)[0]
    assert torch.isfinite(zero).all()


def test_a_vector_that_holds_nan_is_an_error_before_a_job_is_sent():
    head = PairHead(attention_circuit("qisa", 2), "overlap", 1)
    for backend in ("statevector", "aer"):
        head.to_backend(backend)
        with pytest.raises(EncodingError, match="NaN"):
            head(torch.full((1, 2, 8), torch.nan))
    with pytest.raises(EncodingError, match="vectors of length 8, got 4"):
        head(torch.zeros(1, 2, 4))


def test_pairs_compare_amplitudes_only():
    assert Pairing("overlap", "qisa").build(2, 4, 2).weight.shape == (2, 2 * 2 * 6)  # two circuits of two layers
    with pytest.raises(ConfigError, match="amplitude-encoded states, but 'zz' encodes zz"):
        Pairing("overlap", "zz").build(1, 4, None)


@pytest.mark.parametrize("kind", [*KINDS, *CONTROLS])
def test_every_parameter_is_trained_and_learns(kind):
    model = gpt(f"{kind}:2", n_layer=1)
    idx = torch.randint(7, (16, 6)).sort(-1)[0]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        losses.append(model(idx[:, :-1], idx[:, 1:])[1])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_in_multihead_attention_masked_pairs_and_padded_keys_are_no_circuits(kind):
    mha = qa.QuantumMultiheadAttention(8, 2, batch_first=True, heads=kind, add_bias_kv=True, add_zero_attn=True).eval()
    query, key = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    padding = torch.zeros(2, 4, dtype=torch.bool)
    padding[1, 2:] = True
    mask = torch.zeros(4, 3, 4, dtype=torch.bool)
    mask[:2, 0, 1:] = mask[1, 1] = True  # by head: what one head sees is a circuit for both
    expected, weights = mha(query, key, key, key_padding_mask=padding, attn_mask=mask)
    with mha.to_backend("density_matrix?noise=depolarizing&p1=0&p2=0"):
        found = mha(query, key.masked_fill(padding[..., None], torch.nan), key, padding, attn_mask=mask)
    torch.testing.assert_close(found, (expected, weights), atol=1e-5, rtol=0)
    estimator = CountingEstimator()
    with mha.to_backend(Backend("counting", estimator)):
        mha(query, key, key, key_padding_mask=padding, attn_mask=mask)
    given = (1 + 4 + 4) + 3 * 2  # keys that some head sees
    pairs = 2 * (given + 2 * 3)  # of two heads; queries see the bias too
    assert estimator.total.jobs == (1 if kind == "overlap" else 2)
    values = 0 if kind == "overlap" else 2 * (4 + 2 + 1 + 1)  # excluded ones are as one
    assert estimator.total.circuits == pairs + values


@pytest.mark.more
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["ibm:fake_manila?shots=4000&seed=3", "braket:local?shots=4000"])
def test_devices_give_the_scores_of_every_pair(kind, backend):
    model, idx = gpt(f"{kind}:1"), torch.tensor([[0, 3, 5]])
    exact, seen = model(idx)[0], []
    model.to_backend(backend)
    head = model.blocks[0].attn.scores[kind]
    head.register_forward_hook(lambda *call: seen.append((call[1][0], call[2]["expectations"])), with_kwargs=True)
    with torch.no_grad():
        logits = model(idx)[0]
    ((rows, values),) = seen
    assert rows.shape[:2] == values.shape[:2] == (1, 6)
    torch.testing.assert_close(values, head.reference()(rows).detach(), atol=0.3, rtol=0)  # noise and shots
    torch.testing.assert_close(logits, exact, atol=0.1, rtol=0)


@pytest.mark.more
def test_circuits_of_pairs_run_side_by_side():
    model, idx = gpt("overlap:1"), torch.tensor([[0, 3, 5]])
    exact = model(idx)[0]
    model.to_backend("ibm:fake_torino?shots=4000&seed=3&tiles=4")
    with torch.no_grad():
        torch.testing.assert_close(model(idx)[0], exact, atol=0.1, rtol=0)
    assert sum(model.head_backends()[0]["tiles"].values()) == 6
