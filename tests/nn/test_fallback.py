"""Chains of backends: values and gradients after a fall, and the record of it."""

import logging
import re
import warnings

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig, QuantumHead, attention_circuit, list_circuits
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError, ConfigError, EncodingError, UnknownNameError
from qiskit_qattn.nn.audit import Audit, Fall, FallbackWarning
from qiskit_qattn.nn.quadratic_form import CLASSICAL, QuadraticForm
from qiskit_qattn.simulation.estimator import TorchEstimator

pytestmark = pytest.mark.usefixtures("laboratory")


def small_head(name="qisa", heads=(2,)):
    head = QuantumHead(attention_circuit(name, 2), heads).double()
    return head, torch.randn(2, 3, head.num_features, dtype=torch.float64, requires_grad=True)


def gradients(head, x, values):
    return torch.autograd.grad(values.square().sum(), (x, head.weight, head.gain))


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", list_circuits())
def test_after_a_fall_values_and_gradients_are_the_next_links(name):
    head, x = small_head(name)
    expected = head(x)
    wanted = gradients(head, x, expected)
    head.to_backend("lab?fails=all -> statevector")
    with pytest.warns(
        FallbackWarning,
        match=r"call 1, forward pass: lab\?fails=all failed, statevector is next\. The laboratory is",
    ):
        values = head(x)
    assert_close([values], [expected])
    assert_close(gradients(head, x, values), wanted)
    assert head.audit.calls == head.audit.gradients == {"statevector": 1}
    kind = head.circuit.name
    reason = "The laboratory is closed."
    assert head.audit.falls == [Fall("", None, kind, 1, "forward", "lab?fails=all", "statevector", reason)]


def test_a_link_that_recovers_is_used_again_and_warns_once(caplog):
    head, x = small_head()
    expected = head(x)
    head.to_backend("lab?fails=2+3 -> statevector")
    x = x.detach()
    with warnings.catch_warnings(record=True) as found, torch.no_grad(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        for _ in range(4):
            torch.testing.assert_close(head(x), expected.detach())
    assert [item.category for item in found] == [FallbackWarning]
    assert head.audit.calls == {"lab?fails=2+3": 2, "statevector": 2}
    assert [fall.call for fall in head.audit.falls] == [2, 3]
    assert [re.findall(r"call (\d)", record.getMessage()) for record in caplog.records] == [["2"], ["3"]]
    assert all(record.name.startswith("qiskit_qattn.backends") for record in caplog.records)


def test_a_reason_with_other_numbers_is_no_other_reason():
    audit = Audit(None, "qisa")
    with pytest.warns(FallbackWarning) as found:
        for call, seconds in enumerate((15.85, 5.162, 6)):
            audit.fall(call, "forward", "ibm:a", "aer", BackendError(f"It would take about {seconds} s of 1 s."))
        audit.fall(3, "forward", "ibm:a", "aer", BackendError("The connection was lost."))
    assert [str(item.message).split(",")[1] for item in found] == [" call 0", " call 3"] and len(audit.falls) == 4


def test_the_backward_pass_stays_on_the_link_that_computed_the_values():
    head, x = small_head()
    wanted = gradients(head, x, head(x))
    head.to_backend("lab -> statevector")
    assert_close(gradients(head, x, head(x)), wanted)
    assert head.backend.links[0][1].estimator.runs == 2  # one job a pass
    assert head.audit.gradients == {"lab": 1} and not head.audit.falls


def test_a_backward_pass_may_fall_by_itself():
    head, x = small_head()
    wanted = gradients(head, x, head(x))
    head.to_backend("lab?fails=2 -> lab?fails=1 -> statevector")
    values = head(x)
    with pytest.warns(FallbackWarning) as found:
        assert_close(gradients(head, x, values), wanted)
    assert len(found) == 2 and "call 1, backward pass: lab?fails=2 failed, lab?fails=1 is" in str(found[0].message)
    assert (head.audit.calls, head.audit.gradients) == ({"lab?fails=2": 1}, {"statevector": 1})
    assert [(fall.during, fall.link, fall.to) for fall in head.audit.falls] == [
        ("backward", "lab?fails=2", "lab?fails=1"),
        ("backward", "lab?fails=1", "statevector"),
    ]


def test_only_what_needs_a_gradient_gets_one():
    head, x = small_head()
    head.to_backend("lab -> statevector")
    head.weight.requires_grad_(False)
    head(x.detach()).sum().backward()
    assert head.weight.grad is None and head.gain.grad is not None
    assert head.backend.links[0][1].estimator.runs == 1  # no circuit was run for a gradient
    head(x).sum().backward()
    assert head.weight.grad is None and x.grad is not None


@pytest.mark.parametrize("error", ["TransientBackendError", "JobError", "BudgetError"])
def test_every_failure_of_a_backend_falls(error):
    head, x = small_head()
    expected = head(x)
    head.to_backend(f"lab?fails=all&error={error} -> statevector")
    with pytest.warns(FallbackWarning, match="laboratory is closed"):
        assert_close([head(x)], [expected])


def test_other_errors_do_not_fall():
    head, x = small_head()
    head.to_backend("lab?fails=all&error=nothing_of_ours -> statevector")
    with pytest.raises(RuntimeError, match="closed"):
        head(x)
    head.to_backend("lab -> statevector")
    with pytest.raises(EncodingError, match="NaN"):
        head(x * torch.nan)
    assert not head.audit.falls


@pytest.mark.parametrize("text", ["lab?fails=all", "lab?fails=all -> raise", "lab?fails=all -> lab?fails=all"])
def test_a_chain_that_ends_raises(text):
    head, x = small_head()
    head.to_backend(text)
    with warnings.catch_warnings(), pytest.raises(BackendError, match="laboratory"):
        warnings.simplefilter("ignore", FallbackWarning)
        head(x)
    assert not head.audit.calls


def test_a_link_that_cannot_be_opened_falls_and_a_bad_one_is_an_error():
    head, x = small_head()
    expected = head(x)
    with pytest.raises(BackendError, match="cannot be reached"):
        head.to_backend("lab:gone")
    with pytest.raises(BackendError, match="cannot be reached"):
        head.to_backend("lab:gone -> lab:gone")
    with pytest.raises(UnknownNameError, match="statevectr"):
        head.to_backend("lab:gone -> statevectr")
    assert head.backend.name == "statevector"
    head.to_backend("lab:gone -> statevector")
    with pytest.warns(FallbackWarning, match=r"lab:gone failed, .* cannot be reached"):
        assert_close([head(x)], [expected])


def test_the_quadratic_form_is_the_circuit():
    head, x = small_head()
    x = torch.cat([x.detach(), torch.zeros(2, 1, 4)], 1).requires_grad_()  # zero is encoded as the first basis vector
    expected = head(x)
    wanted = gradients(head, x, expected)
    head.to_backend("lab?fails=all -> classical")
    with pytest.warns(FallbackWarning, match=re.escape(f"failed, {CLASSICAL} is next.")):
        values = head(x)
    assert_close([values], [expected])
    assert_close(gradients(head, x, values), wanted)
    assert head.ran_on == {CLASSICAL: 1}


@pytest.mark.parametrize("circuit", [attention_circuit("zz", 2), attention_circuit("qisa", 9, num_observables=1)])
def test_what_has_no_classical_twin_says_so(circuit):
    with pytest.raises(ConfigError, match=r"has no classical twin.*End the chain with statevector"):
        QuadraticForm(circuit)


def layer_of_two():
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=2, n_embd=8, heads="qisa:1,zz:1", num_qubits=2)
    return GPT(config).double(), torch.tensor([[1, 2, 3]])


