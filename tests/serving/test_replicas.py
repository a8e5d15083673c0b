"""Replicas on a local Ray: the application of ``qattn serve`` in several processes."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.serving.keys import create_key
from qiskit_qattn.serving.replicas import build, deployment
from qiskit_qattn.serving.served_model import ServedModel
from qiskit_qattn.serving.settings import Settings

from .servers import until

if TYPE_CHECKING:
    from ray.serve import Application

# Ray 2.60 declares its settings in a way that pydantic 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a file of keys, and a key."""
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    return path, create_key(path, "alice")


@pytest.fixture
def config(keys, finished_run, tmp_path):
    """Return a file of settings."""
    path = tmp_path / "serve.toml"
    path.write_text(f'keys = "{keys[0]}"\nmax_batch = 2\n[models]\nverse = "{finished_run}"\n')
    return path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the address of the proxy of a Ray on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra cluster)")
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.pathsep.join(filter(None, sys.path))
    options = {"include_dashboard": False, "configure_logging": False, "log_to_driver": False}
    ray.init(num_cpus=3, runtime_env={"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}}, **options)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


@contextmanager
def deployed(application: Application) -> Iterator[None]:
    """Run an application of Ray Serve, and take it and its replicas away again."""
    from ray import serve

    serve.run(application)
    try:
        yield
    finally:
        serve.delete("default")


def running(count: int) -> bool:
    from ray import serve

    found = serve.status().applications["default"].deployments["qattn"].replica_states
    return found.get("RUNNING", 0) == count


@pytest.mark.more
@pytest.mark.filterwarnings("default")  # Ray's own
def test_two_replicas_answer_as_one_server_does(url: str, config: Path, keys, verse: ServedModel):
    with deployed(build({"config": str(config), "replicas": "2"})):
        assert running(2)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=keys[1], max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["verse"]
            asked = {"model": "verse", "prompt": "the king", "max_tokens": 20, "seed": 1}
            texts = {client.completions.create(**asked).choices[0].text for _ in range(6)}
            assert len(texts) == 1
            streamed = "".join(each.choices[0].text for each in client.completions.create(stream=True, **asked))
            assert {streamed} == texts
            with pytest.raises(openai.BadRequestError, match="outside the vocabulary"):
                client.completions.create(model="verse", prompt="Ω")
        wrong = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()


@pytest.mark.more
@pytest.mark.filterwarnings("default")
def test_replicas_are_started_while_requests_wait(url: str, keys, finished_run):
    settings = Settings(models=(f"verse={finished_run}",), keys=str(keys[0]), max_batch=1, max_tokens=100_000)
    quick = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1, "upscale_delay_s": 0.1}
    quick |= {"look_back_period_s": 15}
    stop = threading.Event()

    def ask() -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=keys[1], max_retries=0) as client:
            for _ in client.completions.create(model="verse", prompt="the", max_tokens=100_000, stream=True):
                if stop.is_set():
                    break

    threads = [threading.Thread(target=ask) for _ in range(4)]
    with deployed(deployment(settings, 1, 2).options(autoscaling_config=quick).bind()):
        assert running(1)
        try:
            for thread in threads:
                thread.start()
            assert until(lambda: running(2), 200)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"replicas": "0"}, "got 0 to 0"),
        ({"replicas": "3..2"}, "got 3 to 2"),
        ({"replicas": "many"}, "replicas is 'many', but must be a number, such as 2, or a range"),
        ({"replicas": "1..2", "models": ""}, "A model is SOURCE or NAME=SOURCE"),
        ({"replica": "2"}, "Unknown argument 'replica'. Did you mean 'replicas'"),
    ],
)
def test_wrong_arguments_are_refused(config: Path, arguments, said):
    with pytest.raises(ConfigError, match=said):
        build({"config": str(config), **arguments})


def test_replicas_without_models_or_keys_are_refused(config: Path, keys, monkeypatch):
    with pytest.raises(ConfigError, match="Replicas need keys"):
        build({"models": "some-run"})
    monkeypatch.setenv("QATTN_SERVE_API_KEYS", "alice=a-key-that-is-long-enough")
    with pytest.raises(ConfigError, match="No model to serve"):
        build({})
    build({"models": "some-run"})


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_limits_that_replicas_would_count_alone_are_refused(keys, limit):
    settings = Settings(models=("run",), keys=str(keys[0]), **{limit: 10})
    deployment(settings, 1)
    with pytest.raises(ConfigError, match=rf"{limit} would count in each replica alone.*async\+redis"):
        deployment(settings, 1, 2)
    deployment(Settings(models=("run",), keys=str(keys[0]), limit_storage="async+redis://host", **{limit: 10}), 1, 2)
