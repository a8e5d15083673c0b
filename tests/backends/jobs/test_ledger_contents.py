"""Rows that somebody else has written: one error, never a traceback."""

import io
import json
import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from qiskit_qattn.backends.jobs.device import Values
from qiskit_qattn.errors import BackendError

from .test_ledger import opened, request

BAD = [
    ("estimate", "no JSON"),
    ("estimate", "[" * 100_000),
    ("estimate", '{"jobs": 1}'),
    ("estimate", '{"jobs": 1, "circuits": 1, "shots": 1, "seconds": "2", "usd": null}'),
    ("estimate", '{"jobs": 1, "circuits": 1, "shots": 1, "seconds": NaN, "usd": null}'),
    ("estimate", b"\xff"),
    ("used", '{"jobs": 1, "circuits": 1, "shots": 1, "seconds": -60.0, "usd": null}'),
    ("used", "9" * 5000),
    ("used", 5),
    ("created", math.inf),
    ("updated", 1e30),
    ("updated", -1.0),
    ("updated", "yesterday"),
    ("shots", -5),
    ("shots", 1.5),
    ("charge", "x"),
    ("device", b"ibm"),
    ("job_id", b"x"),
    ("owner", b"x"),
    ("settings", b"\x00"),
]


@pytest.mark.parametrize(("column", "value"), BAD, ids=[f"{column} {str(value)[:40]}" for column, value in BAD])
def test_a_row_with_bad_contents_is_one_error_and_can_be_deleted(ledger, column, value):
    row = opened(ledger)
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute(f"UPDATE jobs SET {column} = ?", (value,))
        db.commit()
    for use in (ledger.rows, lambda: ledger.row(row.id), lambda: ledger.find(row.key)):
        with pytest.raises(BackendError, match=rf"^Row {row.id} of the ledger has bad contents: .*{column}[^\n]*$"):
            use()
    assert ledger.clear(force=True) == 1
    assert ledger.rows() == []


@pytest.mark.parametrize("change", ["DELETE FROM about", "UPDATE about SET ledger = x'ff'"])
def test_what_a_ledger_says_of_itself_is_checked(ledger, change):
    opened(ledger)
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute(change)
        db.commit()
    with pytest.raises(BackendError, match="has bad contents"):
        opened(ledger, request(0.5))


def blobs():
    """Return contents that are no request: other bytes, another archive, and parts of ours changed."""
    with np.load(io.BytesIO(request().pack())) as parts:
        ours = dict(parts)
    about = json.loads(ours["about"].tobytes())

    def packed(**changes):
        stream = io.BytesIO()
        np.savez(stream, **{name: value for name, value in {**ours, **changes}.items() if value is not None})
        return stream.getvalue()

    def said(**changes):
        return packed(about=np.frombuffer(json.dumps(about | changes).encode(), dtype=np.uint8))

    return {
        "empty": b"",
        "text": b"no archive",
        "cut": request().pack()[:-40],
        "nothing": packed(circuits=None),
        "no values": packed(values_0=None),
        "circuits": packed(circuits=np.frombuffer(b"QISKIT\xff\xff", dtype=np.uint8)),
        "cut circuits": packed(circuits=ours["circuits"][:60]),
        "about": packed(about=np.frombuffer(b"[1", dtype=np.uint8)),
        "values": packed(values_0=np.ones((2, 9))),
        "texts": packed(values_0=np.array(["x"])),
        "objects": packed(values_0=np.array([{}], dtype=object)),
        "pubs": said(pubs=[{"circuit": 7, "observables": [[], []]}]),
        "no pubs": said(pubs=5),
        "precision": said(precision="x"),
        "device": said(device=5),
        "observables": said(pubs=[{"circuit": 0, "observables": [[1], [[["QQ", 1.0]]]]}]),
        "shape": said(pubs=[{"circuit": 0, "observables": [[7], [[["ZZ", 1.0]]]]}]),
    }


@pytest.mark.parametrize("content", [*blobs().values(), None, "text", 5], ids=[*blobs(), "null", "a text", "a number"])
def test_requests_and_values_that_are_none_of_ours_are_one_error(ledger, content):
    row = opened(ledger)
    ledger.sent(row.id, "job-1")
    ledger.finish(row.id, [Values(np.zeros(2), np.ones(2))], None)
    with closing(sqlite3.connect(ledger.path)) as db:
        if content is not None:
            db.execute("UPDATE jobs SET request = ?", (content,))
        db.execute("UPDATE jobs SET result = ?", (content,))
        db.commit()
    if content is not None:
        with pytest.raises(BackendError, match=f"^The request of row {row.id} of the ledger .* bad contents"):
            ledger.request(row.id)
    with pytest.raises(BackendError, match=rf"^The result of row {row.id} of the ledger .* (bad contents|not there)"):
        ledger.values(row.id)
