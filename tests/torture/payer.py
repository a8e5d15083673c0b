"""The processes that pay: each opens a device with the provider's real client, and runs requests through the ledger."""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime.accounts import management
from qiskit_ibm_runtime.api.session import PostForcelistRetry
from urllib3.util import connection

from qiskit_qattn.backends.jobs import client, retries, runner
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.errors import BackendError, QattnError
from tests.providers.ibm_client import small_pub

from .services import FORK, Services

HANG = 30.0  # seconds in which everything must have ended
_AWS = "?s3=results/here&shots=64&retries=2"
#: What the devices are opened as; a job is estimated at two seconds on ``ibm``. ``plain`` takes a job in two tasks.
STRINGS = {
    "ibm": "ibm:test_manila?optimization=0&resilience=0&shots=64&retries=2",
    "braket": f"braket:arn:aws:braket:eu-north-1::device/qpu/iqm/Test-Garnet{_AWS}",
    "named": f"braket:test-garnet{_AWS}",
    "plain": f"braket:arn:aws:braket:us-east-1::device/qpu/maker/Test-Plain{_AWS}",
}
SAMPLED = " samples"  # at the end of a name in STRINGS: the device's sampler is used
TILED = " side by side"  # at the end of a name in STRINGS: circuits of two qubits share the device's
STRINGS |= {f"{name}{TILED}": f"{STRINGS[name]}&tiles=2&tile_spacing=0" for name in ("ibm", "braket", "plain")}
STRINGS |= {f"{name}{SAMPLED}": STRINGS[name] for name in ("ibm", "plain")}


def provider_of(name: str) -> str:
    """Return whose device a name in ``STRINGS`` stands for."""
    return "ibm" if name.startswith("ibm") else "braket"


@dataclass(frozen=True)
class Order:
    """What a paying process is to do.

    Attributes:
        provider: What it opens: a name in ``STRINGS``.
        ledger: The ledger's file.
        numbers: Which requests it runs, in this order.
        options: More options of the backend string.
        proxied: Whether the service is the client's proxy, so that the client repeats some requests by itself.
        clock: Seconds by which this process's clock is wrong.
        file_size: Bytes that a file may have at most, as on a full disk; None for any number.
        act: What it does in place of running the requests, with the backend: see ``ACTS``.
        begin: When it begins, in seconds of the monotonic clock, so that others have opened the device too.
        workers: Number of forked processes that run a share of the requests each.
    """

    provider: str
    ledger: Path
    numbers: Sequence[int]
    options: str = "budget=unlimited&timeout=20"
    proxied: bool = False
    clock: float = 0.0
    file_size: int | None = None
    act: str = "run"
    begin: float = 0.0
    workers: int = 0


@dataclass
class Outcome:
    """What a paying process told at its end.

    Attributes:
        values: By request key, whether its values are as they should be.
        error: Its last error, if it is one of ours.
        trace: A traceback, which nobody should see.
        hung: Whether it had to be killed after 30 seconds.
        killed: Whether it was killed on purpose.
        requests: On a group, how many requests its devices had.
    """

    values: dict[str, bool] = field(default_factory=dict)
    error: str = ""
    trace: str = ""
    hung: bool = False
    killed: bool = False
    requests: int = 0


class Payer:
    """A paying process, forked from a warm one."""

    def __init__(self, services: Services, order: Order) -> None:
        self._pipe, other = FORK.Pipe(duplex=False)
        self.stderr = order.ledger.with_name(f"stderr-{time.monotonic_ns()}")
        self.process: BaseProcess = FORK.Process(target=_pay, args=(services, order, other, self.stderr))
        self.process.start()
        other.close()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def signal(self, number: int) -> None:
        if self.process.pid is not None and self.alive:
            os.kill(self.process.pid, number)

    def end(self, within: float = HANG) -> Outcome:
        """Wait for its end, and return what it told."""
        found = Outcome()
        deadline = time.monotonic() + within
        while self.alive and time.monotonic() < deadline:
            if self._pipe.poll(0.02):
                break
        try:
            if self._pipe.poll(0):
                found = self._pipe.recv()
        except EOFError:
            pass  # it was killed
        self.process.join(max(1.0, deadline - time.monotonic()))
        if self.alive:
            self.signal(signal.SIGUSR1)  # it writes down where it hangs
            time.sleep(0.5)
            self.process.kill()
            self.process.join()
            found.hung = True
            found.error = self.stderr.read_text(errors="replace")[-3000:]
        found.killed = self.process.exitcode == -signal.SIGKILL and not found.hung
        if not found.trace and self.stderr.is_file():
            found.trace = _traceback(self.stderr.read_text(errors="replace"))
        return found


