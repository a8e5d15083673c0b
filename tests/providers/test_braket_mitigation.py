"""``mitigation=…`` of ``braket:``: folding on the local simulator and on QPUs, and IonQ's debiasing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn import QuantumHead, attention_circuit
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.errors import ConfigError

from .aws_devices import IONQ, PLAIN, QPU
from .braket_adapter import PRECISION, SHOTS, assert_right, backend_of, device_of, eight_circuits

ZNE = Mitigation(methods=("zne",), factors=(1, 3), fit="linear")


@pytest.mark.parametrize("fit", ["linear", "richardson"])
def test_folding_on_the_local_simulator_is_that_of_the_noisy_engine(fit):
    """The same noise on the same gates, extrapolated in the same way, without shot noise."""
    head = QuantumHead(attention_circuit("qisa", 3)).double()
    x = torch.randn(3, head.num_features, dtype=torch.float64)
    exact = head(x).detach()
    noise = "noise=depolarizing&p1=0&p2=0.02"
    zne = f"mitigation=zne&zne_fit={fit}"
    raw, ours, theirs = (
        head.to_backend(text)(x).detach()
        for text in (
            f"braket:local_dm?{noise}",
            f"density_matrix?{noise}&{zne}",
            f"braket:local_dm?{noise}&{zne}",
        )
    )
    torch.testing.assert_close(theirs, ours, atol=1e-8, rtol=0)
    assert (theirs - exact).abs().max() < 0.5 * (raw - exact).abs().max()


def test_sampled_values_at_zero_noise_have_the_errors_of_their_combination():
    head = QuantumHead(attention_circuit("qisa", 2)).double()
    text = "braket:local_dm?noise=depolarizing&p1=0&p2=0.05&shots=1000&mitigation=zne&zne_factors=1,3"
    backend = head.to_backend(text).backend
    circuit = attention_circuit("qisa", 2)
    points = np.linspace(0, 3, circuit.circuit.num_parameters)
    observables = list(circuit.observables)
    [result] = backend.estimator.run([(circuit.circuit, observables, points)], precision=0.03).result()
    assert result.metadata["mitigation"] == "zne (linear, at noise factors 1, 3)"
    most = np.sqrt(1.5**2 + 0.5**2) / np.sqrt(result.metadata["shots"])
    assert (result.data.stds <= most).all() and result.data.stds.max() > 0


def test_a_qpu_runs_folded_circuits_between_barriers(aws, rng):
    pub = eight_circuits(rng)
    device = device_of(mitigation=ZNE)
    estimate = device.estimate([pub], PRECISION)
    job = device.submit([pub], PRECISION, "tag")
    [values] = device.result(job, [pub])
    assert values.mitigated
    assert_right(values, pub)
    usage = device.usage(job)
    assert (usage.circuits, usage.shots) == (estimate.circuits, estimate.shots) == (16, 16 * SHOTS)
    assert any("barrier q[0], q[1];" in body["action"] for body in aws.bodies)
    assert device.settings != device_of().settings


def test_ionq_debiases_itself(aws, rng):
    device = device_of(IONQ, mitigation=Mitigation(methods=("debias",)))
    precision = precision_of(500)
    pub = EstimatorPub.coerce(eight_circuits(rng), precision)
    pub = EstimatorPub(pub.circuit, pub.observables, pub.parameter_values, precision)
    job = device.submit([pub], precision, "tag")
    assert device.result(job, [pub])[0].mitigated
    assert len(job.split(";")) == 8  # no program set: it would carry no parameters
    assert all("error_mitigation.debias.Debias" in body["deviceParameters"] for body in aws.bodies)
    with pytest.raises(ConfigError, match="takes 500 to 20000 shots"):
        device.estimate([pub], PRECISION)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (f"{QPU}?mitigation=trex", "it can do zne; trex is for aer"),
        (f"{QPU}?mitigation=zne&zne_fit=exponential", "it can do linear and richardson"),
        (f"{PLAIN}?mitigation=zne", "it can do none; on Amazon Braket zne is for local_dm"),
        ("sv1?mitigation=zne", "it can do none"),
        (f"{QPU}?mitigation=debias", "debias is for IonQ"),
        ("local?mitigation=zne", "it can do none"),
        ("local_dm?mitigation=zne", "no noise to mitigate"),
        ("local_dm?noise=depolarizing&p1=0&p2=0.1&mitigation=pec", "pec is for devices of an account"),
    ],
)
def test_what_is_refused(aws, text, match):
    with pytest.raises(ConfigError, match=match):
        backend_of(f"braket:{text}")
