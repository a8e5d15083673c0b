"""What IBM Quantum keeps and answers: devices, instances, sessions and jobs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .ibm_devices import Devices
from .ibm_faults import ApiError
from .ibm_jobs import FINAL, Job, count_work, now

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/test:instance::"
SECOND_CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/test:second::"
Query = dict[str, list[str]]


@dataclass
class Session:
    """A session ("dedicated") or a batch."""

    id: str
    backend_name: str
    mode: str
    max_ttl: int | None
    state: str = "open"
    accepting_jobs: bool = True
    elapsed_time: float = 0.0


class Service:
    """The state behind the server; every method expects the caller to hold the server's lock.

    Args:
        seed: job number n is simulated with seed + n.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.crns = [CRN]
        self.crn = CRN  # of the request that is answered
        self.devices = Devices()
        self.plan: Literal["open", "premium"] = "premium"
        self.usage_limit: int | None = None
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, Session] = {}
        self.failures: list[tuple[str, int | None]] = []
        self.held: Literal["Queued", "Running"] | None = None
        self.routes: list[tuple[str, Callable[..., Any]]] = [
            (r"POST /identity/token", self.token),
            (r"POST /v3/resources/search", self.instances),
            (r"GET /plan", self.plan_entry),
            (r"GET /instances/usage", self.usage),
            (r"GET /backends", self.devices.list),
            (r"GET /backends/(\w+)/(configuration|properties|status)", self.devices.describe),
            (r"POST /sessions", self.open_session),
            (r"GET /sessions/([\w-]+)", self.session),
            (r"PATCH /sessions/([\w-]+)", self.close_session),
            (r"DELETE /sessions/([\w-]+)/close", self.cancel_session),
            (r"POST /jobs", self.submit),
            (r"GET /jobs", self.list_jobs),
            (r"GET /jobs/([\w-]+)", self.job),
            (r"GET /jobs/([\w-]+)/results", self.results),
            (r"GET /jobs/([\w-]+)/metrics", self.metrics),
            (r"POST /jobs/([\w-]+)/cancel", self.cancel),
        ]

    def answer(self, method: str, path: str, query: Query, body: Any, crn: str = CRN) -> Any:
        """Return the JSON value, the text or the None that answers a request for an instance."""
        self.crn = crn
        for pattern, handler in self.routes:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                return handler(*match.groups(), query=query, body=body)
        raise ApiError(404, 1200, f"{method} {path} is not part of the test server.")

    # accounts

    def token(self, **_: Any) -> dict[str, Any]:
        """Return an access token that parses as a JWT and holds for a century."""
        parts = ({"alg": "RS256", "typ": "JWT"}, {"iat": 1_000_000_000, "exp": 4_000_000_000})
        head, claims = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
        return {"access_token": f"{head}.{claims}.c2lnbmF0dXJl", "token_type": "Bearer", "expires_in": 3600}

    def instances(self, **_: Any) -> dict[str, Any]:
        rest = {"service_plan_unique_id": "plan", "doc": {"extensions": {"x": 1}}, "tags": []}
        names = ["test", "second"]
        return {"items": [{"crn": crn, "name": name, **rest} for crn, name in zip(self.crns, names, strict=False)]}

    def plan_entry(self, **_: Any) -> dict[str, Any]:
        pricing = {"open": "free", "premium": "paid"}[self.plan]
        return {"overview_ui": {"en": {"display_name": self.plan}}, "metadata": {"pricing": {"type": pricing}}}

    def usage(self, **_: Any) -> dict[str, Any]:
        used = sum(job.used_seconds for job in self.jobs.values())
        limit = self.usage_limit
        answer = {
            "instance_id": CRN,
            "usage_consumed_seconds": used,
            "usage_limit_reached": limit is not None and used >= limit,
        }
        return answer if limit is None else answer | {"usage_limit_seconds": limit}

    # sessions

    def open_session(self, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.plan == "open" and body["mode"] == "dedicated":
            message = "You are not authorized to run a session when using the open plan."
            solution = "Create an instance of a different plan type or use a different execution mode."
            raise ApiError(400, 1352, message, solution)
        session = Session(f"session-{len(self.sessions)}", body["backend"], body["mode"], body.get("max_ttl"))
        self.sessions[session.id] = session
        return asdict(session)

    def find_session(self, session_id: str) -> Session:
        try:
            return self.sessions[session_id]
        except KeyError:
            raise ApiError(404, 1218, f"Session {session_id} not found.") from None

    def session(self, session_id: str, **_: Any) -> dict[str, Any]:
        return asdict(self.find_session(session_id))

    def close_session(self, session_id: str, **_: Any) -> None:
        """Accept no more jobs; those that wait still run."""
        session = self.find_session(session_id)
        session.accepting_jobs = False
        if not self.waiting(session_id):
            session.state = "closed"

    def cancel_session(self, session_id: str, **_: Any) -> None:
        """Cancel the session's waiting jobs and close it."""
        for job in self.waiting(session_id):
            job.status = "Cancelled"
        self.close_session(session_id)

    # jobs

    def submit(self, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.devices.find(body["backend"])
        session_id = body.get("session_id")
        if session_id is not None:
            session = self.find_session(session_id)
            if not session.accepting_jobs:
                raise ApiError(400, 1217, "Session has been closed.", "Create a new session.")
            session.state = "active"
        pubs, circuits, shots = count_work(body["program_id"], body["params"])
        number = len(self.jobs)
        job = Job(
            id=f"job-{number}",
            program=body["program_id"],
            backend=body["backend"],
            params=body["params"],
            tags=body.get("tags", []),
            session_id=session_id,
            max_seconds=body.get("cost"),
            seed=self.seed + number,
            created=now(),
            pubs=pubs,
            circuits=circuits,
            shots=shots,
            crn=self.crn,
        )
        self.jobs[job.id] = job
        if self.held is None:
            self.run(job)
        else:
            job.status = self.held
        return {"id": job.id, "backend": job.backend, "session_id": session_id}

    def run(self, job: Job) -> None:
        """Bring a job to its last state."""
        if self.failures:
            job.fail(*self.failures.pop(0))
        else:
            job.run(self.devices.find(job.backend))
        if job.session_id is not None:
            session = self.sessions[job.session_id]
            session.elapsed_time += job.used_seconds
            if not session.accepting_jobs and not self.waiting(session.id):
                session.state = "closed"

    def waiting(self, session_id: str | None = None) -> list[Job]:
        jobs = [job for job in self.jobs.values() if job.status not in FINAL]
        return [job for job in jobs if session_id in (None, job.session_id)]

    def find_job(self, job_id: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None or job.crn != self.crn:
            raise ApiError(404, 1291, f"Job not found. Job ID: {job_id}")
        return job

    def list_jobs(self, query: Query, **_: Any) -> dict[str, Any]:
        """List the jobs that have all tags asked for, newest first."""
        jobs = [job for job in self.jobs.values() if job.crn == self.crn]
        if query.get("sort") != ["ASC"]:
            jobs.reverse()
        jobs = [job for job in jobs if set(query.get("tags", [])) <= set(job.tags)]
        for key, field in (("session_id", "session_id"), ("backend", "backend"), ("program", "program")):
            if key in query:
                jobs = [job for job in jobs if getattr(job, field) == query[key][0]]
        if "pending" in query:
            jobs = [job for job in jobs if (job.status not in FINAL) == (query["pending"] == ["true"])]
        start, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["200"])[0])
        page = [job.describe(with_params=False) for job in jobs[start : start + limit]]
        return {"jobs": page, "count": len(jobs), "limit": limit, "offset": start}

    def job(self, job_id: str, query: Query, **_: Any) -> dict[str, Any]:
        return self.find_job(job_id).describe(with_params="exclude_params" not in query)

    def results(self, job_id: str, **_: Any) -> str:
        return self.find_job(job_id).result

    def metrics(self, job_id: str, **_: Any) -> dict[str, Any]:
        job = self.find_job(job_id)
        usage = {
            "qpu_charge_time_seconds": job.used_seconds,
            "status": "complete" if job.status in FINAL else "pending",
        }
        return {"timestamps": {"created": job.created, "running": None, "finished": None}, "usage": usage}

    def cancel(self, job_id: str, **_: Any) -> None:
        job = self.find_job(job_id)
        if job.status in FINAL:
            raise ApiError(409, 1209, f"Job {job_id} is in the state {job.status} and cannot be cancelled.")
        job.status = "Cancelled"
