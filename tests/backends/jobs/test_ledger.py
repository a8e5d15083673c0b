"""The ledger's file, its rows and their states, shared by threads and processes."""

import os
import socket
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
from qiskit_qattn.backends.jobs.owners import LockedFile
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


def snapshot(folder):
    """Return what can be seen of a folder: the kinds, modes and contents of all in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        known = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(known.st_mode) else None
        found[str(path.relative_to(folder))] = (known.st_mode, known.st_mtime_ns, content)
    return found


def database(path, **pragmas):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE jobs (mine)")
        for name, value in pragmas.items():
            db.execute(f"PRAGMA {name}={value}")
        db.commit()


def linked(path, make):
    make(path.with_name("target"))
    path.symlink_to(path.with_name("target"))


def bound(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


MAGIC = b"SQLite format 3\0"
OTHERS = {
    "an empty file": (lambda path: path.write_bytes(b""), "it is empty"),
    "a text": (lambda path: path.write_bytes(b"no database"), "it is not an SQLite file"),
    "a short header": (lambda path: path.write_bytes(MAGIC), "its header is cut off"),
    "a database": (database, "it is another program's database"),
    "a database with its own id": (lambda path: database(path, application_id=7), "it is another program's database"),
    "a folder": (lambda path: path.mkdir(), "it is a directory"),
    "a pipe": (os.mkfifo, "it is a pipe"),
    "a link to a text": (lambda path: linked(path, lambda at: at.write_text("mine")), "it is not an SQLite file"),
    "a link to a folder": (lambda path: linked(path, Path.mkdir), "it is a directory"),
    "a link to nothing": (lambda path: linked(path, lambda at: None), "is a link to nothing"),
    "a link to a database": (lambda path: linked(path, database), "it is another program's database"),
    "a link to a device": (lambda path: path.symlink_to(os.devnull), "it is a device"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "a socket": (bound, "it is a socket"),
}


@pytest.mark.parametrize(("make", "why"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("use", [Ledger.rows, Ledger.new_owner, Ledger.last_charge])
def test_what_is_no_ledger_is_left_alone(tmp_path, monkeypatch, make, why, use):
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    make(Path("ledger.sqlite"))
    for path in tmp_path.iterdir():
        if not path.is_symlink():
            path.chmod(0o644)
    before, null = snapshot(tmp_path), os.stat(os.devnull).st_mode
    with pytest.raises(BackendError, match=rf"(?s)^[^\n]*ledger\.sqlite.*({why}).*QATTN_LEDGER[^\n]*$"):
        use(Ledger(tmp_path / "ledger.sqlite"))
    assert (snapshot(tmp_path), os.stat(os.devnull).st_mode) == (before, null)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "y/" * 3000 + "z", "half \ud800", "/dev/null/ledger", "/dev/zero"])
def test_a_name_that_no_ledger_can_have_is_one_line(tmp_path, name):
    with pytest.raises(BackendError) as caught:
        Ledger(tmp_path / name).rows()
    assert "QATTN_LEDGER" in str(caught.value) and len(str(caught.value)) < 600
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_header_of_ours_with_garbage_behind_it_is_damaged(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).rows()
    content = path.read_bytes()[:100] + b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"is damaged: .*Nothing was changed.*QATTN_LEDGER"):
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


def test_a_ledger_of_the_version_before_is_brought_up_to_date(tmp_path):
    path = tmp_path / "ledger.sqlite"
    newer = Ledger(path)
    kept = [opened(newer, request(angle)) for angle in (0.1, 0.2, 0.3)]
    newer.sent(kept[1].id, "job-1")
    newer.finish(kept[2].id, [], Cost(seconds=1.0))
    with closing(sqlite3.connect(path)) as db:  # as version 1 had it
        db.execute("UPDATE jobs SET owner = 'host 12 1700000000.00 1a2b3c4d', used = replace(used, '1.0', '-60.0')")
        db.execute("DROP INDEX jobs_by_charge")
        db.execute("DROP INDEX jobs_by_work")
        db.execute("ALTER TABLE jobs DROP COLUMN work")
        db.execute("ALTER TABLE jobs DROP COLUMN charge")
        db.execute("ALTER TABLE about DROP COLUMN charges")
        db.execute("PRAGMA user_version=1")
        db.commit()
    rows = Ledger(path).rows()
    assert [row.tag for row in rows] == [row.tag for row in reversed(kept)]
    assert [(row.state, row.owner, row.used, row.charge) for row in rows] == [
        ("done", None, None, 0),
        ("sent", None, None, 0),
        ("sending", None, None, 0),
    ]
    assert opened(Ledger(path), request(0.4)).charge == 1


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


def test_the_ledger_stays_where_it_was_named(tmp_path, monkeypatch):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    monkeypatch.setenv("QATTN_LEDGER", "a ledger that stays.sqlite")
    before = Ledger()
    row = opened(before)
    monkeypatch.chdir(tmp_path / "second")
    assert before.row(row.id) == row == Ledger().row(row.id)
    assert os.listdir(tmp_path / "second") == []


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


def test_what_a_killed_process_left_while_it_made_a_ledger_is_removed(tmp_path):
    path = tmp_path / "the [ledger].sqlite"
    left = [f".{path.name}.aa.tmp", f".{path.name}.aa.tmp-wal", f".{path.name}.aa.tmp-shm"]
    kept = [".other.sqlite.aa.tmp", f".{path.name}.bb.tmp-wal", "mine"]
    for name in [*left, *kept]:
        (tmp_path / name).touch()
    making = LockedFile.new(tmp_path, f".{path.name}.", ".tmp")  # by a process that is at it
    Ledger(path).rows()
    assert {file.name for file in tmp_path.iterdir()} == {path.name, making.path.name, *kept}


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
