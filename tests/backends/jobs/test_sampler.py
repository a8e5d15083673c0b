"""A sampler over a device: its jobs in the same ledger and budget as the estimator's, paid once, and found again."""

import copy
import json

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import Statevector
from scipy.stats import chisquare

from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.client import resume
from qiskit_qattn.backends.jobs.device import Bits
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.request import Request, pack_values, unpack_values
from qiskit_qattn.backends.jobs.sampler import ManagedSampler
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.errors import BackendError, BudgetError, ConfigError, JobError

from .disk_client import small_pubs, small_samples, start
from .disk_device import DiskDevice
from .on_disk import estimator_of, states

pytestmark = pytest.mark.usefixtures("short_waits")
SHOTS = 500


def sampler_of(device, ledger, *, dedupe=True, **options):
    return ManagedSampler(estimator_of(device, ledger, **options), shots=SHOTS, dedupe=dedupe)


def test_a_run_is_one_job_and_its_samples_are_stored(device, ledger):
    sampler = sampler_of(device, ledger)
    first = sampler.run(small_samples()).result()
    wanted = StatevectorSampler().run(small_samples(), shots=SHOTS).result()
    for pub, right in zip(first, wanted, strict=True):
        assert list(pub.data) == list(right.data) and pub.data.shape == right.data.shape
        for name in right.data:
            assert pub.data[name].num_bits == right.data[name].num_bits
            assert pub.data[name].array.shape == right.data[name].array.shape
    circuit = small_samples()[0][0]
    state = Statevector(circuit.remove_final_measurements(inplace=False).assign_parameters([-0.7, 1.5]))
    counts = first[0].join_data(["first", "second"]).get_int_counts((0, 1))
    found = [counts.get(outcome, 0) for outcome in (0, 1, 1 << 9, 1 | 1 << 9)]
    assert chisquare(found, state.probabilities() * SHOTS).pvalue > 1e-3
    about = {"job_id": "job-1", "cached": False, "shots": SHOTS, "device": device.name}
    assert about.items() <= first[1].metadata.items()
    again = sampler_of(device, ledger)
    second = again.run(small_samples()).result()
    np.testing.assert_array_equal(second[0].data.second.array, first[0].data.second.array)
    assert second[0].metadata["cached"] and second[0].metadata["job_id"] == "job-1"
    assert (sampler.runner.jobs_sent, again.runner.jobs_sent, again.runner.jobs_cached) == (1, 0, 1)
    assert len(device.jobs) == 1 and copy.deepcopy(sampler) is sampler


def test_equal_rows_are_sent_once_and_split_again(device, ledger):
    shared = sampler_of(device, ledger)
    assert [pub.shape for pub in shared.request(small_samples()).pubs] == [(3,)]
    result = shared.run(small_samples()).result()
    bits = result[0].data.first
    np.testing.assert_array_equal(bits[0, 0].array, bits[1, 0].array)
    np.testing.assert_array_equal(bits[0, 0].array, result[1].data.first.array)
    apart = sampler_of(device, ledger, dedupe=False)
    assert [pub.shape for pub in apart.request(small_samples()).pubs] == [(5,)]
    fixed = QuantumCircuit(1)
    fixed.measure_all()
    assert [pub.shape for pub in apart.request([fixed, fixed]).pubs] == [(), ()]


def test_no_rows_have_an_empty_result_each_and_no_job(device, ledger):
    sampler, (circuit, _) = sampler_of(device, ledger), small_samples()[0]
    result = sampler.run([(circuit, np.zeros((0, 2))), (circuit, np.zeros((2, 0, 2)))]).result()
    assert [pub.data.shape for pub in result] == [(0,), (2, 0)]
    assert [pub.data.second.num_bits for pub in result] == [9, 9]
    assert sampler.run([]).result()[:] == [] and not device.jobs and not states(ledger)


def test_a_job_that_returns_nothing_is_not_sent(device, ledger):
    with pytest.raises(ConfigError, match=f"no classical register, so that a job on {device.name} would be paid for"):
        sampler_of(device, ledger).run([small_samples()[0], QuantumCircuit(1)])
    assert not device.jobs and not states(ledger)


def test_what_differs_is_sent(device, ledger):
    sampler = sampler_of(device, ledger)
    other, renamed = small_samples(), small_samples()[0][0].copy_empty_like()
    circuit = QuantumCircuit(renamed.qubits, renamed.clbits)
    circuit.compose(other[0][0], inplace=True)
    circuit.add_register(*[type(each)(bits=list(each), name=f"{each.name}_") for each in renamed.cregs])
    for pubs, shots in [
        (small_samples(), None),
        (small_samples(0.4), None),
        (small_samples(), 100),
        (small_samples()[1:], None),
        ([(circuit, other[1][1])], None),
    ]:
        sampler.run(pubs, shots=shots).result()
    sampler.runner.run(small_pubs()).result()
    assert len(device.jobs) == 6 == len({row.key for row in ledger.rows()})
    assert len(sampler.run([]).result()) == 0


