"""What the tests of managed estimators share."""

from qiskit_qattn.backends.jobs.estimator import ManagedEstimator

from .disk_client import PRECISION


def estimator_of(device, ledger, **options):
    return ManagedEstimator(device, ledger=ledger, precision=PRECISION, **options)


def states(ledger):
    return [row.state for row in ledger.rows()]
