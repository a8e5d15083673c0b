"""Models on several devices at once: values, gradients, labels, falls and causality."""

import copy
import warnings

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig, QuantumHead, attention_circuit, estimate, leakage
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.several import Group
from qiskit_qattn.errors import BackendError, ConfigError
from qiskit_qattn.nn.audit import Fall, FallbackWarning
from qiskit_qattn.simulation.estimator import TorchEstimator

pytestmark = pytest.mark.usefixtures("laboratory")
PAIR = "lab?fails=99 + lab?fails=98"


def small_head(name="qisa", heads=(2,), rows=24):
    head = QuantumHead(attention_circuit(name, 2), heads).double()
    return head, torch.randn(*heads, rows, head.num_features, dtype=torch.float64, requires_grad=True)


def small_model(heads="qisa:1,angle:1"):
    torch.manual_seed(1)
    return GPT(GPTConfig(11, 8, 1, 2, 8, heads=heads, num_qubits=2)).double()


def gradients(head, x, values):
    return torch.autograd.grad(values.square().sum(), (x, head.weight, head.gain))


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def labs(head, link=0):
    return [each.estimator for each in head.backend.links[link][1].backends]


@pytest.mark.parametrize("name", ["qisa", pytest.param("angle", marks=pytest.mark.more), "zz"])
@pytest.mark.parametrize("heads", [pytest.param((), marks=pytest.mark.more), (2,)])
@pytest.mark.parametrize("text", [PAIR, "statevector + density_matrix", "lab + statevector + lab?fails=9"])
def test_values_and_gradients_are_those_of_one_device(name, heads, text):
    head, x = small_head(name, heads)
    expected = head(x)
    wanted = gradients(head, x, expected)
    head.to_backend(text)
    values = head(x)
    assert values.shape == expected.shape
    assert_close([values], [expected])
    assert_close(gradients(head, x, values), wanted)
    assert head.audit.calls == head.audit.gradients == {text: 1} and not head.audit.falls
    assert sum(head.audit.rows.values()) == len(head.audit.row_labels) == values.shape[:-1].numel()
    assert set(head.audit.rows) == set(text.split(" + "))


def test_each_device_gets_one_job_a_pass_with_the_rows_of_all_heads():
    model, idx = small_model().to_backend(PAIR), torch.randint(11, (2, 8))
    model(idx, idx)[1].backward()
    head = model.quantum_heads()[0][2]
    assert [lab.runs for lab in labs(head)] == [2, 2]
    found = model.audit()
    assert found["calls"] == found["gradients"] == {PAIR: 2}
    for row in found["heads"]:
        labels = [row["devices"][device] for device in row["last_rows"]]
        assert set(row["rows"]) == set(labels) == set(PAIR.split(" + "))
        assert row["rows"] == {name: labels.count(name) for name in row["devices"]}
    assert {row["backend"] for row in model.head_backends()} == {PAIR}


def test_one_row_is_computed_by_one_device_whose_name_is_its_label():
    head, x = small_head(heads=(), rows=6)
    head.to_backend(PAIR)
    names = [name for row in x.detach() for name in (head(row[None]), head.audit.row_labels)[1]]
    head(x.detach())
    assert head.audit.row_labels == names and len(set(names)) == 2  # alone or beside others
    assert {name: head.audit.calls[name] for name in set(names)} == {name: names.count(name) for name in set(names)}


def test_equal_rows_have_one_device():
    head, x = small_head(heads=(), rows=5)
    head.to_backend(PAIR)
    head(x.detach().repeat(3, 1))
    assert head.audit.row_labels == head.audit.row_labels[:5] * 3


def test_an_empty_call():
    head, _ = small_head(heads=(), rows=0)
    head.to_backend(PAIR)
    assert head(torch.zeros(0, head.num_features, dtype=torch.float64)).shape == (0, len(head.circuit.observables))
    assert sum(lab.runs for lab in labs(head)) == 0


# falls


def test_a_share_goes_to_the_next_device_of_the_group():
    head, x = small_head(heads=())
    expected = head(x)
    wanted = gradients(head, x, expected)
    head.to_backend("lab?fails=all + lab -> statevector")
    with pytest.warns(FallbackWarning, match=r"call 1, forward pass: lab\?fails=all failed, lab is next"):
        values = head(x)
    assert_close([values], [expected])
    assert_close(gradients(head, x, values), wanted)
    assert head.audit.falls == [
        Fall("", None, "qisa-v3", 1, "forward", "lab?fails=all", "lab", "The laboratory is closed.")
    ]
    assert head.audit.calls == head.audit.gradients == {"lab": 1} and set(head.audit.row_labels) == {"lab"}


