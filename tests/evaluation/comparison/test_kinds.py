from __future__ import annotations

import pytest

from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.evaluation.comparison.kinds import parse_kinds


def test_the_reference_comes_first_and_names_stay_as_given():
    assert parse_kinds("qisa, rff,classical", "classical") == (("classical", "qisa", "rff"), "classical")
    assert parse_kinds("qisa,frozen", "qisa-v3") == (("qisa", "frozen"), "qisa")
    assert parse_kinds("rff", "classical") == (("classical", "rff"), "classical")


@pytest.mark.parametrize(
    ("kinds", "reference", "kind", "told"),
    [
        ("qisa,quantum", "classical", UnknownNameError, "quantum"),
        ("qisa", "classic", UnknownNameError, "classical"),
        ("qisa,rff, qisa", "classical", ConfigError, "twice"),
        ("qisa,qisa-v3", "classical", ConfigError, "qisa and qisa-v3"),
        ("classical", "classical", ConfigError, "no kind to compare"),
        ("", "classical", ConfigError, "no kind to compare"),
    ],
)
def test_kinds_that_make_no_comparison_are_refused(kinds: str, reference: str, kind: type[Exception], told: str):
    with pytest.raises(kind, match=told):
        parse_kinds(kinds, reference)
