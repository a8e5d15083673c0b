"""Requests made up from the server's own description: none makes it fail, and all answers are as described."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .servers import Serve, Served

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = {"what fits": GenerationMode.POSITIVE, "what does not": GenerationMode.NEGATIVE}


def description(served: Served, mode: str) -> dict[str, Any]:
    """Return the server's description; for what fits, with names, prompts and fields that it has an answer to."""
    found: dict[str, Any] = httpx2.get(f"{served.url}/openapi.json").json()
    for name in ("CompletionRequest", "ChatRequest"):
        fields = found["components"]["schemas"][name]["properties"]
        fields["model"] = {"enum": ["verse"], "type": "string"}
        if mode == "what fits":
            fields |= {field: {"type": "integer", "minimum": 1, "maximum": 4} for field in ("max_tokens", "n")}
            fields["prompt"] = {"type": "string", "pattern": "^[adeghiknot ]{1,8}$"}
            for field, about in list(fields.items()):
                if about.get("description", "").startswith("Not supported") or field == "stream_options":
                    del fields[field]
    return found


def statuses(served: Served, operation: Any, mode: str, examples: int) -> set[int]:
    """Return the status codes of requests to one operation, whose answers are as it describes them."""
    seen = set()

    @given(case=operation.as_strategy(generation_mode=MODES[mode]))
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        answer = case.call(base_url=served.url, timeout=30)
        case.validate_response(answer, checks=CHECKS)
        seen.add(answer.status_code)

    ask()
    return seen


def check(served: Served, mode: str, examples: int, *, methods: set[str]) -> None:
    schema = schemathesis.openapi.from_dict(description(served, mode))
    operations = [found.ok() for found in schema.get_all_operations() if found.ok().method in methods]
    seen = {each.path: statuses(served, each, mode, examples) for each in operations}
    assert (200 if mode == "what fits" else 400) in seen["/v1/completions"]
    assert served.engine.stats()["failed"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_few_requests(serve: Serve, mode: str) -> None:
    check(serve(), mode, 5, methods={"post"})


@pytest.mark.more
@pytest.mark.parametrize("mode", MODES)
def test_many_requests(serve: Serve, mode: str) -> None:
    check(serve(), mode, 300, methods={"get", "post"} if mode == "what fits" else {"post"})  # the others take nothing
