"""A run on a chain of backends: its log, its figures and its report say what was computed where."""

import json
import os
import signal

import pytest

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.evaluation.report import write_report
from qiskit_qattn.nn.audit import FallbackWarning
from qiskit_qattn.training.audits import AUDIT, read_audit
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.run import train_run

PROVIDER = '''
from qiskit.primitives import StatevectorEstimator
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.errors import BackendError

class Lab(StatevectorEstimator):
    """Fails in every seventh run."""
    runs = 0

    def run(self, pubs, *, precision=None):
        self.runs += 1
        if self.runs % 7 == 3:
            raise BackendError("The laboratory is closed.")
        return super().run(pubs, precision=precision)

PROVIDER = Provider("A laboratory", lambda spec: Backend(str(spec), Lab()))
'''
CHAIN = "lab -> statevector"


class StopAt(Progress):
    def __init__(self, step):
        self.step = step

    def step_done(self, step, loss, tokens_per_second):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def laboratory(install_package):
    """Install a package with the provider ``lab``."""
    install_package("qattn-lab-run", "qattn_lab_run", PROVIDER, {"lab": "qattn_lab_run:PROVIDER"})


@pytest.fixture
def config(tiny):
    return tiny(max_steps=4, num_qubits=2, n_embd=4, batch_size=1, eval_batches=1, sample_tokens=3, backend=CHAIN)


def test_the_log_the_figures_and_the_report_hold_every_fall(config):
    with pytest.warns(FallbackWarning, match="lab failed, statevector is next"):
        train_run(config)
    figures = read_metrics(config.folder)
    audit = figures["audit"]
    assert (audit["from_step"], audit["to_step"]) == (0, 4)
    assert audit["calls"].keys() == {"lab", "statevector"} and audit["heads"][0]["calls"] == audit["calls"]
    assert sum(audit["gradients"].values()) == 4
    assert figures["head_backends"][0]["calls"] == audit["calls"]
    lines = (config.folder / "backends.log").read_text("utf-8").splitlines()
    assert len(lines) == len(audit["falls"]) > 1
    assert all(
        "WARNING Layer 0, qisa-v3 heads, call " in line and "is next. The laboratory is closed." in line
        for line in lines
    )
    with pytest.warns(FallbackWarning):
        report = write_report(config.folder)
    assert report["model"]["audit"] == audit
    found = report["model"]["report_audit"]
    assert sum(found["calls"].values()) > 3 and found["calls"].keys() == {"lab", "statevector"}  # causality too
    text = (config.folder / "report.md").read_text("utf-8")
    assert f"| `lab` | {audit['calls']['lab']:,} | {audit['gradients']['lab']} |" in text
    assert "| 0 | `qisa-v3` | forward | `lab` | `statevector` |" in text


def test_a_resumed_run_counts_on(config):
    with pytest.warns(FallbackWarning), pytest.raises(TrainingInterrupted):
        train_run(config, progress=StopAt(2))
    first = read_audit(config.folder, 2)
    assert first["to_step"] == 2 and first["falls"]
    with pytest.warns(FallbackWarning):
        train_run(config, resume=True)
    figures = read_metrics(config.folder)
    audit = figures["audit"]
    assert (audit["from_step"], audit["to_step"]) == (0, 4)
    assert sum(audit["gradients"].values()) == 4
    calls = sum(audit["calls"].values())
    before = len(first["falls"])
    assert audit["falls"][:before] == first["falls"]
    done = sum(first["calls"].values())
    assert all(done < fall["call"] <= calls for fall in audit["falls"][before:])
    assert figures["head_backends"][0]["calls"] == audit["calls"]


def test_what_was_computed_by_a_killed_process_is_not_claimed(config):
    with pytest.warns(FallbackWarning), pytest.raises(TrainingInterrupted):
        train_run(config, progress=StopAt(2))
    (config.folder / AUDIT).unlink()  # as if it had been killed after the checkpoint
    with pytest.warns(FallbackWarning):
        train_run(config, resume=True)
    assert read_metrics(config.folder)["audit"]["from_step"] == 2
    with pytest.warns(FallbackWarning):
        write_report(config.folder)
    assert "during training and validation, from step 2 on:" in (config.folder / "report.md").read_text("utf-8")


def test_a_run_on_one_backend_has_no_audit(tiny):
    config = tiny(max_steps=1)
    train_run(config)
    assert "audit" not in read_metrics(config.folder)
    assert not any((config.folder / name).exists() for name in (AUDIT, "backends.log"))


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"calls": {}})])
def test_a_damaged_audit_is_named(tmp_path, content):
    (tmp_path / AUDIT).write_text(content)
    with pytest.raises(CheckpointError, match=r"audit\.json.* is damaged"):
        read_audit(tmp_path, 1)
