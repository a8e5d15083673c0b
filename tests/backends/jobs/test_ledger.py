"""The ledger's file, its rows and their states, shared by threads and processes."""

import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from qiskit_qattn.backends.jobs.device import Cost, Values
from qiskit_qattn.backends.jobs.ledger import Ledger, default_path
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.errors import BackendError, UnknownNameError

from .disk_client import small_pubs

COST = Cost(jobs=1, circuits=3, shots=300, seconds=2.5, usd=0.5)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "a folder" / "ledger.sqlite")


def request(angle=0.3, device="disk:test"):
    return Request.of(small_pubs(angle), 0.1, device, "resilience=0")


def opened(ledger, made=None, owner=None, **options):
    return ledger.open(made or request(), owner or ledger.new_owner(), COST, **options)


def test_a_job_from_sending_to_done(ledger, rng):
    owner = ledger.new_owner()
    row = opened(ledger, owner=owner)
    assert (row.state, row.owner, row.job_id, row.estimate, row.used, row.shots) == (
        "sending",
        owner.mark,
        None,
        COST,
        None,
        100,
    )
    assert row.tag.startswith(f"qattn-{row.key[:16]}-") and row.tag.endswith(f"-{row.id}")
    row = ledger.sent(row.id, "job-7")
    assert (row.state, row.job_id) == ("sent", "job-7")
    values = [Values(rng.normal(size=(2, 3)), rng.normal(size=(2, 3))), Values(np.array(0.5), np.array(0.1))]
    row = ledger.finish(row.id, values, Cost(seconds=3.0))
    assert (row.state, row.cost) == ("done", Cost(seconds=3.0))
    assert row == ledger.row(row.id) == ledger.claim(row.key, ledger.new_owner())
    np.testing.assert_array_equal(ledger.values(row.id)[0].evs, values[0].evs)
    assert ledger.request(row.id).key == row.key


def test_a_request_is_opened_once(ledger):
    first = opened(ledger)
    assert opened(ledger) is None
    other = opened(ledger, cached=False)
    assert other is not None and other.tag != first.tag
    ledger.close(first.id, "failed", "why")
    ledger.close(other.id, "cancelled", "")
    assert ledger.claim(first.key, ledger.new_owner()) is None
    assert opened(ledger).state == "sending"


def test_a_living_owner_keeps_its_row_and_one_that_has_ended_loses_it(ledger):
    first, second = ledger.new_owner(), ledger.new_owner()
    row = opened(ledger, owner=first)
    assert ledger.claim(row.key, second) == row  # not ours: its owner lives
    assert ledger.claim(row.key, second, cached=False) is None
    ledger.release(first)
    assert ledger.claim(row.key, second, cached=False).owner == second.mark
    late = opened(ledger, request(0.9))  # by an owner that nothing refers to
    assert ledger.claim(late.key, second).owner == second.mark


def test_only_the_owner_can_read_the_files(ledger):
    owner = ledger.new_owner()
    opened(ledger, owner=owner)
    with closing(sqlite3.connect(ledger.path)) as reader:
        reader.execute("SELECT count(*) FROM jobs").fetchone()  # keeps the two files beside it
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ledger.path.parent.iterdir()}
    files = dict.fromkeys(("ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal"), 0o600)
    assert modes == files | {"ledger.sqlite.owners": 0o700}
    [locked] = (ledger.path.parent / "ledger.sqlite.owners").iterdir()
    assert stat.S_IMODE(locked.stat().st_mode) == 0o600
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == 0o700
    ledger.path.chmod(0o644)
    ledger.rows()
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"(?s)ledger\.sqlite.*QATTN_LEDGER"):
        Ledger(path).rows()
    assert path.read_bytes() == content


def test_a_damaged_page_is_an_error(ledger):
    for angle in (0.1, 0.2, 0.3):
        opened(ledger, request(angle))
    content = bytearray(ledger.path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    ledger.path.write_bytes(content)
    with pytest.raises(BackendError, match=r"is damaged: .*Nothing was changed.*QATTN_LEDGER"):
        ledger.rows()
    assert ledger.path.read_bytes() == content


def test_anothers_database_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE jobs (mine)")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(BackendError, match="another program's database"):
        Ledger(path).rows()
    assert path.read_bytes() == before


def test_a_newer_version_is_an_error(ledger):
    opened(ledger)
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute("PRAGMA user_version=3")
    with pytest.raises(BackendError, match=r"has version 3, this release reads up to 2\. Update qiskit-qattn"):
        ledger.rows()


def test_a_path_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BackendError, match=r"Cannot use the ledger .*QATTN_LEDGER"):
        Ledger(tmp_path / "file" / "ledger.sqlite").rows()


def test_the_path_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "mine.sqlite"))
    assert Ledger().path == tmp_path / "mine.sqlite"
    monkeypatch.delenv("QATTN_LEDGER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path().name == "ledger.sqlite"
    assert tmp_path in default_path().parents


def test_rows_are_listed_filtered_and_found(ledger):
    first, second = opened(ledger), opened(ledger, request(device="other:x"))
    ledger.sent(first.id, "job-1")
    assert [row.id for row in ledger.rows()] == [second.id, first.id]
    assert [row.id for row in ledger.rows(states=["sent"])] == [first.id]
    assert [row.id for row in ledger.rows(device="other:")] == [second.id]
    assert ledger.rows(before=first.created) == []
    for text in (str(first.id), first.key, first.key[:12], "job-1"):
        assert ledger.find(text).id == first.id
    for text in ("", "no such job", "%"):
        with pytest.raises(UnknownNameError, match="No job in"):
            ledger.find(text)
    ledger.sent(second.id, "job-2")
    with pytest.raises(UnknownNameError, match="'job-' fits 2 jobs"):
        ledger.find("job-")


def test_clear_leaves_what_is_in_flight_unless_forced(ledger):
    rows = [opened(ledger, request(angle)) for angle in (0.1, 0.2, 0.3, 0.4)]
    ledger.sent(rows[1].id, "job-1")
    ledger.finish(rows[2].id, [], None)
    ledger.close(rows[3].id, "failed", "why")
    assert ledger.clear(before=rows[0].created) == 0
    assert ledger.clear(states=["done"]) == 1
    assert ledger.clear() == 1
    assert {row.state for row in ledger.rows()} == {"sending", "sent"}
    assert ledger.clear(force=True) == 2
    with pytest.raises(BackendError, match="was cleared"):
        ledger.row(rows[0].id)
    assert opened(ledger, request(0.1)).tag != rows[0].tag  # never given twice


def test_many_processes_may_make_and_use_it_at_once(ledger):
    program = "import sys; sys.path.insert(0, sys.argv[2]); from jobs.test_ledger import Ledger, opened, request\n"
    program += "for i in range(8): opened(Ledger(sys.argv[1]), request(i / 10))"
    command = [sys.executable, "-c", program, str(ledger.path), str(Path(__file__).parent.parent)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert len(ledger.rows()) == 8
    assert len({row.key for row in ledger.rows()}) == 8


def test_threads_share_it(ledger):
    found = []

    def work():
        found.append(opened(ledger))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([row for row in found if row is not None]) == 1
