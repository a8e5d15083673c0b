"""A backend that fails in the middle of a run: what was trained is kept, and the run goes on as if nothing had been."""

import pytest
from qiskit.primitives import StatevectorEstimator

from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.errors import BackendError
from qiskit_qattn.training.checkpoint import list_checkpoints
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.run import train_run


class Lab(StatevectorEstimator):
    """Fails in one run, counted over all of the tests' estimators."""

    runs, fails_at = 0, 0

    def run(self, pubs, *, precision=None):
        Lab.runs += 1
        if Lab.runs == Lab.fails_at:
            raise BackendError("The laboratory is closed.")
        return super().run(pubs, precision=precision)


PROVIDER = Provider("A laboratory", lambda spec: Backend(str(spec), Lab()))


@pytest.fixture(autouse=True)
def laboratory(install_package, monkeypatch):
    install_package("qattn-lab", "qattn_lab", "", {"lab": f"{__name__}:PROVIDER"})
    monkeypatch.setattr(Lab, "runs", 0)
    monkeypatch.setattr(Lab, "fails_at", 0)


# Forward in step 2; at the start, backward in step 2, and in the last checks.
@pytest.mark.parametrize("fails_at", [4, *(pytest.param(at, marks=pytest.mark.more) for at in (1, 5, 10))])
def test_a_run_that_lost_its_backend_goes_on_to_the_same_losses(tiny, tmp_path, monkeypatch, fails_at):
    options = {"max_steps": 3, "num_qubits": 2, "n_embd": 4, "batch_size": 1, "eval_batches": 1, "val_windows": 1}
    options |= {"dropout": 0.2, "heads": "qisa:1,classical:1", "backend": "lab"}
    whole = tiny(**options, out=str(tmp_path / "whole"))
    train_run(whole)
    assert Lab.runs >= 10
    monkeypatch.setattr(Lab, "runs", 0)
    monkeypatch.setattr(Lab, "fails_at", fails_at)
    parts = tiny(**options, out=str(tmp_path / "parts"))
    with pytest.raises(BackendError, match="laboratory is closed"):
        train_run(parts)
    if fails_at == 1:
        assert not parts.folder.exists()  # not a step was done
    else:
        assert list_checkpoints(parts.folder / "checkpoints")
    train_run(parts, resume=fails_at > 1)
    found, wanted = read_metrics(parts.folder), read_metrics(whole.folder)
    for name in ("val_loss", "train_loss", "step"):
        assert found[name] == wanted[name]
