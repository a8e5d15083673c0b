"""Processes that fork while other threads hold locks: nothing waits for a thread that is not there."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

# In each program another thread is in the middle of something while this one forks; `fork` returns a child's exit code.
COMMON = """
import os, signal, sys, threading, time, warnings
from pathlib import Path
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which is what is tried here
folder = Path(sys.argv[1])
def fork(work):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(100)  # kills a child that hangs
    os._exit(0 if work() in (None, True) else 1)
def beside(work):
    entered, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=(entered, leave), daemon=True)
    thread.start()
    entered.wait()
    return leave
"""


def run(program, folder):
    """Return what a program prints, once it has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_lock_is_open_in_a_forked_process(tmp_path):
    program = """
    from qiskit_qattn.forks import ForkLock
    lock, own = ForkLock(), ForkLock()
    def hold(entered, leave):
        with lock, lock:
            entered.set()
            leave.wait()
    leave = beside(hold)
    def work():
        with lock, own:  # `own` is this thread's in parent and child
            pass
    with own:
        print(fork(work))
    with own:
        leave.set()
    with lock:
        print("parent")
    """
    assert run(program, tmp_path) == ["0", "parent"]


def test_a_fork_waits_for_what_must_not_be_forked(tmp_path):
    program = """
    from qiskit_qattn.forks import no_fork
    state = ["whole"]
    def hold(entered, leave):
        with no_fork:
            state[0] = "half"
            entered.set()
            leave.wait(0.3)
            state[0] = "whole"
    beside(hold)
    def work():
        with no_fork:
            return state[0] == "whole"
    print(fork(work))
    with no_fork:
        print(fork(work))
    """
    assert run(program, tmp_path) == ["0", "0"]


def test_a_ledger_is_forked_between_transactions(tmp_path):
    program = """
    sys.path.insert(0, "tests/backends")
    from jobs.test_ledger import Ledger, opened, request
    ledger = Ledger(folder / "ledger.sqlite")
    rows = []
    def write():
        for step in range(40):
            rows.append(opened(ledger, request(step / 100)))
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads: thread.start()
    def work():
        return opened(ledger, request(time.monotonic())) is not None and len(ledger.rows()) > 0
    print(*(fork(work) for _ in range(10)))
    for thread in threads: thread.join()
    print(len(ledger.rows()))
    """
    assert run(program, tmp_path) == ["0"] * 10 + ["50"]


def test_an_estimator_is_forked_while_it_sends(tmp_path):
    program = """
    sys.path.insert(0, "tests/backends")
    from jobs.on_disk import estimator_of
    from jobs.disk_client import small_pubs
    from jobs.disk_device import DiskDevice
    from jobs.test_ledger import Ledger
    class Slow(DiskDevice):
        entered, leave = threading.Event(), threading.Event()
        def submit(self, pubs, precision, tag):
            if threading.current_thread() is not threading.main_thread():
                self.entered.set()
                self.leave.wait()
            return super().submit(pubs, precision, tag)
    device, ledger = Slow(folder / "device"), Ledger(folder / "ledger.sqlite")
    estimator = estimator_of(device, ledger, timeout=90)
    before = estimator.run(small_pubs(0.1))
    thread = threading.Thread(target=lambda: estimator.run(small_pubs(0.2)).result())
    thread.start()
    device.entered.wait()
    def other():
        return estimator.run(small_pubs(0.3)).result()[0].metadata["job_id"] == "job-2"
    def same():
        threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getppid(), signal.SIGUSR1))).start()
        return estimator.run(small_pubs(0.2)).result()[0].metadata["job_id"] == "job-3"  # the parent's
    def inherited():
        return before.result()[0].metadata["job_id"] == "job-1" and not before._owner.at_work
    signal.signal(signal.SIGUSR1, lambda *_: device.leave.set())
    print(fork(other), fork(same), fork(inherited))
    thread.join()
    print(before.result()[0].metadata["job_id"], len(device.jobs), *(row.state for row in ledger.rows()))
    """
    assert run(program, tmp_path) == ["0", "0", "0", "job-1", "3", "done", "done", "done"]


def test_matrix_product_states_are_forked_while_they_are_measured(tmp_path):
    pytest.importorskip("qiskit_aer")
    program = """
    import numpy as np
    from qiskit.circuit.library import real_amplitudes
    from qiskit_qattn.backends.mps import MPSEstimator
    circuit = real_amplitudes(4, entanglement="linear", reps=3)
    values = np.random.default_rng(7).normal(size=(100, circuit.num_parameters))
    def angles():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = MPSEstimator(max_bond=2).run([(circuit, "ZZZZ", values)]).result()[0]
        return np.append(data.data.evs, data.metadata["truncation_error"])
    expected, found, stop = angles(), [], threading.Event()
    def repeat():
        while not stop.is_set():
            found.append(np.array_equal(angles(), expected))
    thread = threading.Thread(target=repeat)
    thread.start()
    while not found:
        time.sleep(0.001)
    print(*(fork(lambda: np.array_equal(angles(), expected)) for _ in range(2)))
    stop.set()
    thread.join()
    print(all(found), len(found) > 0, np.array_equal(angles(), expected))
    """
    assert run(program, tmp_path) == ["0"] * 2 + ["True"] * 3


def test_caches_and_circuit_breakers_are_forked_while_they_are_used(tmp_path):
    program = """
    from qiskit_qattn.backends.jobs.retries import Caller
    from qiskit_qattn.simulation.cache import ResultPool
    pool = ResultPool()
    class Key:
        def __init__(self, entered, leave): self.entered, self.leave = entered, leave
        def __hash__(self):
            self.entered.set()
            self.leave.wait()
            return 0
    leave = beside(lambda entered, leave: pool.take(Key(entered, leave)))
    def call(entered, leave):
        def function():
            entered.set()
            leave.wait()
        Caller("far:one", 0)(function)
    other = beside(call)
    def work():
        pool.give(1, "x")
        return pool.take(1) == "x" and Caller("far:one", 0)(lambda: 5) == 5
    print(fork(work))
    leave.set(), other.set()
    """
    assert run(program, tmp_path) == ["0"]
