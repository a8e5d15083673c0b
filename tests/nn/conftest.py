"""A provider of a laboratory whose runs fail as told, installed as a package would be."""

import sys

import pytest

from qiskit_qattn.backends.registry import GROUP

PROVIDER = '''
from qiskit.primitives import StatevectorEstimator
from qiskit_qattn import errors
from qiskit_qattn.backends.registry import Backend, Provider

class Device:
    closed = 0
    def close(self):
        self.closed += 1

class Lab(StatevectorEstimator):
    """Fails in the runs that the option names, counted over all heads."""
    def __init__(self, spec):
        super().__init__()
        self.fails, self.runs, self.device = spec.options.get("fails", ""), 0, Device()
        self.error = getattr(errors, spec.options.get("error", "BackendError"), None) or RuntimeError

    def run(self, pubs, *, precision=None):
        self.runs += 1
        if self.fails == "all" or str(self.runs) in self.fails.split("+"):
            raise self.error("The laboratory\\nis closed.")
        return super().run(pubs, precision=precision)

def build(spec):
    if spec.target == "gone":
        raise errors.TransientBackendError("The laboratory cannot be reached.")
    return Backend(str(spec), Lab(spec))

PROVIDER = Provider("A laboratory", build, {"fails": "runs", "error": "their error"}, targets="gone")
'''


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """Install a package with the provider ``lab``."""
    info = tmp_path / "site" / "qattn_lab_nn-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "qattn_lab_nn.py").write_text(PROVIDER, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qattn-lab-nn\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nlab = qattn_lab_nn:PROVIDER\n")
    monkeypatch.syspath_prepend(str(info.parent))
    yield
    sys.modules.pop("qattn_lab_nn", None)
