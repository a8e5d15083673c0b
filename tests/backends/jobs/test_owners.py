"""Owners of rows: at work as long as their process holds a lock, whatever clocks, numbers and names of hosts say."""

import gc
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from qiskit_qattn.backends.jobs.owners import Owner, is_alive
from qiskit_qattn.errors import BackendError

# A process that owns a piece of work, says so, and waits.
WORKER = """
import os, socket, sys, time
from pathlib import Path
from qiskit_qattn.backends.jobs.owners import Owner, is_alive
def answer(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
ledger = Path(sys.argv[1])
owner = Owner(ledger)
answer(owner.mark)
"""


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger.sqlite"


@contextmanager
def worker(ledger, then="input()", before=""):
    """Yield a process that owns a piece of work, and its mark."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + WORKER + then, str(ledger)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.communicate()


def files(ledger):
    return list(ledger.with_name("ledger.sqlite.owners").iterdir())


def test_a_piece_of_work_ends_by_itself(ledger):
    owner, other = Owner(ledger), Owner(ledger)
    mark = owner.mark
    assert mark != other.mark and len(files(ledger)) == 1
    assert owner.at_work and is_alive(mark, ledger)
    owner.end()
    assert not owner.at_work and not is_alive(mark, ledger)
    assert is_alive(other.mark, ledger)
    mark = other.mark
    del other
    gc.collect()
    assert not is_alive(mark, ledger)
    assert files(ledger) == []


@pytest.mark.parametrize("mark", [None, "", "host 12 1700000000.00 1a2b3c4d", "../../../etc/x y", "0" * 16])
def test_marks_of_another_form_are_of_owners_that_have_ended(ledger, mark):
    assert not is_alive(mark, ledger)


def test_another_process_is_at_work_until_it_ends(ledger):
    with worker(ledger) as (process, mark):
        assert is_alive(mark, ledger)
        os.kill(process.pid, signal.SIGSTOP)
        assert is_alive(mark, ledger)  # it may go on
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but not yet collected
        assert not is_alive(mark, ledger)
    assert len(files(ledger)) == 1
    owner = Owner(ledger)
    assert [path.name.removesuffix(".lock") for path in files(ledger)] == [owner.mark.split(" ")[0]]  # swept


def test_neither_the_clock_nor_the_name_of_the_host_matters(ledger):
    stepped = "import time, socket; time.time = lambda: 0.0; socket.gethostname = lambda: 'another'\n"
    with worker(ledger, before=stepped) as (_, one), worker(ledger, before=stepped) as (_, other):
        assert is_alive(one, ledger) and is_alive(other, ledger)
        for path in files(ledger):
            os.utime(path, (0, 0))
        assert is_alive(one, ledger) and is_alive(other, ledger)


def test_a_ledger_by_a_link_has_the_same_owners(ledger, tmp_path):
    ledger.touch()
    link = tmp_path / "link.sqlite"
    link.symlink_to(ledger)
    owner = Owner(link)
    with worker(ledger) as (_, mark):
        assert is_alive(mark, link) and is_alive(owner.mark, ledger)
        assert len(files(ledger)) == 2


def test_a_file_that_was_deleted_is_made_again(ledger):
    first = Owner(ledger)
    files(ledger)[0].unlink()
    second = Owner(ledger)
    with worker(ledger, then=f"answer(is_alive({second.mark!r}, ledger)); input()") as (process, _):
        assert process.stdout.readline() == "True\n"
    assert is_alive(first.mark, ledger) and is_alive(second.mark, ledger)


FORK = """
child = os.fork()
if child == 0:
    answer("child", is_alive(owner.mark, ledger), owner.at_work)
    own = Owner(ledger)
    answer("own", own.mark)
    time.sleep(1000)
input()
"""


def test_a_fork_does_not_hold_its_parents_lock(ledger):
    with worker(ledger, then=FORK) as (process, mark):
        said = dict(process.stdout.readline().strip().split(" ", 1) for _ in range(2))
        assert said["child"] == "True False"  # the parent's work, not the child's
        assert said["own"] != mark
        assert is_alive(mark, ledger) and is_alive(said["own"], ledger)
        process.kill()
        process.wait()
        assert not is_alive(mark, ledger)
        assert is_alive(said["own"], ledger)


FORK_AND_END = """
for _ in range(20):
    child = os.fork()
    if child == 0:
        Owner(ledger)
        sys.exit()  # runs what is registered for the end of a process
    os.waitpid(child, 0)
answer(is_alive(owner.mark, ledger))
input()
"""


def test_the_end_of_a_fork_leaves_its_parents_lock_alone(ledger):
    with worker(ledger, then=FORK_AND_END) as (process, mark):
        assert process.stdout.readline() == "True\n"
        assert is_alive(mark, ledger)


FORK_IN_THE_MIDDLE = """
import threading
stop = threading.Event()
def work():
    while not stop.is_set():
        Owner(ledger)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        mark = Owner(ledger).mark  # needs the lock that another thread may have held
        inherited = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
                     and ".owners/" in os.readlink(f"/proc/self/fd/{name}")]
        os._exit(len(inherited))
    children.append(child)
stop.set()
for thread in threads: thread.join()
answer(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files as Linux does")
def test_a_fork_while_other_threads_lock_files_inherits_none(ledger):
    with worker(ledger, then=FORK_IN_THE_MIDDLE) as (process, _):
        assert process.stdout.readline().split() == ["0"] * 20


def test_another_program_started_by_an_owner_does_not_hold_its_lock(ledger):
    started = "import subprocess; answer(subprocess.Popen(['sleep', '1000'], close_fds=False).pid); input()"
    with worker(ledger, then=started) as (process, mark):
        process.stdout.readline()
        process.kill()
        process.wait()
        assert not is_alive(mark, ledger)


def test_many_processes_make_and_sweep_files_at_once(ledger):
    busy = (
        "\nfor _ in range(200):\n    owner = None\n    owner = Owner(ledger)\n    assert is_alive(owner.mark, ledger)\n"
    )
    program = WORKER + busy + "print(all(map(is_alive, [owner.mark], [ledger])))"
    command = [sys.executable, "-c", program, str(ledger)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].split()[-1] for process in processes] == ["True"] * 3
    assert [process.returncode for process in processes] == [0] * 3


def test_a_folder_that_cannot_be_used_is_one_error(ledger):
    ledger.with_name("ledger.sqlite.owners").write_text("mine")
    with pytest.raises(BackendError, match=r"Cannot lock a file in .*ledger\.sqlite\.owners.* File exists"):
        Owner(ledger)
    assert ledger.with_name("ledger.sqlite.owners").read_text() == "mine"
