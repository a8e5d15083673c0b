"""Two devices of services on the loopback share a layer's rows: paid once, by budgets of their own, in any order."""

import gc
import re
import threading
import time

import pytest
import torch
from typer.testing import CliRunner

import qiskit_qattn as qa
from qiskit_qattn.backends.jobs import runner
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.place import Place, wait_until_closed
from qiskit_qattn.cli.app import app
from qiskit_qattn.errors import BackendError, BudgetError, ConfigError
from qiskit_qattn.nn.audit import FallbackWarning

from .ibm_faults import ApiError, Fault

SHORT = "optimization=1&resilience=0&retries=0&shots=100"
MANILA, NAIROBI = (f"ibm:test_{name}?budget=60s&{SHORT}" for name in ("manila", "nairobi"))
GARNET = "braket:test-garnet?budget=5usd&retries=0&s3=results/here&shots=100"
BY_TIME = GARNET.replace("5usd", "60s")
GROUP = f"{MANILA} + {NAIROBI}"


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch):
    """Poll often, and close the sessions of a test before the next begins."""
    monkeypatch.setattr(runner, "LONGEST_POLL", 0.1)
    yield
    gc.collect()
    wait_until_closed()


def inputs(rows=12):
    return torch.rand(rows, 2, generator=torch.Generator().manual_seed(3))


def head_on(backend, device=None):
    torch.manual_seed(5)
    return qa.QuantumHead(qa.attention_circuit("angle", 2)).to_backend(backend)


def sent(server):
    return [job.backend for job in server.jobs.values()]


# who computes what


def test_each_device_has_its_rows_ledger_entry_and_label(ibm_server):
    head = head_on(GROUP)
    values = head(inputs())
    assert sorted(sent(ibm_server)) == ["test_manila", "test_nairobi"]
    assert {row.device for row in Ledger().rows()} == {"ibm:test_manila", "ibm:test_nairobi"}
    assert head.ran_on == {GROUP: 1} and len(head.audit.row_labels) == 12
    exact = head_on("statevector")(inputs())
    assert (values - exact).abs().max() < 0.6 * head.gain.max()  # noisy devices
    for estimator_ in (each.estimator for each in head.backend.backends):
        assert estimator_.jobs_sent == 1 and estimator_.spent.seconds > 0


@pytest.mark.more
def test_the_less_busy_device_computes_more(ibm_server):
    with torch.no_grad():
        head = head_on(GROUP)
        head(inputs(80))
    assert head.audit.rows[NAIROBI] > 1.5 * head.audit.rows[MANILA] > 0  # 3 jobs wait there, and 12 here


@pytest.mark.more
def test_devices_of_two_providers_share_the_work(ibm_server, aws, rng):
    head = head_on(f"{NAIROBI} + {GARNET}")
    head(inputs(16))
    assert {row.device for row in Ledger().rows()} == {"ibm:test_nairobi", "braket:Test Garnet"}
    assert set(head.audit.rows) == {NAIROBI, GARNET}
    spent = [each.estimator.spent for each in head.backend.backends]
    assert spent[0].seconds > 0 and spent[1].usd > 0


@pytest.mark.more
def test_gradients_stay_on_the_devices_of_the_values(ibm_server):
    head = head_on(GROUP)
    x = inputs(4).requires_grad_()
    head(x).sum().backward()
    assert sorted(sent(ibm_server)) == ["test_manila"] * 2 + ["test_nairobi"] * 2
    assert head.audit.gradients == head.audit.calls and x.grad.isfinite().all()


@pytest.mark.parametrize("first", ["test_nairobi", pytest.param("test_manila", marks=pytest.mark.more)])
def test_the_order_of_answers_does_not_matter(ibm_server, first, monkeypatch, tmp_path):
    """The values of both orders are the same to the bit, and both jobs wait at the same time."""
    found = []
    for order in (None, first):
        monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / f"{order}.sqlite"))
        ibm_server.state.jobs.clear()
        if order is not None:
            ibm_server.hold()
            thread = threading.Thread(target=release_in_order, args=(ibm_server, order))
            thread.start()
        head = head_on(GROUP)
        found.append((head(inputs()).detach(), head.audit.row_labels))
        if order is not None:
            thread.join()
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def release_in_order(server, first):
    """Run the jobs once both are there, that of one device half a second before the other."""
    while len(server.jobs) < 2:
        time.sleep(0.02)
    with server.lock:
        for job in server.jobs.values():
            if job.backend == first:
                job.run(server.state.devices.find(job.backend))
    time.sleep(0.5)
    server.release()


# paid once


def test_a_second_run_sends_nothing_even_if_the_queues_have_changed(ibm_server):
    head = head_on(GROUP)
    values, labels = head(inputs()), head.audit.row_labels
    ibm_server.state.devices.queues.update(test_manila=0, test_nairobi=90)
    again = head_on(GROUP.replace("60s", "70s"))
    assert torch.equal(again(inputs()), values)
    assert [label.replace("70s", "60s") for label in again.audit.row_labels] == labels
    assert len(ibm_server.jobs) == 2
    other = head_on(GROUP)
    other(inputs() + 0.01)
    assert other.audit.rows[MANILA] > other.audit.rows[NAIROBI]