def test_estimator_and_sampler_share_a_budget(device, ledger):
    estimator = ManagedEstimator(device, ledger=ledger, precision=0.1, budget=Budget.parse("5s"))
    sampler = ManagedSampler(estimator, shots=SHOTS)
    estimator.run(small_pubs()).result()
    sampler.run(small_samples()).result()
    assert estimator.spent.seconds == 4.0 and estimator.jobs_sent == 2
    for run in (lambda: sampler.run(small_samples(1.0)), lambda: estimator.run(small_pubs(1.0))):
        with pytest.raises(BudgetError, match="would pass the budget of 5s"):
            run()
    assert len(device.jobs) == 2


def test_a_paid_device_without_a_budget_gets_nothing(tmp_path, ledger):
    device = DiskDevice(tmp_path / "paid", name="disk:paid-sampler", paid=True)
    with pytest.raises(BudgetError, match="nothing was sent"):
        sampler_of(device, ledger).run(small_samples())
    assert device.jobs == [] and ledger.rows() == []


def test_a_job_has_one_number_of_shots(device, ledger):
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    with pytest.raises(ConfigError, match=r"one number of shots, got \[5, 7\]"):
        sampler_of(device, ledger).run([(circuit, None, 5), (circuit, None, 7)])


def test_a_job_that_fails_is_told_and_sent_again(device, ledger):
    device.free("failed")
    with pytest.raises(JobError, match="the qubits melted"):
        sampler_of(device, ledger).run(small_samples()).result()
    device.free()
    assert sampler_of(device, ledger).run(small_samples()).result()[0].metadata["job_id"] == "job-2"


def test_jobs_resume_fetches_samples(device, ledger):
    device.hold()
    job = sampler_of(device, ledger).run(small_samples())
    device.free()
    assert resume(ledger, ledger.rows()[0], device).state == "done"
    assert job.result()[0].data.first.num_shots == SHOTS
    assert states(ledger) == ["done"]


@pytest.mark.parametrize("wrong", ["fewer", "names", "values"])
def test_samples_of_something_else_are_not_taken(device, ledger, wrong, monkeypatch):
    right = DiskDevice.result

    def result(self, job_id, pubs):
        found = right(self, job_id, pubs)
        if wrong == "fewer":
            return [Bits({name: bits.slice_shots(range(3)) for name, bits in item.registers.items()}) for item in found]
        if wrong == "names":
            return [Bits({f"{name}s": bits for name, bits in item.registers.items()}) for item in found]
        return found[:0]

    monkeypatch.setattr(DiskDevice, "result", result)
    sampler = sampler_of(device, ledger, retries=0)
    with pytest.raises(BackendError, match="It may be paid for, and the ledger keeps it"):
        sampler.run(small_samples()).result()
    assert states(ledger) == ["sent"]
    monkeypatch.setattr(DiskDevice, "result", right)
    assert sampler.run(small_samples()).result()[0].metadata["job_id"] == "job-1"


def test_a_request_and_its_samples_are_packed_and_read_back(device, ledger):
    request = sampler_of(device, ledger).request(small_samples())
    again = Request.unpack(request.pack())
    assert again.key == request.key and again.shots == SHOTS and again.pubs[0].shots == SHOTS
    assert precision_of(SHOTS) == again.precision
    result = StatevectorSampler().run(list(request.pubs)).result()
    bits = [Bits(dict(item.data.items())) for item in result]
    for one, other in zip(bits, unpack_values(pack_values(bits)), strict=True):
        assert list(one.registers) == list(other.registers)
        for name, array in one.registers.items():
            assert other.registers[name].num_bits == array.num_bits
            np.testing.assert_array_equal(other.registers[name].array, array.array)
    for damaged in (b"", pack_values(bits)[:-30]):
        with pytest.raises(ValueError):
            unpack_values(damaged)


@pytest.mark.parametrize(
    ("method", "fault", "finds"),
    [
        ("submit", "kill_after", 1),
        pytest.param("submit", "kill_before", 1, marks=pytest.mark.more),
        pytest.param("result", "kill", 0, marks=pytest.mark.more),
    ],
)
def test_a_killed_process_loses_no_samples_and_the_next_pays_for_none_again(tmp_path, ledger, method, fault, finds):
    device = DiskDevice(tmp_path / "device")
    device.fault(method, fault)
    process = start(tmp_path, sampled=True)
    process.communicate()
    assert process.returncode == -9
    text, _ = (second := start(tmp_path, sampled=True)).communicate()
    found = json.loads(text)
    assert (second.returncode, found["job_id"], found["seconds"]) == (0, "job-1", 2.0)
    assert np.shape(found["second"]) == (2, 2, 100, 2)
    assert (len(device.jobs), device.calls("find"), states(ledger)) == (1, finds, ["done"])