def test_when_all_devices_of_a_group_fail_the_next_link_computes():
    head, x = small_head(heads=())
    expected = head(x)
    head.to_backend("lab?fails=all + lab?fails=1+2 -> statevector")
    with pytest.warns(FallbackWarning):
        assert_close([head(x)], [expected])
    assert head.audit.calls == {"statevector": 1}
    last = head.audit.falls[-1]
    assert (last.link, last.to) == ("lab?fails=all + lab?fails=1+2", "statevector")
    head.to_backend("lab?fails=all + lab?fails=1+2")
    with pytest.raises(BackendError, match="laboratory"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        head(x)


def test_a_backward_pass_stays_on_its_devices_or_goes_to_the_next_link():
    head, x = small_head(heads=())
    wanted = gradients(head, x, head(x))
    head.to_backend("lab?fails=2 + lab -> statevector")
    values = head(x)
    with pytest.warns(FallbackWarning, match="backward pass"):
        assert_close(gradients(head, x, values), wanted)
    assert head.audit.calls == {"lab?fails=2 + lab": 1} and head.audit.gradients == {"statevector": 1}


def test_a_device_that_cannot_be_opened_leaves_its_share_to_the_others():
    head, x = small_head(heads=())
    expected = head(x)
    head.to_backend("lab:gone + lab")
    with pytest.warns(FallbackWarning, match="lab:gone failed, lab is next.*cannot be reached"):
        assert_close([head(x)], [expected])
    assert head.audit.calls == {"lab": 1}
    with pytest.raises(BackendError, match="cannot be reached"):
        head.to_backend("lab:gone + lab:gone2")


def test_a_circuit_that_a_device_does_not_take_is_computed_by_another():
    class Small:
        """A pass manager of a device that takes no circuit."""

        def run(self, circuit):
            raise BackendError("It has 1 qubit.")

    small = Backend("small", TorchEstimator(), pass_manager=Small())
    large = Backend("large", TorchEstimator())
    head, x = small_head(heads=())
    expected = head(x)
    head.to_backend(Place(((("small + large"), Group((("small", small), ("large", large)))),)))
    with pytest.warns(FallbackWarning, match="small failed, large is next. It has 1 qubit"):
        assert_close([head(x)], [expected])
    assert head.audit.calls == {"large": 1}


def test_errors_of_the_model_do_not_fall():
    head, x = small_head(heads=())
    head.to_backend("lab?fails=all&error=nothing_of_ours + lab -> statevector")
    with pytest.raises(RuntimeError, match="closed"):
        head(x)
    head.to_backend(PAIR)
    with pytest.raises(ConfigError, match=r"torch\.func"):
        torch.func.grad(lambda values: head(values).sum())(x.detach())


# moving


def test_sessions_of_all_devices_are_closed():
    model, idx = small_model(), torch.randint(11, (2, 8))
    with model.to_backend(f"{PAIR} -> lab"):
        devices = [lab.device for lab in labs(model.quantum_heads()[0][2])]
        model(idx)
        assert [device.closed for device in devices] == [0, 0]
    assert [device.closed for device in devices] == [1, 1]


def test_copies_share_jobs_among_themselves():
    model, idx = small_model().to_backend(PAIR), torch.randint(11, (2, 8))
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(idx)[0], model(idx)[0])
    assert twin.audit()["calls"] == model.audit()["calls"] == {PAIR: 2}


def test_generation_runs_on_a_group():
    model = small_model()
    prompt = torch.tensor([[1, 2, 3]])
    expected = model.generate(prompt, 6, temperature=0.0)
    model.to_backend(PAIR)
    assert torch.equal(model.generate(prompt, 6, temperature=0.0), expected)
    assert sum(len(name.split(" + ")) == 1 for name in model.audit()["calls"]) > 0


def test_the_estimate_counts_each_devices_share():
    model, idx = small_model(), torch.randint(11, (2, 8))
    model.to_backend("aer?shots=10")
    found = estimate(model, idx, "aer?shots=10&dedupe=off + statevector?shots=20&dedupe=off")
    alone = estimate(model, idx, "aer?shots=10&dedupe=off").total
    first, second = found.devices.values()
    assert list(found.devices) == ["aer?dedupe=off&shots=10", "statevector?dedupe=off&shots=20"]
    assert first.total.circuits + second.total.circuits == found.total.circuits == alone.circuits
    assert first.total.circuits > 0 and second.total.shots == 20 * second.total.circuits > 0
    assert found.total.jobs == 2 and not estimate(model, idx, "aer?shots=10 -> statevector").devices


