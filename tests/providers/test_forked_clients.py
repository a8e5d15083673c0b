"""A forked process has connections of its own: answers for it and its parent do not get mixed up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Both ask at the same time for jobs of their own, which the answers name.
BOTH = """
child = os.fork()
which = 0 if child else 1
for _ in range(40):
    found = ask(jobs[which])
    assert found == jobs[which], (which, found)
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("right")
os._exit(0)
"""
AWS = """
import os
import numpy as np
from tests.providers.braket_adapter import PRECISION, device_of, eight_circuits
device = device_of()
pub = eight_circuits(np.random.default_rng(1))
jobs = [device.submit([pub], PRECISION, tag).split(";")[0] for tag in ("one", "other")]
def ask(job):
    return device._tasks.task(job)["quantumTaskArn"]
"""
IBM = """
import os
from qiskit_qattn.backends.registry import get_backend
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from tests.providers.ibm_client import small_pub
device = get_backend("ibm:test_manila?optimization=0&resilience=0&mode=job").estimator.device
jobs = [device.submit([EstimatorPub.coerce(small_pub(), 0.1)], 0.1, tag) for tag in ("one", "other")]
def ask(job):
    return device._service.job(job).job_id()
"""


def run(program, environment):
    done = subprocess.run(
        [sys.executable, "-c", program + BOTH],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "right\n", done.stderr


def test_aws(aws):
    pytest.importorskip("braket")
    run(AWS, {})


def test_ibm(ibm_server):
    run(IBM, ibm_server.proxy_environment)
