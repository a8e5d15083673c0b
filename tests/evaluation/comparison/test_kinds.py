from __future__ import annotations

import pytest

from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.evaluation.comparison.kinds import folder_name, head_counts, joined_kinds, parse_kinds, split_kinds


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


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("qisa,rff", ["qisa", "rff"]),
        ("qisa:2,classical:2", ["qisa:2,classical:2"]),
        ("qisa , rff", ["qisa", "rff"]),
        ("qisa:2, classical:2;classical", ["qisa:2,classical:2", "classical"]),
        ("qisa:2,classical:2 rff:1,classical:3", ["qisa:2,classical:2", "rff:1,classical:3"]),
        ("qisa,rff:1,classical:3,zz", ["qisa", "rff:1,classical:3", "zz"]),
        (" ;, qisa\n", ["qisa"]),
        ("", []),
    ],
)
def test_mixes_are_kinds(text: str, kinds: list[str]):
    assert split_kinds(text) == kinds
    assert split_kinds(joined_kinds(kinds)) == kinds


@pytest.mark.parametrize(
    ("kinds", "kind", "told"),
    [
        (
            "qisa:2,classical:2;classical:2,qisa:2",
            ConfigError,
            "one kind twice: qisa:2,classical:2 and classical:2,qisa:2",
        ),
        ("qisa;qisa-v3:4", ConfigError, "one kind twice: qisa and qisa-v3:4"),
        ("classical:4", ConfigError, "no kind to compare"),
        ("qisa:2,quantum:2", UnknownNameError, "quantum"),
        ("qisa:0,classical:4", ConfigError, "counts of at least 1, got 'qisa:0'"),
        ("qisa:two,classical:2", ConfigError, "expected 'kind:count,…'"),
    ],
)
def test_mixes_that_make_no_comparison_are_refused(kinds: str, kind: type[Exception], told: str):
    with pytest.raises(kind, match=told):
        parse_kinds(kinds, "classical")


def test_a_mix_may_be_the_reference():
    found = parse_kinds("classical;qisa", "qisa:2,classical:2")
    assert found == (("qisa:2,classical:2", "classical", "qisa"), "qisa:2,classical:2")
    for reference in ("qisa;rff", ""):
        with pytest.raises(ConfigError, match="must be one kind"):
            parse_kinds("classical", reference)


def test_counts_are_by_the_kinds_own_names():
    assert head_counts("qisa:1,qisa-v3:1,classical:2") == {"qisa-v3": 2, "classical": 2}
    assert head_counts("qisa") == {"qisa-v3": 0}


def test_folders_of_different_kinds_differ_and_are_safe():
    kinds = ["qisa", "qisa-2", "qisa:2", "qisa:2,classical:2", "qisa:21,classical:2", "qisa:2,classical-2:1"]
    names = [folder_name(kind) for kind in kinds]
    assert len(set(names)) == len(kinds)
    assert not set("".join(names)) & set('/\\:*?"<>|, ')