# causality and statistics


@pytest.mark.parametrize("heads", ["qisa:1,classical:1", pytest.param("angle:2", marks=pytest.mark.more)])
@pytest.mark.parametrize("text", [PAIR, "statevector + density_matrix?noise=depolarizing&p1=0.05&p2=0.1"])
def test_no_output_depends_on_a_later_token(heads, text):
    model = small_model(heads).to_backend(text)
    assert float(leakage(model)) == 0


def test_a_later_token_changes_no_earlier_device():
    model = small_model("qisa:1,classical:1").to_backend(PAIR)
    head = model.quantum_heads()[0][2]
    first = torch.randint(11, (1, 8))
    labels = []
    for token in range(11):
        model(torch.cat([first[:, :5], torch.full((1, 3), token)], -1))
        labels.append(head.audit.row_labels[:5])
    assert all(each == labels[0] for each in labels)


def test_sampled_values_agree_with_exact_ones():
    head, x = small_head(heads=(), rows=500)
    exact = head(x).detach()
    shots = 400
    head.to_backend(f"statevector?shots={shots}&seed=1 + density_matrix?shots={shots}&seed=2")
    errors = (head(x.detach()) - exact) / head.gain
    spread = (1 - (exact / head.gain) ** 2).clamp_min(0).sqrt() / shots**0.5
    assert (errors.abs() <= 5 * spread + 1e-3).all()
    assert len(set(head.audit.row_labels)) == 2


def test_a_trace_has_the_errors_of_every_row():
    from qiskit_qattn.evaluation.device_run.trace import traced

    torch.manual_seed(1)
    model = GPT(GPTConfig(11, 8, 1, 2, 8, heads="qisa:1,angle:1", num_qubits=2))
    model.to_backend("statevector?shots=100&seed=1 + density_matrix?shots=100&seed=2")
    trace = traced(model, torch.tensor([[1, 2, 3, 4]]), 2, temperature=0.0)
    for each in (values for some in trace.passes for values in some):
        assert each.errors.shape == each.values.shape and (each.errors > 0).any()
        ratios = (each.values - each.exact) / each.errors.clip(0.03)
        assert abs(ratios).max() < 5
    assert len(trace.programs) == 4  # of two heads on two devices


def test_two_shares_of_one_device():
    """What was to be computed on the first device is a job of its own on the second."""
    head, x = small_head(heads=())
    head.to_backend("lab?fails=all + statevector?shots=50&seed=1&dedupe=off")
    with pytest.warns(FallbackWarning):
        values = head(x.detach())
    program = next(part for part in head.execution.program.modules() if type(part).__name__ == "SharedProgram")
    assert program.answer.errors.shape == values.shape and values.isfinite().all()


@pytest.mark.more
@pytest.mark.parametrize("name", ["qisa", "angle", "zz", "qsann"])
def test_snapshots_agree_with_the_exact_engine_within_five_standard_errors(name):
    pytest.importorskip("qiskit_ibm_runtime")
    head = QuantumHead(attention_circuit(name, 2)).double()
    x = torch.randn(40, head.num_features, dtype=torch.float64)
    exact = (head(x) / head.gain).detach()
    head.to_backend(
        "ibm:fake_manila?noise=off&resilience=0&precision=0.05&seed=1 + "
        "ibm:fake_nairobi?noise=off&resilience=0&precision=0.04&seed=2"
    )
    errors = ((head(x) / head.gain).detach() - exact).abs()
    assert (errors < 5 * 0.05).all() and errors.square().mean().sqrt() < 0.05
    assert len(head.audit.rows) == 2


@pytest.mark.more
def test_tiles_on_a_group():
    pytest.importorskip("qiskit_ibm_runtime")
    head = QuantumHead(attention_circuit("angle", 2)).double()
    x = torch.randn(40, head.num_features, dtype=torch.float64)
    exact = (head(x) / head.gain).detach()
    names = ("ibm:fake_manila", "ibm:fake_nairobi")
    head.to_backend(" + ".join(f"{name}?noise=off&resilience=0&shots=400&seed=1&tiles=auto" for name in names))
    errors = ((head(x) / head.gain).detach() - exact).abs()
    assert (errors < 5 * 0.05).all() and len(head.audit.rows) == 2
