"""The plan of a sweep: its points, its backend strings, and what it refuses."""

import math
from pathlib import Path

import pytest

from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import ConfigError, RunFolderError, UnknownNameError
from qiskit_qattn.evaluation.noise_sweep.plan import NOISES, NoiseSweep, Point


def plan(**options):
    return NoiseSweep(**{"run": Path("runs/a"), "out": Path("runs/b"), "strengths": (0.0, 0.01), **options})


def test_each_model_is_measured_without_noise_first_and_in_order_after():
    sweep = plan(strengths=(0.1, 0.0, 0.1), shots=(100, 10))
    assert sweep.points() == [
        Point("trained"),
        Point("trained", strength=0.0),
        Point("trained", strength=0.1),
        Point("trained", shots=10),
        Point("trained", shots=100),
    ]
    aware = plan(aware_steps=5, aware_strength=0.1).points()
    assert [point.model for point in aware] == ["trained"] * 3 + ["control"] * 3 + ["aware"] * 3


@pytest.mark.parametrize("noise", NOISES)
def test_every_noise_is_a_backend_whose_strength_is_p(noise):
    sweep = plan(noise=noise, shots=(100,))
    built = [get_backend(sweep.backend(point)) for point in sweep.points()]
    assert [backend.shots for backend in built] == [None, None, None, 100]
    assert f"noise={noise}" in built[2].name and "=0.01" in built[2].name
    assert built[3].name == "statevector?seed=0&shots=100"


def test_mitigation_is_measured_on_the_runs_own_model_where_there_are_errors():
    on = "aer?noise=fake_manila&shots=64"
    sweep = plan(strengths=(0.0, 0.1), backends=(on,), mitigations=("zne",), aware_steps=5, aware_strength=0.1)
    trained = [point for point in sweep.points() if point.model == "trained"]
    assert trained == [
        Point("trained"),
        Point("trained", strength=0.0),
        Point("trained", strength=0.1),
        Point("trained", on=on),
        Point("trained", strength=0.1, mitigation="zne"),
        Point("trained", on=on, mitigation="zne"),
    ]
    assert not any(point.mitigation for point in sweep.points() if point.model != "trained")
    assert "mitigation=zne" in sweep.backend(trained[-1]) and "mitigation" not in sweep.backend(trained[3])


def test_no_mitigation_is_none_on_ibm_too():
    on = "ibm:fake_manila?shots=64&tiles=auto"
    sweep = plan(strengths=(), backends=(on,), mitigations=("trex,zne",))
    assert [sweep.backend(point) for point in sweep.points()[1:]] == [
        "ibm:fake_manila?resilience=0&shots=64&tiles=auto",
        "ibm:fake_manila?mitigation=trex,zne&shots=64&tiles=auto",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": (0.0,), "mitigations": ("trex",)}, "no errors to mitigate"),
        ({"backends": ("aer?mitigation=trex",)}, "says how errors are mitigated"),
        ({"backends": ("ibm:fake_manila?resilience=2",)}, "says how errors are mitigated"),
        ({"backends": ("aer -> statevector",)}, "is a chain of backends"),
        ({"strengths": (0.1, 1.5)}, "p is 1.5, but must be a probability"),
        ({"strengths": (-0.1,)}, "p is -0.1, but must be a probability"),
        ({"strengths": (math.nan,)}, "p is nan, but must be a probability"),
        ({"shots": (10, 0)}, "shots is 0, but must be at least 1"),
        ({"windows": 1}, "windows is 1, but a standard error takes at least 2"),
        ({"strengths": ()}, "nothing to sweep"),
        ({"aware_steps": -1}, "aware_steps is -1"),
        ({"aware_steps": 10}, "need aware_p"),
        ({"aware_steps": 10, "aware_strength": 0.0}, "need aware_p"),
        ({"aware_steps": 10, "aware_strength": 2.0}, "aware_p is 2, but must be a probability"),
        ({"aware_strength": 0.1}, "aware_steps is 0; give how many"),
    ],
)
def test_values_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        plan(**options)


@pytest.mark.parametrize("noise", ["fake_torino", "thermal", "depolarising", "noise.json"])
def test_a_noise_without_a_strength_is_refused(noise):
    with pytest.raises(UnknownNameError, match=r"noise with a strength p .* Known: amplitude_damping, depolarizing"):
        plan(noise=noise)


@pytest.mark.parametrize("out", ["runs/a", "runs/a/noise", "runs/b/../a"])
def test_the_runs_folder_is_left_alone(out):
    with pytest.raises(RunFolderError, match="is in the run folder"):
        plan(out=Path(out))
