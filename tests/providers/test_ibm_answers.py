"""What IBM's client returns, read: the right values, or an error that says what came."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qiskit.primitives import PrimitiveResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.ibm.answers import (
    PagedTags,
    Unexpected,
    device_names,
    job_id_of,
    position_of,
    seconds_of,
    state_of,
    tagged,
    values_of,
)

from .ibm_adapter import at_precision
from .ibm_client import Pub


@pytest.fixture(scope="module")
def pubs(pub: Pub) -> list[EstimatorPub]:
    return at_precision(pub)


def job(job_id: Any, tags: Any = ("a",)) -> Any:
    return SimpleNamespace(job_id=lambda: job_id, tags=list(tags) if isinstance(tags, tuple) else tags)


def part(evs: Any, stds: Any) -> Any:
    return SimpleNamespace(data=SimpleNamespace(evs=evs, stds=stds))


def test_states() -> None:
    assert state_of("DONE") == "done"
    assert state_of(SimpleNamespace(name="RUNNING")) == "running"


@pytest.mark.parametrize("word", ["LEVITATING", "done", "", None, 3, ["DONE"], {}])
def test_unknown_states(word: Any) -> None:
    with pytest.raises(Unexpected, match="which this release does not know"):
        state_of(word)


@pytest.mark.parametrize("job_id", [None, "", 3, ["x"], "a/b", "../jobs", "a b", "x" * 999, "a\x1b[31m"])
def test_ids_that_are_none(job_id: Any) -> None:
    with pytest.raises(Unexpected, match="the job's id is"):
        job_id_of(job(job_id))


def test_jobs_with_a_tag_are_given_once_and_oldest_first() -> None:
    found = tagged([job("c"), job("b", ("a", "z")), job("b"), job("x", ("z",)), job("a")], "a")
    assert list(found) == ["a", "b", "c"]
    with pytest.raises(Unexpected, match=r"tags of job 'a' are None"):
        tagged([job("a", None)], "a")


@pytest.mark.parametrize(
    ("metrics", "position"),
    [({"position_in_queue": 7}, 7), ({"position_in_queue": -1}, None), ({"position_in_queue": "7"}, None)]
    + [(value, None) for value in ({}, None, [], "7", 7)],
)
def test_a_position_is_optional(metrics: Any, position: int | None) -> None:
    assert position_of(metrics) == position


def test_usage() -> None:
    assert seconds_of({"usage": {"status": "complete", "qpu_charge_time_seconds": 2}}) == 2.0
    for pending in ({}, {"usage": {}}, {"usage": {"status": "pending", "qpu_charge_time_seconds": 1}}):
        assert seconds_of(pending) is None


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "2", None, True, [2]])
def test_usage_that_is_none(seconds: Any) -> None:
    with pytest.raises(Unexpected, match="usage is"):
        seconds_of({"usage": {"status": "complete", "qpu_charge_time_seconds": seconds}})


def test_values(pubs: list[EstimatorPub]) -> None:
    [found] = values_of([part(np.ones((3, 2)).tolist(), np.zeros((3, 2)))], pubs, mitigated=True)
    assert found.evs.dtype == float and found.evs.shape == found.stds.shape == (3, 2)
    assert (found.shots, found.mitigated) == (None, True)


def test_values_say_how_they_were_measured(pubs: list[EstimatorPub]) -> None:
    one = part(np.ones((3, 2)), np.zeros((3, 2)))
    one.metadata = {"shots": 900}
    assert values_of([one], pubs, mitigated=False)[0].shots == 900
    [found] = values_of(PrimitiveResult([one], {"shots": 1000, "options": {}}), pubs, mitigated=True)
    assert found.shots == 1000 and found.mitigated


def test_values_of_another_form(pubs: list[EstimatorPub]) -> None:
    good = np.zeros((3, 2))
    bad: list[tuple[Any, str]] = [
        (None, "the result is empty; expected values for 1 PUBs"),
        ([], "for 0 PUBs; expected 1"),
        ([part(good, good)] * 2, "for 2 PUBs; expected 1"),
        ([part(good.T, good)], r"shape \(2, 3\), their errors \(3, 2\); expected \(3, 2\)"),
        ([part(good, good[:2])], r"their errors \(2, 2\)"),
        ([part(np.where(np.eye(3, 2), np.nan, good), good)], "4 of 6 values are finite"),
    ]
    for result, message in bad:
        with pytest.raises(Unexpected, match=message):
            values_of(result, pubs, mitigated=False)


def test_names_of_devices() -> None:
    assert device_names({"devices": [{"name": "a"}, {"name": "b"}]}) == ["a", "b"]
    with pytest.raises(Unexpected, match=r"names are \['a', None\]"):
        device_names({"devices": [{"name": "a"}, {"name": None}]})


def test_tags_can_be_read_for_so_many_pages() -> None:
    tags = PagedTags(["a"])
    assert tags == ["a"] and all(list(tags) == ["a"] for _ in range(50))
    with pytest.raises(Unexpected, match=r"tag 'a' did not end after 50 pages"):
        list(tags)