def _traceback(text: str) -> str:
    """Return the text of a first traceback, but for Ctrl-C in a finalizer of another library, which Python prints."""
    parts = re.split(r"^(?=Exception ignored in|Traceback)", text, flags=re.MULTILINE)
    for before, part in zip(["", *parts], parts, strict=False):
        ignored = before.startswith("Exception ignored") and part.rstrip().endswith("KeyboardInterrupt:")
        if part.startswith("Traceback") and not ignored:
            return part
    return ""


@cache
def _circuit(provider: str) -> tuple[QuantumCircuit, list[Any]]:
    """Return a circuit and its observables; made before processes fork, which transpiling does not survive."""
    if provider == "ibm":
        return small_pub()[:2]
    angle = Parameter("x")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    return circuit, [[SparsePauliOp(pauli)] for pauli in ("ZZ", "XX", "ZI")]


@cache
def _measured(provider: str) -> QuantumCircuit:
    """Return the circuit with its two qubits measured."""
    plain = _circuit(provider.removesuffix(SAMPLED))[0]
    circuit = plain.copy()
    circuit.add_register(ClassicalRegister(2, "meas"))
    circuit.measure(range(2) if plain.layout is None else plain.layout.final_index_layout(), range(2))
    return circuit


def pubs(provider: str, number: int) -> list[Any]:
    """Return the PUBs of a request; of circuits side by side, those that are to be composed."""
    if provider.endswith(SAMPLED):
        return [(_measured(provider), [[0.1 + 0.3 * number]])]
    angles = [[0.1 + 0.3 * number]] * (1 + provider.endswith(TILED))
    return [(*_circuit(provider), angles)]


def right(number: int, found: Any) -> bool:
    """Return whether values of a request are those of its circuit, within noise and five standard errors."""
    angle = 0.1 + 0.3 * number
    if "meas" in found[0].data:
        outcomes = found[0].data.meas.get_int_counts()
        ones = sum(count for outcome, count in outcomes.items() if outcome & 1) / sum(outcomes.values())
        return found[0].data.meas.num_bits == 2 and bool(abs(ones - np.sin(angle / 2) ** 2) < 0.45)
    exact = np.array([[1.0], [np.sin(angle)], [np.cos(angle)]])
    return found[0].data.evs.shape[0] == 3 and bool(np.abs(found[0].data.evs - exact).max() < 0.9)


_BACKENDS: dict[str, Backend] = {}


def key_of(backend: Backend, number: int, provider: str) -> str:
    if provider.endswith(SAMPLED):
        return backend.sampler.request(pubs(provider, number)).key  # type: ignore[attr-defined]
    device, managed = backend.estimator.device, backend.estimator  # type: ignore[attr-defined]
    return Request.of(_sent(backend, number, provider)[0], managed.precision, device.name, device.settings).key


def _sent(backend: Backend, number: int, provider: str) -> tuple[list[Any], Callable[[Any], Any]]:
    """Return the PUBs of a request as they are sent, and what makes its results of theirs."""
    given = pubs(provider, number)
    if backend.tiling is None:
        return given, lambda results: results
    tiled = backend.tiling.tiled([EstimatorPub.coerce(pub, backend.precision) for pub in given])
    return tiled.pubs, lambda results: tiled.split(list(results))


def _run_one(backend: Backend, number: int, provider: str) -> Any:
    if provider.endswith(SAMPLED):
        return backend.sampler.run(pubs(provider, number)).result()
    sent, split = _sent(backend, number, provider)
    return split(backend.estimator.run(sent).result())


def opened(order: Order) -> str:
    """Return the backend string of an order, whose options come before those of its device."""
    where, _, options = STRINGS[order.provider].partition("?")
    given = {item.partition("=")[0]: item for item in (*options.split("&"), *order.options.split("&"))}
    return f"{where}?{'&'.join(given.values())}"


def keys(services: Services, provider: str, numbers: Sequence[int]) -> dict[int, str]:
    """Return the keys of requests; opens the device in this process."""
    if provider not in _BACKENDS:
        services("calm")
        order = Order(provider, Path(tempfile.mkdtemp()) / "ledger.sqlite", numbers)
        enter(services, order)
        _BACKENDS[provider] = get_backend(opened(order))
        _run_one(_BACKENDS[provider], 0, provider)  # loads what is loaded when it is first used
        shutil.rmtree(order.ledger.parent)
    return {number: key_of(_BACKENDS[provider], number, provider) for number in numbers}


