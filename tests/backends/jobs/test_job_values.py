"""Values of a job: those that no state gives are never stored as done, mitigated ones are labelled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.backends.jobs.client import resume
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.values import MitigationWarning
from qiskit_qattn.errors import BackendError, JobError

from .disk_client import PRECISION, small_pubs
from .disk_device import DiskDevice
from .on_disk import estimator_of, states

pytestmark = pytest.mark.usefixtures("short_waits")


class Changed(DiskDevice):
    """Changes the values of a job."""

    def change(self, values):
        return values

    def result(self, job_id, pubs):
        return self.change(super().result(job_id, pubs))


@pytest.fixture
def device(tmp_path, request):
    return Changed(tmp_path / "device", name=f"disk:{request.node.name}")


def first(**changes):
    """Return the change of the first PUB's values, each by a function of those before."""
    return lambda values: [
        replace(values[0], **{name: change(getattr(values[0], name)) for name, change in changes.items()}),
        *values[1:],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: [], "shapes"),
        (lambda values: values[::-1], "shapes"),
        (lambda values: [*values, values[0]], "shapes"),
        (first(evs=lambda evs: evs * np.nan), "6 of 6 values that are not finite, such as nan"),
        (first(evs=lambda evs: evs / 0), "not finite, such as -?inf"),
        (first(evs=lambda evs: evs + 100), "6 of 6 values that lie outside their observables' bounds"),
        (first(evs=lambda evs: evs * 1j), "no real numbers"),
        (first(stds=lambda stds: stds - 1), "standard errors below 0"),
        (first(shots=lambda _: 3), "from 3 shots, expected at least 90"),
        (first(shots=lambda _: 0, mitigated=lambda _: True), "from 0 shots"),
        (first(evs=lambda evs: evs * np.nan, mitigated=lambda _: True), "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_what_cannot_be_a_result_is_kept_out_of_the_ledger(device, ledger, change, message):
    device.change = change
    estimator = estimator_of(device, ledger, retries=1)
    with pytest.raises(BackendError, match=rf"Job job-1 on disk:.*{message}") as caught:
        estimator.run(small_pubs()).result()
    assert not isinstance(caught.value, JobError)
    assert states(ledger) == ["sent"] and device.calls("result") == 2
    with pytest.raises(BackendError, match=message):
        resume(ledger, ledger.rows()[0], device)
    assert states(ledger) == ["sent"]
    device.change = lambda values: values  # the transfer was wrong, not the job
    assert np.isfinite(estimator_of(device, ledger).run(small_pubs()).result()[0].data.evs).all()
    assert states(ledger) == ["done"] and device.calls("submit") == 1


def test_mitigated_values_are_stored_and_labelled(device, ledger):
    device.change = first(evs=lambda evs: evs + np.array([[3.0, 0, 0], [0, 0, 0]]), mitigated=lambda _: True)
    with pytest.warns(MitigationWarning):
        result = estimator_of(device, ledger).run(small_pubs()).result()
    assert result[0].metadata["mitigated"] and result[0].metadata["outside_bounds"] == 1
    assert "mitigated" not in result[1].metadata and states(ledger) == ["done"]
    again = estimator_of(device, ledger).run(small_pubs()).result()
    assert again[0].metadata["outside_bounds"] == 1 and again[0].data.evs[0, 0] > 2


def test_a_program_takes_them_from_the_ledger(device, ledger, caplog):
    device.change = first(evs=lambda evs: evs + 3.0, mitigated=lambda _: True)
    x = Parameter("x")
    circuit = QuantumCircuit(1)
    circuit.ry(x, 0)
    program = PubProgram(
        circuit, [SparsePauliOp("Z")], input_params=[x], weight_params=[], estimator=estimator_of(device, ledger),
        precision=PRECISION,
    )  # fmt: skip
    inputs = torch.rand(4, 1)
    with pytest.warns(MitigationWarning):
        values = program(inputs, torch.zeros(0))
    assert (values > 1).all()
    with pytest.warns(MitigationWarning):
        torch.testing.assert_close(program(inputs, torch.zeros(0)), values)
    assert "Job job-1 on disk:" in caplog.text and program.outside == 2 * 4
    assert device.calls("submit") == 1
