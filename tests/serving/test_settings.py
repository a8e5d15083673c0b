"""Settings of a server: from a file, the environment and options, in that order of growing weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qiskit_qattn.cli.app import app
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.serving.settings import ModelSource, Settings, resolve

FILE = """
port = 1
max_queue = 2
silent_seconds = 3
cors_origins = ["https://a.example"]

[models]
small = "runs/small"
large = { source = "owner/name", backend = "statevector?shots=100", quantize = "int8" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text(FILE)
    return path


def test_options_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    environment = {
        "QATTN_SERVE_PORT": "10",
        "QATTN_SERVE_MAX_QUEUE": "20",
        "QATTN_SERVE_LOG_PROMPTS": "true",
        "HOME": "/",
    }
    found = resolve({"port": 100, "host": None}, environment=environment, config_file=file)
    assert (found.port, found.max_queue, found.silent_seconds, found.host) == (100, 20, 3.0, "127.0.0.1")
    assert found.log_prompts and found.cors_origins == ("https://a.example",)
    assert found.models == (
        ModelSource("small", "runs/small"),
        ModelSource("large", "owner/name", "statevector?shots=100", "int8"),
    )
    assert resolve({}, environment={"QATTN_SERVE_CONFIG": str(file)}).port == 1
    named = resolve({}, environment={"QATTN_SERVE_MODELS": "a=one, b=two", "QATTN_SERVE_CORS_ORIGINS": "x,y"})
    assert [model.name for model in named.models] == ["a", "b"] and named.cors_origins == ("x", "y")


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("verse=runs/verse", "verse", "runs/verse"),
        ("owner/name", "owner/name", "owner/name"),
        ("here=owner/name", "here", "owner/name"),
        ("/models/x y=z", "x y=z", "/models/x y=z"),
        ("a=b=c", "a", "b=c"),
    ],
)
def test_a_model_has_the_name_that_is_given_or_its_own(text: str, name: str, source: str) -> None:
    assert ModelSource.parse(text) == ModelSource(name, source)


def test_a_folder_gives_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verse").mkdir()
    monkeypatch.chdir(tmp_path / "verse")
    assert ModelSource.parse(".").name == ModelSource.parse(str(tmp_path / "verse")).name == "verse"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"port": 70_000}, "port is 70000"),
        ({"port": "80"}, "must be a whole number"),
        ({"silent_seconds": float("nan")}, "finite"),
        ({"cors_origins": "https://a.example"}, "must be a list of origins"),
        ({"cors_origins": [1]}, "must be a list of origins"),
        ({"models": "runs/x"}, "models is"),
        ({"models": [1]}, "A model is"),
        ({"models": ["a="]}, "A model is"),
        ({"models": ["a=x", "a=y"]}, "Two models are called 'a'"),
        ({"models": {"two words": "x"}}, "cannot be a model's name"),
        ({"models": {"a": 1}}, "must be a source"),
        ({"models": {"a": {"backend": "aer"}}}, "has no source"),
        ({"models": {"a": {"source": "x", "weight": "y"}}}, "weight"),
        ({"models": {"a": {"source": "x", "quantize": "int4"}}}, "int4"),
        ({"quantize": "int4"}, "int4"),
        ({"device": "tpu"}, "tpu"),
    ],
    ids=str,
)
def test_what_cannot_be_a_setting_is_told(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Settings(**settings)


@pytest.mark.parametrize(
    ("environment", "kind", "match"),
    [
        ({"QATTN_SERVE_PORTS": "1"}, UnknownNameError, "Did you mean 'QATTN_SERVE_PORT'"),
        ({"QATTN_SERVE_PORT": "x"}, ConfigError, "QATTN_SERVE_PORT is 'x', but must be a whole number"),
        ({"QATTN_SERVE_LOG_PROMPTS": "maybe"}, ConfigError, "true or false"),
        ({"QATTN_SERVE_CONFIG": "/none/such.toml"}, ConfigError, "Cannot read"),
    ],
)
def test_a_mistake_in_the_environment_is_told(environment: dict[str, str], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        resolve({}, environment=environment)


@pytest.mark.parametrize("content", ["port = ", "ports = 1", "\x00", "port = 1e999"])
def test_a_mistake_in_a_file_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        resolve({}, environment={}, config_file=path)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "No model to serve"),
        (["/none/such"], "/none/such"),
        (["a=", "--port", "0"], "A model is"),
        (["owner/name", "--host", "no host at all"], "there are no keys"),
        (["owner/name", "--backend", "nowhere"], "nowhere"),
        (["owner/name", "--keys", "/none/such"], "Cannot read the keys"),
    ],
)
def test_the_command_tells_a_mistake_in_one_line(arguments: list[str], match: str) -> None:
    result = CliRunner().invoke(app, ["serve", *arguments, *([] if "--port" in arguments else ["--port", "0"])])
    assert result.exit_code == 2, result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert match in line


def test_a_port_that_is_taken_is_told_before_models_are_loaded() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "/none/such", "--port", str(port)])
    assert result.exit_code == 2 and f"Cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr
