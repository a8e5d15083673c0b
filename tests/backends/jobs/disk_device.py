"""A device for tests: a service whose jobs are files in a folder, so that they outlive the process that sent them.

What goes wrong is scripted in the folder too: ``device.fault("submit", "drop_after")`` makes the next ``submit``, of
whichever process, lose its answer. Any method can ``drop``, be ``busy``, ``refuse`` or have its process killed; submit
can do so before or after the job was taken, and find can ``miss`` a job once, as a list that lags does.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.jobs.device import Bits, Cost, JobStatus, Values
from qiskit_qattn.backends.jobs.request import Request, pack_values, unpack_values
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError


class DiskDevice:
    """Jobs in a folder.

    Args:
        folder: Where they are kept, with what is to go wrong and a log of all calls.
        name: Name of the device.
        paid: Whether it asks for a budget.
        seconds: What a job is estimated to take.
        billed: What it takes.
        usd: Its price, or None.
    """

    settings = "resilience=0"

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "disk:test",
        paid: bool = False,
        seconds: float = 2.0,
        billed: float = 2.0,
        usd: float | None = None,
    ) -> None:
        self.folder, self.name, self.paid = folder, name, paid
        self.seconds, self.billed, self.usd = seconds, billed, usd
        folder.mkdir(exist_ok=True)

    def fault(self, method: str, *kinds: str) -> None:
        with self._state() as state:
            state["faults"].setdefault(method, []).extend(kinds)

    def hold(self, position: int | None = 1) -> None:
        """Keep jobs queued until :meth:`free`."""
        with self._state() as state:
            state["hold"] = position

    def free(self, outcome: str = "done") -> None:
        """Let all jobs end, as ``done`` or ``failed``."""
        with self._state() as state:
            state["hold"], state["outcome"] = None, outcome

    def lose(self) -> None:
        """Forget all jobs, as the end of its process does to a device that runs in one."""
        with self._state() as state:
            for job in state["jobs"]:
                job["lost"] = True

    @property
    def jobs(self) -> list[dict]:
        with self._state() as state:
            return state["jobs"]

    def calls(self, method: str) -> int:
        with self._state() as state:
            return state["calls"].get(method, 0)

    def submit(self, pubs: Sequence[EstimatorPub], precision: float, tag: str) -> str:
        kind = self._call("submit")
        if kind.partition(":")[0].endswith("_before"):
            self._fail(kind)
        with self._state() as state:
            job_id = f"job-{len(state['jobs']) + 1}"
            request = Request(tuple(pubs), precision, self.name, self.settings)
            (self.folder / f"{job_id}.request").write_bytes(request.pack())
            state["jobs"].append({"id": job_id, "tag": tag, "cancelled": False, "lost": False})
        self._fail(kind)
        return job_id

    def find(self, tag: str) -> list[str]:
        kind = self._call("find")
        self._fail(kind)
        if kind == "miss":
            return []
        return [job["id"] for job in self.jobs if job["tag"] == tag and self._where(job) in {"queued", "done"}]

    def status(self, job_id: str) -> JobStatus:
        self._fail(self._call("status"))
        with self._state() as state:
            where, position = self._where_in(self._job(state, job_id), state), state["hold"]
        if where == "queued":
            return JobStatus("queued", position)
        return JobStatus(
            where, message={"failed": "the qubits melted", "lost": "Its process has ended."}.get(where, "")
        )

    def result(self, job_id: str, pubs: Sequence[EstimatorPub]) -> list[Values]:
        self._fail(self._call("result"))
        stored = self.folder / f"{job_id}.result"
        if not stored.exists():
            request = Request.unpack((self.folder / f"{job_id}.request").read_bytes())
            seed = int(job_id.removeprefix("job-"))
            if isinstance(request.pubs[0], SamplerPub):
                found = StatevectorSampler(seed=seed).run(list(request.pubs)).result()
                stored.write_bytes(pack_values([Bits(dict(item.data.items())) for item in found]))
            else:
                found = StatevectorEstimator(seed=seed).run(list(request.pubs), precision=request.precision).result()
                stored.write_bytes(pack_values([Values(item.data.evs, item.data.stds) for item in found]))
        return unpack_values(stored.read_bytes())

    def usage(self, job_id: str) -> Cost:
        self._fail(self._call("usage"))
        return Cost(jobs=1, circuits=3, shots=300, seconds=self.billed)

    def cancel(self, job_id: str) -> None:
        self._fail(self._call("cancel"))
        with self._state() as state:
            self._job(state, job_id)["cancelled"] = True

    def abandon(self, tag: str) -> None:
        self._fail(self._call("abandon"))

    def estimate(self, pubs: Sequence[EstimatorPub], precision: float) -> Cost:
        self._fail(self._call("estimate"))
        return Cost(jobs=1, circuits=3, shots=300, seconds=self.seconds, usd=self.usd)

    def _call(self, method: str) -> str:
        """Log a call, and return what is to go wrong with it."""
        with self._state() as state:
            state["calls"][method] = state["calls"].get(method, 0) + 1
            kinds = state["faults"].get(method, [])
            return kinds.pop(0) if kinds else ""

    def _fail(self, kind: str) -> None:
        what, _, detail = kind.partition(":")
        match what.removesuffix("_before").removesuffix("_after"):
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "interrupt":
                raise KeyboardInterrupt
            case "drop":
                raise TransientBackendError(f"{self.name} dropped the connection.")
            case "busy":
                raise TransientBackendError(f"{self.name} is busy.", float(detail))
            case "refuse":
                raise BackendError(f"{self.name} refuses this.")
            case "lost":
                raise JobError(f"{self.name} does not know this job.")

    def _where(self, job: dict) -> str:
        with self._state() as state:
            return self._where_in(job, state)

    @staticmethod
    def _where_in(job: dict, state: dict) -> str:
        if job["lost"]:
            return "lost"
        if job["cancelled"]:
            return "cancelled"
        return "queued" if state["hold"] is not None else state["outcome"]

    @staticmethod
    def _job(state: dict, job_id: str) -> dict:
        return next(job for job in state["jobs"] if job["id"] == job_id)

    @contextmanager
    def _state(self) -> Iterator[dict]:
        """Read what the service knows, and write it back, alone among all processes.

        The file is replaced at once: a service forgets nothing when a client is killed in the middle of a call.
        """
        path = self.folder / "state.json"
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = {"jobs": [], "faults": {}, "calls": {}, "hold": None, "outcome": "done"}
            if path.exists():
                state = json.loads(path.read_text())
            yield state
            written = path.with_suffix(".new")
            written.write_text(json.dumps(state))
            written.replace(path)
