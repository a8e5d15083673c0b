"""Jobs as IBM Quantum keeps them, and their execution on a fake device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import prod
from typing import Any

import numpy as np
from ibm_quantum_schemas.common import CompressedTensorModel
from ibm_quantum_schemas.executor.version_2_0 import (
    ItemMetadataModel,
    MetadataModel,
    ParamsModel,
    QuantumProgramResultItemModel,
    QuantumProgramResultModel,
)
from qiskit.exceptions import QiskitError
from qiskit.primitives import BackendEstimatorV2
from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder
from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2
from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
from qiskit_ibm_runtime.quantum_program import QuantumProgram
from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import (
    passthrough_data_to_2_0,
    quantum_program_from_2_0,
)
from samplomatic.quantum_program import SamplexItem

SECONDS_A_SHOT = 250e-6  # the default repetition delay of IBM's devices
TOO_LONG = 1305  # the service's code for a job stopped at its limit
FINAL = ("Completed", "Failed", "Cancelled")


def now() -> str:
    """Return the present time in UTC, as the service writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Job:
    """What the service keeps of a job; the fields that count work are what a device would have executed."""

    id: str
    program: str
    backend: str
    params: dict[str, Any]
    tags: list[str]
    session_id: str | None
    max_seconds: int | None
    seed: int
    created: str
    pubs: int
    circuits: int
    shots: int
    crn: str
    status: str = "Queued"
    reason: str | None = None
    reason_code: int | None = None
    result: str = ""

    @property
    def seconds(self) -> float:
        """The device time that the job takes."""
        return 0.0 if self.backend.startswith("mock_") else self.shots * SECONDS_A_SHOT

    @property
    def used_seconds(self) -> float:
        """The device time that is charged so far; a job that was stopped has used its limit."""
        if self.reason_code == TOO_LONG:
            return float(self.max_seconds or 0)
        return self.seconds if self.status == "Completed" else 0.0

    def run(self, device: FakeBackendV2) -> None:
        """Execute the job, to its last state."""
        if self.max_seconds is not None and self.seconds > self.max_seconds:
            self.status, self.reason_code, self.reason = (
                "Cancelled",
                TOO_LONG,
                "Job ran longer than maximum execution time",
            )
            return
        run = {"executor": run_executor, "estimator": run_estimator}[self.program]
        try:
            self.result = run(self.params, device, self.seed, random=self.backend.startswith("mock_"))
            self.status = "Completed"
        except QiskitError as error:  # a gate that the device does not have, for one
            self.fail(str(error), None)

    def fail(self, reason: str, code: int | None) -> None:
        self.status, self.reason, self.reason_code, self.result = "Failed", reason, code, f"Traceback: {reason}"

    def describe(self, with_params: bool) -> dict[str, Any]:
        """Return the answer to `GET /jobs/<id>`."""
        state: dict[str, Any] = {"status": self.status}
        if self.reason:
            state["reason"] = self.reason
        if self.reason_code:
            state["reason_code"] = self.reason_code
        answer: dict[str, Any] = {
            "id": self.id,
            "backend": self.backend,
            "program": {"id": self.program},
            "created": self.created,
            "tags": self.tags,
            "session_id": self.session_id,
            "status": self.status,
            "state": state,
            "cost": self.max_seconds,
            "estimated_running_time_seconds": self.seconds,
            "usage": {"qpu_charge_time_seconds": self.used_seconds},
        }
        if with_params:
            answer["params"] = self.params
        return {key: value for key, value in answer.items() if value is not None}


def count_work(program: str, params: dict[str, Any]) -> tuple[int, int, int]:
    """Return how many PUBs, bound circuits and shots a job has."""
    if program == "estimator":
        pubs = decode_pubs(params)
        return len(pubs), len(pubs), 0
    quantum_program = decode_program(params)
    circuits = sum(prod(item.shape) for item in quantum_program.items)
    pubs = quantum_program.passthrough_data["post_processor"].get("num_pubs", len(quantum_program.items))  # a Sampler's
    return pubs, circuits, circuits * quantum_program.shots


def decode_program(params: dict[str, Any]) -> QuantumProgram:
    program, _ = quantum_program_from_2_0(ParamsModel.model_validate(params))
    for item in program.items:
        if isinstance(item, SamplexItem):
            item.samplex.finalize()
    return program


def run_executor(params: dict[str, Any], device: FakeBackendV2, seed: int, *, random: bool) -> str:
    """Execute a quantum program, or draw random bits in its place."""
    program = decode_program(params)
    result = run_quantum_program(device, program, SimulatorOptions(seed_simulator=seed))
    rng = np.random.default_rng(seed)
    items = []
    for item in result:
        values = dict(item)
        if random:
            draw = partial(rng.integers, 0, 2, dtype=bool)
            values = {name: draw(value.shape) if value.dtype == bool else value for name, value in values.items()}
        tensors = {name: CompressedTensorModel.from_numpy(value) for name, value in values.items()}
        items.append(QuantumProgramResultItemModel(results=tensors, metadata=ItemMetadataModel()))
    return QuantumProgramResultModel(
        data=items,
        metadata=MetadataModel(chunk_timing=[]),
        passthrough_data=passthrough_data_to_2_0(program.passthrough_data),
        semantic_role=program._semantic_role,
    ).model_dump_json()


def decode_pubs(params: dict[str, Any]) -> list[Any]:
    return [tuple(pub) for pub in json.loads(json.dumps(params["pubs"]), cls=RuntimeDecoder)]


def run_estimator(params: dict[str, Any], device: FakeBackendV2, seed: int, *, random: bool) -> str:
    """Execute what the older client, whose mitigation runs in the service, sends."""
    estimator = BackendEstimatorV2(backend=device, options={"seed_simulator": seed})
    return json.dumps(estimator.run(decode_pubs(params)).result(), cls=RuntimeEncoder)
