"""``qattn serve`` with circuits on a paid device: what it costs, what its failures mean, and what clients are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from typer.testing import CliRunner

from qiskit_qattn.cli.app import app
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.models import load
from qiskit_qattn.serving.settings import Settings
from qiskit_qattn.training.tokenizer import CharTokenizer
from tests.serving.servers import Served, commanded, serving

from .ibm_server import IBMServer

DEVICE = "ibm:test_manila?resilience=0&shots=64&retries=0"
ASKED: dict[str, Any] = {"model": "ab", "prompt": "ab", "max_tokens": 2}
pytestmark = pytest.mark.filterwarnings("ignore::qiskit_qattn.nn.audit.FallbackWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = CharTokenizer("\nabc")
    model = GPT(GPTConfig(tokenizer.vocab_size, 4, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2))
    model.save_pretrained(tmp_path / "ab")
    tokenizer.save(tmp_path / "ab" / "tokenizer.json")
    return tmp_path / "ab"


def test_an_answer_comes_and_says_where_from_whatever_the_device_does(ibm_server: IBMServer, folder: Path) -> None:
    engine = Engine(load(str(folder), backend=f"{DEVICE}&budget=600s -> statevector"))
    with serving({"ab": engine}, Settings(port=0, log_level="critical")) as served, served.client() as client:
        raw = client.completions.with_raw_response.create(**ASKED, seed=0)
        [device] = health(served)["devices"]
        assert device.startswith("ibm:test_manila")
        where = raw.parse().qattn
        assert where["backends"] == {device: 2} and where["falls"] == []
        assert where["cost"][device]["jobs"] == 2 and where["cost"][device]["seconds"] > 0
        assert raw.headers["x-qattn-backends"] == f"{device} (2)" and "seconds" in raw.headers["x-qattn-cost"]

        ibm_server.fail_jobs("Calibration in progress", times=1)
        *_, last = client.completions.create(**ASKED | {"prompt": "ba"}, seed=0, stream=True)
        [fall] = last.qattn["falls"]
        assert (fall["from"], fall["to"], fall["count"]) == (device, "statevector", 1)
        assert "Calibration in progress" in fall["reason"]
        assert last.qattn["backends"] == {device: 1, "statevector": 1}

        ibm_server.refuse(".*", 503, times=1000)
        raw = client.completions.with_raw_response.create(**ASKED | {"prompt": "cab", "max_tokens": 12}, seed=1)
        assert raw.parse().qattn["backends"] == {"statevector": 12} and raw.headers["x-qattn-falls"] == "12"
        state = health(served)
        assert state["status"] == "degraded" and state["devices"][device]["breaker"] == "open"
        assert state["devices"][device]["budget"] == "600s" and state["devices"][device]["spent"]["jobs"] >= 2
        figures = httpx2.get(f"{served.url}/metrics").text
        assert f'qattn_breaker_open{{device="{device}"}} 1.0' in figures
        assert 'qattn_falls_total{model="ab"} 13.0' in figures
        assert f'qattn_device_jobs{{device="{device}"}}' in figures
        before = len(ibm_server.requests)
        assert client.completions.create(**ASKED).choices[0].text
        assert len(ibm_server.requests) == before  # the device is left alone
        ibm_server.mend()


def health(served: Served) -> Any:
    return httpx2.get(f"{served.url}/health").json()


def test_without_another_link_a_failure_is_the_answer(ibm_server: IBMServer, folder: Path) -> None:
    engines = {name: Engine(load(str(folder), backend=f"{DEVICE}&budget={name}")) for name in ("60s", "1s")}
    ibm_server.fail_jobs("Calibration in progress")
    with serving(engines, Settings(port=0, log_level="critical")) as served, served.client() as client:
        with pytest.raises(openai.InternalServerError, match="Calibration in progress") as failed:
            client.completions.create(**ASKED | {"model": "60s"})
        assert failed.value.status_code == 503 and failed.value.code == "backend_failed"
        with pytest.raises(openai.RateLimitError, match="would pass the budget of 1s") as spent:
            client.completions.create(**ASKED | {"model": "1s"})
        assert spent.value.code == "insufficient_quota"
        assert spent.value.response.headers["x-should-retry"] == "false"


def test_a_paid_device_needs_a_budget_before_anything_is_served(ibm_server: IBMServer, folder: Path) -> None:
    refused = CliRunner().invoke(app, ["serve", str(folder), "--backend", DEVICE, "--port", "0"])
    assert refused.exit_code == 2
    assert "2 tokens after a prompt of 2" in refused.stderr and "plan pay-as-you-go" in refused.stderr
    assert "no budget is given, so nothing was sent" in refused.stderr
    assert not ibm_server.jobs


def test_models_of_one_string_share_its_budget(ibm_server: IBMServer, folder: Path) -> None:
    def talk(url: str, stop: Callable[[], None]) -> list[Any]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
            names = [model.id for model in client.models.list()]
            return [client.completions.create(**ASKED | {"model": name}, seed=0).qattn for name in names]

    models = [f"one={folder}", f"two={folder}"]
    result, (one, two) = commanded([*models, "--backend", f"{DEVICE}&budget=60s"], talk)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("2 tokens after a prompt of 2") == 2
    assert one["backends"] == two["backends"]
    assert "jobs sent: 2; served from the ledger: 2" in result.stderr.splitlines()[-1]
    assert len(ibm_server.jobs) == 2
