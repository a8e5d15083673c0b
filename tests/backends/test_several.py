"""Groups of devices: their shares, and which device computes a row."""

import json
import sqlite3

import numpy as np
import pytest

from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.place import Place, settled
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.backends.several import Figures, Group, assigned, shares_of
from qiskit_qattn.backends.spec import BackendGroup, parse_chain
from qiskit_qattn.errors import BackendError, ConfigError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("aer + statevector", "aer + statevector"),
        (" aer  +\tstatevector->classical", "aer + statevector -> classical"),
        ("aer?noise=a+b + braket:local?p1=1 -> aer", "aer?noise=a+b + braket:local?p1=1 -> aer"),
        ("ibm:a?budget=60s + braket:arn:aws:b::x/+y", "ibm:a?budget=60s + braket:arn:aws:b::x/+y"),
        ("aer -> ibm:b + ibm:a + aer -> raise", "aer -> ibm:b + ibm:a + aer"),
    ],
)
def test_groups_are_parsed_and_printed(text, normal):
    chain = parse_chain(text)
    assert str(chain) == normal and parse_chain(normal) == chain
    assert any(isinstance(link, BackendGroup) for link in chain.links)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aer + ", "empty place in a group"),
        ("+ aer", "empty place in a group"),
        ("aer + + statevector", "empty place in a group"),
        ("aer + -> statevector", "empty place in a group"),
        ("aer + classical", "'classical' .* is no backend; it can only end a chain"),
        ("aer+statevector", "'aer.statevector' is no backend string.*have spaces around the"),
        ("ibm:fez?budget=60s + ibm:fez?budget=5usd", "^ibm:fez is in the group .* more than once"),
        ("aer?shots=1 + statevector + aer?shots=1", "^aer.shots=1 is in the group"),
    ],
)
def test_groups_that_cannot_be(text, message):
    with pytest.raises(ConfigError, match=message) as found:
        parse_chain(text)
    assert "\n" not in str(found.value)


def test_one_backend_is_no_group():
    with pytest.raises(ConfigError, match="is a group of backends, and one is expected here"):
        get_backend("aer + statevector")


def test_the_figures_of_devices_decide_their_shares():
    assert shares_of([Figures(0, 1.0), Figures(0, 1.0)]) == pytest.approx([0.5, 0.5])
    assert shares_of([Figures(3, 1.0), Figures(0, 1.0)]) == pytest.approx([0.2, 0.8])
    assert shares_of([Figures(0, 1.0), Figures(0, 3.0)]) == pytest.approx([0.75, 0.25])
    assert shares_of([Figures(1, 2.0), Figures(3, 1.0)]) == pytest.approx([0.5, 0.5])
    # what one does not tell counts for none
    assert shares_of([Figures(9, 1.0), Figures(None, 3.0)]) == pytest.approx([0.75, 0.25])
    assert shares_of([Figures(1, None), Figures(0, 3.0)]) == pytest.approx([1 / 3, 2 / 3])
    assert shares_of([Figures(), Figures(5, 1.0), Figures()]) == pytest.approx([1 / 3] * 3)


def test_rows_are_spread_by_the_shares(rng):
    rows = rng.normal(scale=0.1, size=(20_000, 6))  # as close as the tokens of a new model
    shares = np.array([0.5, 0.2, 0.3])
    counts = np.bincount(assigned(rows, shares), minlength=3)
    errors = np.sqrt(shares * (1 - shares) * len(rows))
    assert (np.abs(counts - shares * len(rows)) < 5 * errors).all()
    assert set(assigned(rows, np.array([0.0, 1.0]))) == {1}


def test_a_row_keeps_its_device_whatever_is_beside_it(rng):
    rows, shares = rng.normal(size=(500, 4)), np.array([0.4, 0.6])
    whole = assigned(rows, shares)
    order = rng.permutation(500)[:200]
    np.testing.assert_array_equal(assigned(rows[order], shares), whole[order])
    changed = (assigned(rows * (1 + 1e-7), shares) != whole).mean()
    assert changed < 0.01  # rounding
    assert len(assigned(rows[:0], shares)) == 0
    assert (assigned(np.full((3, 2), np.nan), shares) < 2).all()


def test_a_member_that_cannot_be_opened_keeps_its_place():
    group = Group((("gone", BackendError("It is gone.")), ("statevector", get_backend("statevector"))))
    assert group.name == "gone + statevector" and len(group.backends) == 1
    assert group.shares(lambda _: []) == pytest.approx([0.5, 0.5])


def test_devices_are_compared_by_their_own_names():
    pytest.importorskip("qiskit_ibm_runtime")
    backends = [get_backend(f"ibm:fake_manila?seed={seed}") for seed in (1, 2)]
    with pytest.raises(ConfigError, match=r"^ibm:fake_manila is in the group .* more than once"):
        Group(tuple((each.name, each) for each in backends))


def test_a_place_knows_the_backends_of_a_group():
    place = Place.open("statevector + density_matrix -> statevector?shots=10&seed=1")
    assert place.name == "statevector + density_matrix -> statevector?seed=1&shots=10"
    assert [each.name for each in place.backends] == ["statevector", "density_matrix", "statevector?seed=1&shots=10"]
    assert place.single is None and place.samples and not place.differentiable
    assert Place.open("statevector + density_matrix").differentiable


def test_choices_in_groups_are_settled():
    given, recorded = "ibm:least_busy + aer -> statevector", "ibm:ibm_fez + aer -> statevector"
    assert settled(given, recorded) == recorded
    for other in ("ibm:ibm_fez -> aer -> statevector", "ibm:ibm_fez + aer", "ibm:ibm_fez + aer?shots=1 -> statevector"):
        assert settled(given, other) == given


# what a ledger remembers


def test_shares_are_remembered_by_what_was_computed(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.shares("first", [0.25, 0.75]) == [0.25, 0.75]
    assert ledger.shares("first", [0.5, 0.5]) == [0.25, 0.75]
    assert ledger.shares("second", [0.5, 0.5]) == [0.5, 0.5]
    assert Ledger(ledger.path).shares("first", [1.0, 0.0]) == [0.25, 0.75]


@pytest.mark.parametrize("text", ["[0.5]", "[0.5, NaN]", "[0.5, -1]", '["a", 1]', "{}", "[" * 10_000, "", "[2, 0.5]"])
def test_damaged_shares_are_told(tmp_path, text):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.shares("work", [0.5, 0.5])
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE shares SET shares = ?", (text,))
    with pytest.raises(BackendError, match=r"The shares in the ledger .* are damaged"):
        ledger.shares("work", [0.5, 0.5])


def test_shares_are_stored_as_json(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.shares("work", [0.1, 0.9])
    with sqlite3.connect(ledger.path) as db:
        assert json.loads(db.execute("SELECT shares FROM shares").fetchone()[0]) == [0.1, 0.9]
