"""A watched generation: it is the model's own, and every value has its exact twin and its error bar."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qiskit_qattn.evaluation.device_run.trace import SAMPLES, exact_run, sampled_runs, traced
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.generation import steps
from qiskit_qattn.nn.gpt import GPT

PROMPT = torch.tensor([[1, 2, 3]])
OPTIONS = {"temperature": 0.8, "top_k": 6, "seed": 3}


def model_of(heads="qisa:1,classical:1", layers=2):
    return GPT(GPTConfig(11, 8, layers, 2, 8, heads=heads, num_qubits=3))


def test_the_text_is_that_of_the_model_on_the_same_backend():
    model = model_of()
    with model.to_backend("statevector?shots=200&seed=5"):
        trace = traced(model, PROMPT, 9, **OPTIONS)  # longer than the context
    with model.to_backend("statevector?shots=200&seed=5"):
        text = model.generate(PROMPT, 9, **OPTIONS)
    assert trace.tokens == text[0, 3:].tolist() and len(trace.logits) == len(trace.passes) == 9


def test_hooks_are_gone_after_it():
    model = model_of()
    with model.to_backend("density_matrix?noise=depolarizing&p1=0&p2=0"):
        traced(model, PROMPT, 1, **OPTIONS)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("heads", ["qisa:2", "qsann:1,classical:1", "angle:1,frozen:1", "overlap:2"])
def test_a_backend_without_noise_returns_the_exact_values(heads):
    model = model_of(heads, layers=1)
    with model.to_backend("density_matrix?noise=depolarizing&p1=0&p2=0"):
        trace = traced(model, PROMPT, 2, **OPTIONS)
    found = [each for one in trace.passes for each in one]
    kinds = {kind for _, kind, _ in model.quantum_heads()}
    assert {each.kind for each in found} == kinds and len(found) == 2 * len(kinds)
    for each in found:
        assert each.values.shape == each.exact.shape == each.errors.shape
        assert each.values == pytest.approx(each.exact, abs=2e-6)
        assert not each.errors.any()


def test_error_bars_are_those_of_the_values_they_stand_by():
    """Differences in units of their error bars have unit spread, in repeated rows and shared jobs too."""
    model = model_of("qisa:1,angle:1")
    ratios = []
    for seed in range(6):
        with model.to_backend(f"statevector?shots=400&seed={seed}"):
            trace = traced(model, torch.tensor([[1, 1, 2, 1]]), 4, **OPTIONS)  # a token twice
        for each in (each for one in trace.passes for each in one):
            assert each.errors.shape == each.values.shape and (each.errors > 0).all()
            ratios.append(((each.values - each.exact) / each.errors).ravel())
    ratios = np.concatenate(ratios)
    assert abs(ratios.mean()) < 0.2 and ratios.std() == pytest.approx(1, abs=0.15)


def test_what_each_job_was_is_kept():
    pytest.importorskip("qiskit_ibm_runtime")
    model = model_of(layers=1)
    with model.to_backend("ibm:fake_manila?shots=64&seed=1&resilience=0"):
        trace = traced(model, PROMPT, 3, **OPTIONS)
    assert {item["device"] for item in trace.metadata} == {"ibm:fake_manila"}
    assert len({item["job_id"] for item in trace.metadata}) == 3
    assert [program.estimator.device.name for program in trace.programs.values()] == ["ibm:fake_manila"]


def test_devices_that_share_rows_give_each_row_its_own_error_bar():
    model = model_of(layers=1)
    with model.to_backend("statevector?shots=100&seed=1 + aer?shots=10000&seed=1"):
        trace = traced(model, torch.tensor([[1, 2, 3, 4, 5, 6]]), 2, **OPTIONS)
    errors = np.concatenate([each.errors.max(-1).ravel() for one in trace.passes for each in one])
    assert ((errors > 0.03) ^ (errors < 0.012)).all()  # of 100 shots or of 10,000, none left out


def test_the_exact_engine_draws_the_same_after_its_own_text():
    model = model_of()
    text = model.generate(PROMPT, 10, **OPTIONS)[:, 3:]
    drawn, logits = exact_run(model, PROMPT, text, **OPTIONS)
    assert drawn == text[0].tolist() and logits.shape == (10, 11)


def test_forced_tokens_are_what_the_text_goes_on_with():
    model = model_of(layers=1)
    forced = torch.randint(11, (1, 12))
    with_cache, without = (list(steps(model, PROMPT, 12, seed=2, use_cache=c, forced=forced)) for c in (True, False))
    for (one, logits), (other, others) in zip(with_cache, without, strict=True):
        assert torch.equal(one, other) and torch.allclose(logits, others, atol=1e-5)
    model.eval()
    with torch.no_grad():
        expected = model(torch.cat([PROMPT, forced[:, :5]], 1))[0]  # (1, 8, 11)
    found = torch.stack([logits for _, logits in with_cache[:6]], 1)
    assert torch.allclose(found, expected[:, 2:], atol=1e-5)


def test_more_shots_come_closer_to_the_exact_text():
    model, text = model_of(), torch.randint(11, (1, 4))
    _, exact = exact_run(model, PROMPT, text)
    few, many = (sampled_runs(model, PROMPT, text, shots=shots, seed=1) for shots in (20, 2000))
    assert few.shape == (4, SAMPLES, 11)
    ratio = (few - exact[:, None]).std() / (many - exact[:, None]).std()
    assert ratio == pytest.approx(10, rel=0.4)
