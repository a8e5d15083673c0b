"""A provider of a laboratory whose runs fail as told, installed as a package would be."""

import pytest

PROVIDER = '''
from qiskit.primitives import StatevectorEstimator
from qiskit_qattn import errors
from qiskit_qattn.backends.registry import Backend, Provider

class Device:
    """Opens a session with its first run, and again after it was closed; counts those it closed."""
    closed, open = 0, True
    def close(self):
        self.closed, self.open = self.closed + self.open, False

class Lab(StatevectorEstimator):
    """Fails in the runs that the option names, counted over all heads."""
    def __init__(self, spec):
        super().__init__()
        self.fails, self.runs, self.device = spec.options.get("fails", ""), 0, Device()
        self.error = getattr(errors, spec.options.get("error", "BackendError"), None) or RuntimeError

    def run(self, pubs, *, precision=None):
        self.runs, self.device.open = self.runs + 1, True
        if self.fails == "all" or str(self.runs) in self.fails.split("+"):
            raise self.error("The laboratory\\nis closed.")
        return super().run(pubs, precision=precision)

def build(spec):
    if (spec.target or "").startswith("gone"):
        raise errors.TransientBackendError("The laboratory cannot be reached.")
    return Backend(str(spec), Lab(spec))

PROVIDER = Provider("A laboratory", build, {"fails": "runs", "error": "their error"}, targets="gone")
'''


@pytest.fixture
def laboratory(install_package):
    """Install a package with the provider ``lab``."""
    install_package("qattn-lab-nn", "qattn_lab_nn", PROVIDER, {"lab": "qattn_lab_nn:PROVIDER"})