def test_heads_of_a_layer_share_jobs_on_a_chain_fall_together_and_warn_once(caplog):
    model, idx = layer_of_two()
    expected = model(idx, idx)[1]
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    model.to_backend("lab?fails=2+3 -> statevector")
    lab = model.quantum_heads()[0][2].backend.links[0][1].estimator
    with pytest.warns(FallbackWarning) as found:
        loss = model(idx, idx)[1]
        assert_close([loss], [expected])
        assert_close(torch.autograd.grad(loss, list(model.parameters())), wanted)
        assert_close([model(idx, idx)[1]], [expected])
    assert lab.runs == 3  # forward, backward, forward: one job each
    assert [str(item.message).split(",")[:3] for item in found] == [["Layer 0", " qisa-v3 heads", " call 1"]]
    assert found[0].filename == __file__  # the line that called the model, not one of the package
    briefs = [record.brief for record in caplog.records]
    assert [" as before, statevector is next." in brief for brief in briefs] == [False, True, True, True]
    assert all("The laboratory is closed." in record.getMessage() for record in caplog.records)
    for _, kind, head in model.quantum_heads():
        assert head.audit.calls == {"lab?fails=2+3": 1, "statevector": 1}
        assert head.audit.gradients == {"statevector": 1}
        assert [(fall.kind, fall.call, fall.during) for fall in head.audit.falls] == [
            (kind, 1, "backward"),
            (kind, 2, "forward"),
        ]


def test_a_head_that_a_link_cannot_take_falls_alone():
    class NoZZ:
        """Stands for a device that one of the circuits does not fit on."""

        def run(self, circuit):
            if circuit.name == "zz":
                raise BackendError("The circuit does not fit.")
            return circuit

    model, idx = layer_of_two()
    expected = model(idx, idx)[1]
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    counting = CountingEstimator(estimator=TorchEstimator())
    links = (("small", Backend("small", counting, pass_manager=NoZZ())), ("large", Backend("large", counting)))
    model.to_backend(Place(links))
    with pytest.warns(FallbackWarning, match=r"Layer 0, zz heads, call 1, forward pass: small failed, large is next"):
        loss = model(idx, idx)[1]
    assert_close([loss], [expected])
    assert_close(torch.autograd.grad(loss, list(model.parameters())), wanted)
    audits = {kind: head.audit for _, kind, head in model.quantum_heads()}
    assert {kind: (dict(a.calls), dict(a.gradients)) for kind, a in audits.items()} == {
        "qisa-v3": ({"small": 1}, {"small": 1}),
        "zz": ({"large": 1}, {"large": 1}),
    }
    assert not audits["qisa-v3"].falls and counting.total.jobs == 4


def test_an_empty_batch_passes_a_chain():
    head, _ = small_head("zz")
    values = head.to_backend("lab -> statevector")(torch.randn(2, 0, 2, dtype=torch.float64))
    assert values.shape == (2, 0, len(head.circuit.labels))
    values.sum().backward()
    assert not head.weight.grad.any()
