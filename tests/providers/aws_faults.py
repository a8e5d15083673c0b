"""Answers that AWS does not give, or only on a bad day: each as a change of the answer that it would have given.

``server.answers["GetQuantumTask"] = FAULTS["html"]`` changes all answers to an operation until the entry is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

HTML = b"<!DOCTYPE html><html><body><h1>Sign in to the guest network</h1></body></html>"


@dataclass(frozen=True)
class AnswerFault:
    """What happens to the answer to a request.

    Attributes:
        status: Its HTTP status, or None for that of the service.
        code: AWS's name of an error; the answer then has the form of one of the service's.
        body: From the body that the service would have sent to the one that is sent.
        headers: More headers.
        served: Whether the service does what was asked for.
        lost: Whether the connection closes before the answer, or after half of it.
    """

    status: int | None = None
    code: str | None = None
    body: Callable[[bytes], bytes] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    served: bool = True
    lost: Literal["all", "half"] | None = None

    @property
    def refuses(self) -> bool:
        """Whether it is the service's own word that it did nothing, and will not."""
        return self.code is not None and (self.status or 0) < 500 and self.status != 429 and not self.served

    def answer(self, operation: str, status: int, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the answer."""
        headers, status = dict(self.headers), self.status or status
        if self.code is not None and operation == "GetObject":
            return status, f"<Error><Code>{self.code}</Code><Message>as told</Message></Error>".encode(), headers
        if self.code is not None:
            body = json.dumps({"__type": self.code, "message": "as told"}).encode()
            return status, body, {"x-amzn-ErrorType": self.code, **headers}
        return status, body if self.body is None else self.body(body), headers


def _parsed(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Return the change of a body that changes its content, of JSON that is no JSON too."""

    def changed(body: bytes) -> bytes:
        try:
            return json.dumps(change(json.loads(body))).encode()
        except ValueError:
            return body

    return changed


def _values(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Return the change of a body that changes every value of its objects, those inside first."""

    def walk(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: change(walk(value)) for key, value in found.items()}
        return [walk(item) for item in found] if isinstance(found, list) else found

    return _parsed(walk)


def _of_another_type(value: Any) -> Any:
    """Return a number for a text, a text for a number, a list for an object and an object for a list."""
    if isinstance(value, str):
        return 17
    if isinstance(value, int | float):
        return f"{value} and more"
    return [value] if isinstance(value, dict) else {"item": value}


def _without_words(value: Any) -> Any:
    """Return an unknown word for one in capitals, such as a state."""
    return "SUPERPOSED" if isinstance(value, str) and value.isupper() else value


def _of_another_task(body: bytes) -> bytes:
    return body.replace(b"quantum-task/0", b"quantum-task/9")


def _always(body: bytes) -> Callable[[bytes], bytes]:
    return lambda _: body


FAULTS: dict[str, AnswerFault] = {
    # errors of the service
    "500": AnswerFault(500, "InternalServiceException"),
    "500_unserved": AnswerFault(500, "InternalServiceException", served=False),
    "503_html": AnswerFault(503, body=_always(HTML)),
    "404": AnswerFault(404, "ResourceNotFoundException", served=False),
    "404_html": AnswerFault(404, body=_always(HTML)),
    "403": AnswerFault(403, "AccessDeniedException", served=False),
    "403_empty": AnswerFault(403, body=_always(b"")),
    "400": AnswerFault(400, "ValidationException", served=False),
    "429": AnswerFault(429, "ThrottlingException", headers=(("Retry-After", "0"),), served=False),
    "429_nan": AnswerFault(429, "ThrottlingException", headers=(("Retry-After", "nan"),), served=False),
    "429_negative": AnswerFault(429, "ThrottlingException", headers=(("Retry-After", "-1e9"),), served=False),
    "429_infinite": AnswerFault(429, "ThrottlingException", headers=(("Retry-After", "inf"),), served=False),
    "302": AnswerFault(302, body=_always(HTML)),
    # connections
    "lost": AnswerFault(lost="all"),
    "lost_unserved": AnswerFault(lost="all", served=False),
    "half": AnswerFault(lost="half"),
    # no JSON
    "empty": AnswerFault(body=_always(b"")),
    "html": AnswerFault(body=_always(HTML)),
    "truncated": AnswerFault(body=lambda body: body[: len(body) // 2]),
    "binary": AnswerFault(body=_always(bytes(range(128, 256)))),
    "deep": AnswerFault(body=_always(b"[" * 100_000)),
    # JSON of another shape
    "null": AnswerFault(body=_always(b"null")),
    "list": AnswerFault(body=_always(b"[1, 2, 3]")),
    "text": AnswerFault(body=_always(b'"nothing"')),
    "no_keys": AnswerFault(body=_always(b"{}")),
    "nulls": AnswerFault(body=_values(lambda _: None)),
    "other_types": AnswerFault(body=_values(_of_another_type)),
    "other_words": AnswerFault(body=_values(_without_words)),
    "other_task": AnswerFault(body=_of_another_task),
}


def _result(change: Callable[[dict[str, Any]], Any]) -> AnswerFault:
    """Return the fault that changes each circuit's result in an object in S3."""

    def changed(found: Any) -> Any:
        for part in found.get("programResults", [{"executableResults": [found]}]):
            for item in part["executableResults"]:
                change(item)
        return found

    return AnswerFault(body=_parsed(changed))


def _shots(found: Any) -> Any:
    key = "requestedShots" if "requestedShots" in found["taskMetadata"] else "shots"
    found["taskMetadata"][key] *= 1000
    return found


def _order(found: Any) -> Any:
    for part in found.get("programResults", []):
        part["executableResults"].reverse()
    return found


#: Objects in S3 that are results, and not those of the task: ``FAULTS`` holds for ``GetObject`` too.
RESULT_FAULTS: dict[str, AnswerFault] = {
    "missing": AnswerFault(404, "NoSuchKey", served=False),
    "bucket_missing": AnswerFault(404, "NoSuchBucket", served=False),
    "other_schema": AnswerFault(
        body=_always(b'{"braketSchemaHeader": {"name": "braket.ir.openqasm.program", "version": "1"}, "source": "x"}')
    ),
    "unknown_schema": AnswerFault(body=_always(b'{"braketSchemaHeader": {"name": "os.path", "version": "1"}}')),
    "other_shots": AnswerFault(body=_parsed(_shots)),
    "no_samples": _result(lambda item: item.update(measurements=[])),
    "null_samples": _result(lambda item: item.update(measurements=None)),
    "few_samples": _result(lambda item: item.update(measurements=item["measurements"][:3])),
    "ragged": _result(lambda item: item["measurements"][0].append(1)),
    "no_bits": _result(lambda item: item["measurements"][0].__setitem__(0, 2)),
    "other_qubits": _result(lambda item: item.update(measuredQubits=[7, 8])),
    "no_qubits": _result(lambda item: item.update(measuredQubits=None)),
    "no_items": AnswerFault(
        body=_parsed(lambda found: {**found, "programResults": []} if "programResults" in found else {})
    ),
}
#: Program sets only: results in another order than the circuits.
OTHER_ORDER = AnswerFault(body=_parsed(_order))
