"""Whether attacks are counted and judged right; the attacks themselves are ``make torture``."""

import pytest

from .__main__ import LEAST, plan
from .tally import Paid, Report, Tally, judge

KEY, OTHER = "a" * 64, "b" * 64


def paid(key, number=1, part="", ran=True):
    return Paid(f"qattn-{key[:16]}-0123abcd-{number}", part, ran)


@pytest.mark.parametrize(
    ("records", "delivered", "lost", "twice"),
    [
        ([paid(KEY)], {KEY: True}, 0, 0),
        ([paid(KEY), paid(OTHER)], {KEY: True}, 0, 0),
        ([paid(KEY), paid(KEY, 2, ran=False)], {KEY: True}, 0, 0),
        ([paid(KEY, part="0/2"), paid(KEY, part="1/2")], {KEY: True}, 0, 0),
        ([paid(KEY), paid(KEY, 2)], {KEY: True}, 0, 1),
        ([paid(KEY), paid(KEY)], {KEY: True}, 0, 1),
        ([paid(KEY, part="0/2"), paid(KEY, part="1/2"), paid(KEY, 2, "1/2")], {KEY: True}, 0, 1),
        ([paid(KEY)], {KEY: False}, 1, 0),
        ([paid(KEY)], {}, 1, 0),
        ([paid(KEY, ran=False)], {KEY: True}, 1, 0),  # values from nowhere
        ([], {KEY: True}, 1, 0),
    ],
)
def test_the_services_record_says_what_is_lost_and_what_was_paid_twice(records, delivered, lost, twice):
    assert judge([KEY], records, delivered) == (lost, twice)


def test_every_column_but_the_first_must_be_0():
    report = Report()
    report.add("a", Tally(times=3))
    assert report.held and not report.notes
    for column in ("lost", "twice", "passed", "hangs", "tracebacks"):
        other = Report()
        other.add("a", Tally(times=1, **{column: 1}), "why")
        assert not other.held and other.notes == ["a: why"]
        report.join(other)
    assert report.tallies["a"] == Tally(8, 1, 1, 1, 1, 1)
    head, _, row = report.table().splitlines()
    assert head.split()[0] == "attack" and row.split() == ["a", "8", "1", "1", "1", "1", "1"]


def test_a_seed_repeats_its_attacks_which_are_enough():
    names = [name for name, _ in plan(7)]
    assert names == [name for name, _ in plan(7)] != [name for name, _ in plan(8)]
    assert 4 * names.count("kill") >= LEAST["SIGKILL of a paying process"]
    faults = [name for name in names if name.startswith(("ibm ", "braket "))]
    assert len(faults) == len(set(faults)) >= LEAST["faulty answers"]