def enter(services: Services, order: Order) -> None:
    """Make this process one that finds the services, as if it were just started."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)
    os.environ |= services.environment[provider_of(order.provider)] | {"QATTN_LEDGER": str(order.ledger)}
    create = connection.create_connection
    if order.proxied:
        address = f"http://127.0.0.1:{services.port}"
        os.environ |= {"http_proxy": address, "https_proxy": address, "no_proxy": ""}
    elif provider_of(order.provider) == "ibm" and not hasattr(create, "found_here"):

        def connect(where: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
            port = services.port if where[0].endswith(".quantum.test") else where[1]
            return create(("127.0.0.1", port), *args, **options)

        connect.found_here = True  # type: ignore[attr-defined]
        connection.create_connection = connect  # type: ignore[assignment]
    management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE = "/nowhere/qiskit-ibm.json"
    # Waits are shortened, what is waited for is not changed.
    PostForcelistRetry.get_backoff_time = lambda _: 0.0  # type: ignore[method-assign]
    retries.BACKOFF = 0.05
    runner.LONGEST_POLL = 0.2


def _pay(services: Services, order: Order, pipe: Connection, stderr: Path) -> None:
    with stderr.open("w") as stream:
        os.dup2(stream.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    faulthandler.register(signal.SIGUSR1)
    found = Outcome()
    try:
        enter(services, order)
        _spoil(order)
        backend: Any = None if order.act == "group" else get_backend(opened(order))
        time.sleep(max(0.0, order.begin - time.monotonic()))
        ACTS[order.act](backend, order, found)
    except QattnError as error:
        found.error = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        found.error = "KeyboardInterrupt"
    except BaseException:
        found.trace = traceback.format_exc()
    pipe.send(found)
    pipe.close()


def _spoil(order: Order) -> None:
    """Make the process's clock wrong, or its disk full."""
    if order.clock:
        now, created = time.time, psutil.Process.create_time
        time.time = lambda: now() + order.clock
        psutil.Process.create_time = lambda self: created(self) + order.clock  # type: ignore[method-assign]
    if order.file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_size, resource.RLIM_INFINITY))


def _run(backend: Backend, order: Order, found: Outcome) -> None:
    """Run every request; an error ends only its own, so that the next is tried."""
    for number in order.numbers:
        try:
            result = _run_one(backend, number, order.provider)
            found.values[key_of(backend, number, order.provider)] = right(number, result)
        except QattnError as error:
            found.error = f"{type(error).__name__}: {error}"


def _stop(backend: Backend, order: Order, found: Outcome) -> None:
    """Run requests until Ctrl-C, pressed once or twice, and then, in the same process, again."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _run(backend, order, found)
    except KeyboardInterrupt:
        found.error = "KeyboardInterrupt"
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _run(backend, order, found)


def _cancel(backend: Backend, order: Order, found: Outcome) -> None:
    """Cancel all jobs that are on their way."""
    ledger = Ledger()
    for row in ledger.rows(states=("sending", "sent")):
        client.cancel(ledger, row, backend.estimator.device)  # type: ignore[attr-defined]


def _share(backend: Backend, order: Order, found: Outcome) -> None:
    """Fork workers that run a share of the requests each, on the estimator that was opened before."""
    pipes = []
    for worker in range(order.workers):
        own = Order(order.provider, order.ledger, order.numbers[worker :: order.workers])
        pipe, other = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_worker, args=(backend, own, other))
        process.start()
        other.close()
        pipes.append((pipe, process))
    for pipe, process in pipes:
        try:
            part = pipe.recv()
            found.values |= part.values
            found.trace = found.trace or part.trace
            found.error = found.error or part.error
        except EOFError:
            found.trace = found.trace or f"a worker ended with {process.exitcode}"
        process.join()


def _worker(backend: Backend, order: Order, pipe: Connection) -> None:
    found = Outcome()
    try:
        _run(backend, order, found)
    except BaseException:
        found.trace = traceback.format_exc()
    pipe.send(found)


ACTS: dict[str, Callable[[Backend, Order, Outcome], None]] = {
    "run": _run,
    "stop": _stop,
    "cancel": _cancel,
    "share": _share,
}
__all__ = ["HANG", "STRINGS", "BackendError", "Order", "Outcome", "Payer", "keys", "pubs", "right"]