def test_the_share_of_a_device_that_refuses_goes_to_the_other_and_stays_there(ibm_server):
    ibm_server.faults.append(Fault("POST /jobs", error=ApiError(400, 1000, "Not today.")))  # the first is Manila's
    head = head_on(GROUP)
    with pytest.warns(FallbackWarning, match="test_manila.* failed, ibm:test_nairobi.* is next"):
        values = head(inputs())
    assert sent(ibm_server) == ["test_nairobi"] * 2
    assert head.ran_on == {NAIROBI: 1} and set(head.audit.row_labels) == {NAIROBI}
    again = head_on(GROUP)
    assert torch.equal(again(inputs()), values) and set(again.audit.row_labels) == {NAIROBI}
    assert len(ibm_server.jobs) == 2  # nothing was paid for again


@pytest.mark.more
def test_a_budget_that_is_used_up_leaves_the_other_devices(ibm_server):
    head = head_on(f"{MANILA.replace('60s', '0.1s')} + {NAIROBI} -> statevector")
    with pytest.warns(FallbackWarning, match=r"test_manila.* failed, .* would pass the budget of 0\.1s"):
        head(inputs())
    assert sent(ibm_server) == ["test_nairobi"] * 2
    both = head_on(f"{MANILA.replace('60s', '0.1s')} + {NAIROBI.replace('60s', '0.1s')}")
    with pytest.warns(FallbackWarning), pytest.raises(BudgetError, match="would pass the budget"):
        both(inputs() + 1)
    assert len(ibm_server.jobs) == 2


def test_a_share_whose_job_is_on_its_way_is_not_sent_to_another_device(ibm_server):
    ibm_server.hold()
    head = head_on(GROUP.replace("shots", "timeout=1&shots"))
    with pytest.raises(BackendError, match="has not ended after 1 s"):
        head(inputs())
    assert sorted(sent(ibm_server)) == ["test_manila", "test_nairobi"]
    chain = head_on(f"{GROUP.replace('shots', 'timeout=1&shots')} -> statevector")
    with pytest.warns(FallbackWarning):
        chain(inputs())
    assert chain.ran_on == {"statevector": 1} and len(ibm_server.jobs) == 2
    ibm_server.release()
    head_on(GROUP)(inputs())
    assert len(ibm_server.jobs) == 2  # picked up


@pytest.mark.more
def test_an_answer_that_is_lost_is_found_by_its_tag(ibm_server):
    ibm_server.drop("POST /jobs", "after")
    head_on(GROUP.replace("retries=0", "retries=2"))(inputs())
    assert sorted(sent(ibm_server)) == ["test_manila", "test_nairobi"]


# opening, closing, estimating


@pytest.mark.more
def test_sessions_of_both_are_opened_and_closed(ibm_server):
    model = qa.GPT(qa.GPTConfig(11, 8, 1, 1, 4, heads="angle:1", num_qubits=2))
    text = GROUP.replace("?", "?mode=session&")
    with model.to_backend(text):
        model.generate(torch.tensor([[1, 2, 3, 4, 5]]), 1, temperature=0.0)
        states = [session.state for session in ibm_server.state.sessions.values()]
        assert states == ["active", "active"]
    assert {session.state for session in ibm_server.state.sessions.values()} == {"closed"}


@pytest.mark.parametrize(
    "text", ["ibm:test_nairobi?budget=60s + ibm:least_busy?budget=60s", f"{GARNET} + braket:TEST-garnet?budget=1usd"]
)
def test_the_same_device_twice_is_an_error(ibm_server, aws, text):
    with pytest.raises(ConfigError, match=r"is in the group .* more than once; name each device once"):
        Place.open(text)


@pytest.mark.parametrize(
    "text", [f"{NAIROBI} + {GARNET.replace('5usd', '60s')}", f"{GARNET.replace('5usd', '60s')} + {NAIROBI}"]
)
def test_a_budget_in_a_unit_that_limits_nothing_is_an_error(ibm_server, aws, text):
    head = head_on(f"{text} -> statevector")
    with pytest.raises(ConfigError, match=r"^braket:Test Garnet is not paid by the second, .*budget=5usd\.$") as found:
        head(inputs())
    assert "\n" not in str(found.value) and not ibm_server.jobs and not aws.tasks


def test_mixed_units_in_one_budget_are_an_error(ibm_server):
    with pytest.raises(ConfigError, match="A budget is seconds on the processor or US dollars"):
        Place.open(f"{MANILA} + {NAIROBI.replace('60s', '60s+5usd')}")


@pytest.mark.more
def test_commands_tell_each_devices_share(ibm_server, tmp_path, monkeypatch):
    from qiskit_qattn.training.tokenizer import CharTokenizer

    monkeypatch.setenv("COLUMNS", "250")
    tokenizer = CharTokenizer("\nabc")
    qa.GPT(qa.GPTConfig(tokenizer.vocab_size, 8, 1, 1, 4, heads="angle:1", num_qubits=2)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    arguments = [str(tmp_path), "--backend", f"{GROUP} -> statevector", "--tokens", "2", "--prompt", "abcab"]
    estimate = CliRunner().invoke(app, ["estimate", *arguments])
    assert estimate.exit_code == 0, estimate.output
    assert "2 devices at once, each with its share" in estimate.output
    assert all(name in estimate.output for name in (MANILA, NAIROBI))
    assert not ibm_server.jobs
    generate = CliRunner().invoke(app, ["generate", *arguments])
    assert generate.exit_code == 0, generate.output
    assert re.search(r"ibm:test_manila: jobs sent: \d", generate.output)
    assert re.search(r"ibm:test_nairobi: jobs sent: \d", generate.output)
