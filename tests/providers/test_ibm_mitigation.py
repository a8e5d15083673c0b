"""``mitigation=…`` of ``ibm:``: what is sent, what it is estimated to cost, and what it removes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.ibm.provider import PROVIDER
from qiskit_qattn.backends.registry import Backend, Registration
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, UnknownNameError

from .ibm_adapter import PRECISION, at_precision, exact
from .ibm_client import Pub
from .ibm_server import IBMServer


def build(text: str) -> Backend:
    return Registration("ibm", "qiskit-qattn", PROVIDER).build(BackendSpec.parse(text))


def device_of(text: str) -> Any:
    return build(text).estimator.device


@pytest.fixture
def pubs(pub: Pub) -> list[EstimatorPub]:
    return at_precision(pub)


@pytest.mark.parametrize(
    ("text", "methods", "twirled", "circuits"),
    [
        ("trex", {"measure"}, False, 5),
        ("trex&twirling=on", {"measure"}, True, 5),
        ("zne", {"zne"}, True, 12),
        ("zne&twirling=off", {"zne"}, False, 12),
        ("trex,zne&zne_factors=1,3&zne_fit=richardson", {"measure", "zne"}, True, 9),
    ],
)
def test_runtime_gets_its_options_and_the_estimate_is_what_it_counts(
    ibm_server: IBMServer, pubs: list[EstimatorPub], text: str, methods: set[str], twirled: bool, circuits: int
) -> None:
    """Two bindings in two bases, run at each noise factor, and a calibration with ``trex``."""
    ibm_server.hold()
    backend = build(f"ibm:test_manila?mode=job&dd=XY4&mitigation={text}")
    ibm = backend.estimator.device
    cost = ibm.estimate(pubs, PRECISION)
    job_id = ibm.submit(pubs, PRECISION, "a")
    job = ibm_server.jobs[job_id]
    sent = job.params["quantum_program"]["passthrough_data"]["post_processor"]["options"]
    found = {name.removesuffix("_mitigation") for name, on in sent["resilience"].items() if on is True}
    assert (found, sent["resilience_level"], sent["twirling"]["enable_gates"]) == (methods, 0, twirled)
    assert sent["dynamical_decoupling"]["sequence_type"] == "XY4"
    if "richardson" in text:
        zne = sent["resilience"]["zne"]
        assert (zne["noise_factors"], list(zne["extrapolator"])) == ([1, 3], ["polynomial_degree_1"])
    assert (cost.circuits, cost.shots) == (circuits, job.shots)
    assert job.seconds + 2 < cost.seconds < 1.1 * job.seconds + 2
    assert backend.mitigation is not None


def test_pec_learns_noise_in_its_job(ibm_server: IBMServer, pubs: list[EstimatorPub]) -> None:
    ibm = device_of("ibm:test_manila?mode=job&mitigation=trex,pec&pec_overhead=3")
    raw = device_of("ibm:test_manila?mode=job&resilience=0").estimate(pubs, PRECISION)
    cost = ibm.estimate(pubs, PRECISION)
    job_id = ibm.submit(pubs, PRECISION, "a")
    job = ibm_server.jobs[job_id]
    assert job.program == "estimator"
    sent = job.params["options"]["resilience"]
    assert (sent["pec_mitigation"], sent["measure_mitigation"], sent["zne_mitigation"]) == (True, True, False)
    assert sent["pec"]["max_overhead"] == 3
    assert cost.shots > 3 * raw.shots + 800_000  # and what is learned
    [values] = ibm.result(job_id, pubs)
    assert (values.evs.shape, values.mitigated) == ((3, 2), True)


def test_each_mitigation_is_a_request_of_its_own(ibm_server: IBMServer) -> None:
    texts = ["", "?resilience=2", "?mitigation=trex", "?mitigation=zne", "?mitigation=zne&zne_factors=1,3"]
    settings = [device_of(f"ibm:test_manila{text}").settings for text in texts]
    assert len(set(settings)) == len(settings)
    assert "mitigation" not in settings[0].lower()  # as in earlier releases, whose stored results stay known


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("test_manila?mitigation=trex&resilience=1", ConfigError, "resilience=1 and mitigation=trex both say"),
        ("test_manila?mitigation=zne,pec", ConfigError, "zne or pec, not both"),
        ("test_manila?mitigation=trexx", UnknownNameError, "Did you mean 'trex'"),
        ("test_manila?mitigation=zne&fractional=on", ConfigError, "leave fractional=on out"),
        ("test_manila?mitigation=pec&twirling=off", ConfigError, "leave twirling=off out"),
        ("test_manila?pec_overhead=2", ConfigError, "pec_overhead is for mitigation=pec"),
        ("fake_manila?mitigation=pec", ConfigError, r"it can do trex and zne\. pec is for devices of IBM"),
        ("fake_manila?mitigation=trex&noise=off", ConfigError, "noise=off; leave one out"),
    ],
)
def test_what_is_refused(ibm_server: IBMServer, text: str, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        build(f"ibm:{text}")


def test_mitigation_removes_errors_of_a_snapshot(pubs: list[EstimatorPub]) -> None:
    error = {}
    for text in ("resilience=0", "mitigation=trex", "mitigation=trex,zne"):
        ibm = device_of(f"ibm:fake_manila?seed=1&{text}")
        [values] = ibm.result(ibm.submit(pubs, PRECISION, text), pubs)
        error[text] = np.abs(values.evs - exact(pubs[0])).max()
    assert max(error["mitigation=trex"], error["mitigation=trex,zne"]) < 0.7 * error["resilience=0"]
