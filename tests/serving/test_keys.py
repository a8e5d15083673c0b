"""Keys of a server: hashed, named, revocable, and read again while it runs."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from typer.testing import CliRunner, Result

from qiskit_qattn.cli.app import app
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.serving.app import create_app
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.keys import Keys, create_key, read_keys, revoke_key
from qiskit_qattn.serving.served_model import ServedModel
from qiskit_qattn.serving.settings import Settings

from .servers import Serve


def qattn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def test_a_key_is_found_by_its_secret_which_the_file_has_not(file: Path) -> None:
    secrets = {name: create_key(file, name) for name in ("alice", "bob")}
    keys = Keys(file)
    for name, secret in secrets.items():
        found = keys.find(secret)
        assert found is not None and found.name == name
        assert secret not in file.read_text() and sha256(secret.encode()).hexdigest() in file.read_text()
        assert keys.find(secret[:-1]) is None and keys.find(secret + "x") is None
    assert keys.find("") is None and keys.find("\udc80") is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_revoked_key_is_refused_and_its_name_free_again(file: Path) -> None:
    first = create_key(file, "alice")
    keys = Keys(file)
    with pytest.raises(ConfigError, match="revoke it first"):
        create_key(file, "alice")
    revoke_key(file, "alice")
    assert keys.find(first) is None and keys and not keys.valid()
    second = create_key(file, "alice")
    assert keys.find(second) is not None and keys.find(first) is None
    with pytest.raises(UnknownNameError, match="bob"):
        revoke_key(file, "bob")


def test_keys_of_the_environment_are_secrets_or_hashes() -> None:
    secret = "a secret of one's own"
    text = f"plain={secret}, hashed=sha256:{sha256(b'another one, longer').hexdigest()}"
    keys = Keys(environment={"QATTN_SERVE_API_KEYS": text})
    assert [getattr(keys.find(each), "name", None) for each in (secret, "another one, longer", "x")] == [
        "plain",
        "hashed",
        None,
    ]
    assert secret not in repr(keys.valid())


@pytest.mark.parametrize("text", ["alice", "alice=short", "alice=sha256:12", "a lice=a long enough secret", "=x" * 20])
def test_a_variable_that_holds_no_keys_is_an_error_that_hides_them(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Keys(environment={"QATTN_SERVE_API_KEYS": text})
    assert "long enough" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '"x"',
        '{"name": 1}',
        '{"name": "a"}',
        '{"name": "a", "sha256": "12"}',
        '{"name": "a", "sha256": "' + "0" * 64 + '", "tokens_per_minute": "9"}',
        '{"name": "a", "sha256": "' + "0" * 64 + '", "requests_per_minute": -1}',
        '{"name": "a", "sha256": "' + "0" * 64 + '", "admin": true}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:30],
)
def test_a_damaged_line_is_named_and_leaves_the_keys_that_were_read(
    file: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = create_key(file, "alice")
    keys = Keys(file)
    with file.open("a") as stream:
        stream.write(line)
    with pytest.raises(ConfigError, match="Line 2 of the keys"):
        read_keys(file)
    assert keys.find(secret) is not None and "stay valid" in caplog.text
    file.unlink()
    assert keys.find(secret) is not None
    file.write_text("")
    assert keys.find(secret) is None


def test_a_line_without_an_end_is_not_joined_to_the_next(file: Path) -> None:
    file.write_text(json.dumps({"name": "own", "sha256": sha256(b"my own secret").hexdigest()}))
    create_key(file, "alice", requests=7)
    found = read_keys(file)
    assert [(key.name, key.requests_per_minute) for key in found] == [("own", None), ("alice", 7)]


def test_the_command_makes_lists_and_revokes_keys(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = qattn("serve-keys", "create", "alice", "--keys", file, "--tokens-per-minute", 500)
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("qattn-") and len(secret) > 40 and "not stored" in made.stderr
    monkeypatch.setenv("QATTN_SERVE_KEYS", str(file))
    assert qattn("serve-keys", "create", "bob").exit_code == 0
    assert qattn("serve-keys", "revoke", "bob").exit_code == 0
    listed = qattn("serve-keys", "list").stdout
    assert "alice" in listed and "500" in listed and secret not in listed
    assert [bool(key.revoked) for key in read_keys(file)] == [False, True]
    for wrong in (["revoke", "nobody"], ["create", "two words"], ["list", "--keys", file.parent / "none"]):
        refused = qattn("serve-keys", *wrong)
        assert refused.exit_code == 2 and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1


def test_a_server_takes_note_of_new_and_revoked_keys(serve: Serve, file: Path) -> None:
    secret = create_key(file, "alice")
    served = serve(keys=Keys(file))

    def ask(key: str) -> Any:
        with served.client(key) as client:
            return client.completions.create(model="verse", prompt="the", max_tokens=2).choices[0].text

    assert len(ask(secret)) == 2
    for wrong in ("wrong", secret[:-1] + "!"):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key") as refused:
            ask(wrong)
        assert (
            refused.value.code == "invalid_api_key" and refused.value.response.headers["www-authenticate"] == "Bearer"
        )
    second = create_key(file, "bob")
    assert len(ask(second)) == 2
    revoke_key(file, "alice")
    with pytest.raises(openai.AuthenticationError):
        ask(secret)
    assert len(ask(second)) == 2
    with served.client(second) as client:
        assert [model.id for model in client.models.list()] == ["verse"]


def test_every_route_of_the_api_needs_the_key_and_only_those(serve: Serve, file: Path) -> None:
    create_key(file, "alice")
    served = serve(keys=Keys(file))
    for path in ("/v1/models", "/v1/models/verse", "/v1/none", "/v1/"):
        assert httpx2.get(served.url + path).status_code == 401
    for scheme in ("Basic YTpi", "Bearer", "qattn-x"):
        answer = httpx2.post(f"{served.url}/v1/completions", headers={"authorization": scheme}, content=b"{")
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "missing_api_key"
    for path in ("/health", "/health/live", "/metrics", "/openapi.json"):
        assert httpx2.get(served.url + path).status_code == 200


def test_an_application_below_another_needs_the_key_too(verse: ServedModel, file: Path) -> None:
    secret = create_key(file, "alice")
    engine = Engine(verse)
    mounted = Starlette(routes=[Mount("/models", create_app({"verse": engine}, Settings(), Keys(file)))])

    async def ask() -> list[int]:
        given = [{}, {"authorization": f"Bearer {secret}"}]
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(mounted), base_url="http://localhost") as client:
            return [(await client.get("/models/v1/models", headers=headers)).status_code for headers in given]

    assert asyncio.run(ask()) == [401, 200]
    engine.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "my-machine", ""])
def test_others_may_connect_only_where_there_are_keys(
    host: str, file: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="there are no keys"):
        Settings(host=host).check_guarded(False)
    Settings(host=host).check_guarded(True)
    refused = qattn("serve", finished_run, "--host", host)
    assert refused.exit_code == 2 and "qattn serve-keys create" in refused.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_the_loopback_needs_none(host: str) -> None:
    Settings(host=host).check_guarded(False)


def test_the_time_of_a_comparison_is_not_read_from_a_hash(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[Callable[..., Any] | str] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or compare(a, b))
    secret = create_key(file, "alice")
    create_key(file, "bob")
    assert Keys(file).find(secret) is not None
    assert len(compared) == 2  # all of them, also after one that fits
