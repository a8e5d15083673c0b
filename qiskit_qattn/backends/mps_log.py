"""The truncation error of Aer's matrix product states, read from Aer's log in a child process.

Aer appends to one log for the lifetime of a process and copies all of it into every result. So a child process has the
log: it runs many parameter sets as one circuit, and is replaced when the log has grown long. It runs this module.
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
import re
import subprocess
import sys
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import ForkLock, in_forked_process

_LONG = 2**24  # characters of log after which the child is replaced
_AT_ONCE = 256  # parameter sets in one circuit
_ENTRY = re.compile(r"discarded_value=([^,\s}]+)|I\d+:")
_lock = ForkLock()
_child: subprocess.Popen[bytes] | None = None  # with unbuffered pipes, of which a fork copies no half-written content


def measured_angles(line: QuantumCircuit, values: np.ndarray, max_bond: int) -> np.ndarray:
    r"""Return :math:`\sum_k \arcsin \sqrt{\varepsilon_k}` for each parameter set, in radians, shape ``(N,)``.

    Args:
        line: A circuit of gates between neighbours; :math:`\varepsilon_k` is what gate k discards.
        values: Parameter values, shape ``(N, P)``.
        max_bond: The largest bond dimension.

    Raises:
        BackendError: If the child ends early; what it wrote to stderr says why.
    """
    chunks = [values[at : at + _AT_ONCE] for at in range(0, len(values), _AT_ONCE)]
    with _lock:
        return np.concatenate([_ask(line, chunk, max_bond) for chunk in chunks])


def angles_of(log: str, gates: int, count: int) -> np.ndarray:
    """Return the sum of angles of each of ``count`` circuits that ran one after the other.

    Args:
        log: Aer's log: what a gate discards, if anything, then the line of the gate itself.
        gates: Two-qubit gates in each circuit.
        count: Circuits.

    Raises:
        BackendError: If the log is of another form.
    """
    angles, done = np.zeros(count), 0
    for entry in _ENTRY.finditer(log):
        if entry[1] is None:
            done += 1
        elif done < gates * count:
            angles[done // gates] += math.asin(math.sqrt(min(1.0, float(entry[1]))))
    if done != gates * count:
        raise BackendError(f"Aer's log of matrix product states has {done} gates, expected {gates * count}.")
    return angles


def _ask(line: QuantumCircuit, values: np.ndarray, max_bond: int) -> np.ndarray:
    """Return the sums of angles of a circuit that the child runs."""
    global _child
    if _child is None:
        command = [sys.executable, "-m", __name__]
        _child = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert _child.stdin is not None and _child.stdout is not None
    reusable = False
    try:
        _write(_child.stdin.fileno(), (line, values, max_bond))
        new, total = _read(_child.stdout.fileno())
        reusable = total < _LONG
    except (EOFError, BrokenPipeError) as error:
        raise BackendError("Aer ended while its truncation error was measured; see its message above.") from error
    finally:
        if not reusable:
            _end()
    gates = sum(len(item.qubits) == 2 for item in line.data if item.name != "barrier")
    return angles_of(new, gates, len(values))


def _write(pipe: int, content: Any) -> None:
    data = memoryview(pickle.dumps(content))
    for part in (memoryview(len(data).to_bytes(8, "big")), data):
        while part:
            part = part[os.write(pipe, part) :]


def _read(pipe: int) -> Any:
    """Return what :func:`_write` wrote.

    Raises:
        EOFError: If the other end is closed.
    """
    return pickle.loads(_exactly(pipe, int.from_bytes(_exactly(pipe, 8), "big")))


def _exactly(pipe: int, size: int) -> bytes:
    parts = []
    while size:
        parts.append(os.read(pipe, size))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    return b"".join(parts)


@atexit.register
def _end() -> None:
    """Stop the child."""
    global _child
    if _child is not None:
        _child.kill()
        _child.communicate()  # closes the pipes
        _child = None


@in_forked_process
def _leave_to_parent() -> None:
    """Close the pipes of the parent's child; this process starts one of its own."""
    global _child
    if _child is not None:
        for pipe in (_child.stdin, _child.stdout):
            if pipe is not None:
                pipe.close()
        _child.returncode = 0  # it is not ours to wait for
        _child = None


def _serve() -> None:
    """Run the circuits that come on stdin; answer with the new part of the log and its total length."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what Aer prints goes to stderr
    length = 0
    while True:
        try:
            line, values, max_bond = _read(0)
        except EOFError:
            return
        log = _run(line, values, max_bond)
        _write(answers, (log[length:], len(log)))
        length = len(log)


def _run(line: QuantumCircuit, values: np.ndarray, max_bond: int) -> str:
    """Run a circuit with each parameter set, as one circuit that starts over each time, and return the log."""
    from qiskit_aer import AerSimulator  # it also gives circuits the two methods used below

    n = line.num_qubits
    zeros = [(np.array([[1.0]]), np.array([[0.0]]))] * n, [np.array([1.0])] * (n - 1)
    combined = QuantumCircuit(n)
    for row in values:
        combined.set_matrix_product_state(zeros)
        combined.compose(line.assign_parameters(row), inplace=True)
    combined.save_expectation_value(SparsePauliOp("I" * n), range(n))
    simulator = AerSimulator(
        method="matrix_product_state",
        matrix_product_state_max_bond_dimension=max_bond,
        mps_log_data=True,
        chop_threshold=0.0,  # log all that is discarded
        enable_truncation=False,  # qubits that are not measured count as well
    )
    result = simulator.run(combined, shots=1).result()
    if not result.success:
        raise BackendError(f"Aer could not run the circuit: {result.status}")
    return result.results[0].metadata["MPS_log_data"][1:-1]


if __name__ == "__main__":
    _serve()
