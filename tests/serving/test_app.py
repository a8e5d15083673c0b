"""What clients of OpenAI's API are answered."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import torch

from qiskit_qattn.errors import EncodingError, GenerationError
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.failures import as_refusal
from qiskit_qattn.serving.models import load
from qiskit_qattn.serving.served_model import ServedModel
from qiskit_qattn.serving.settings import Settings

from .servers import Serve, Served, commanded, serving, until


@pytest.fixture(scope="module")
def served(verse: ServedModel) -> Iterator[Served]:

    with serving({"verse": Engine(verse)}, Settings(port=0, log_level="error", max_tokens=100_000)) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with served.client() as client:
        yield client


def post(served: Served, path: str = "completions", **body: Any) -> httpx2.Response:
    return httpx2.post(f"{served.url}/v1/{path}", json={"model": "verse", "prompt": "the", **body}, timeout=30)


def test_models_are_listed_and_described(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object) == ("verse", "model")
    about = client.models.retrieve("verse")
    assert about == model
    kinds = [(head["layer"], head["kind"]) for head in about.qattn["heads"]]  # type: ignore[attr-defined]
    assert len(kinds) == 2 and (0, "classical") in kinds
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("other")
    assert refused.value.code == "model_not_found" and "verse" in refused.value.message


def test_a_text_is_that_of_the_model(client: openai.OpenAI, served: Served, finished_run: Any) -> None:
    from qiskit_qattn.nn.gpt import GPT

    model = GPT.from_pretrained(finished_run / "model")
    tokens = served.engine.model.encode("the king")
    expected = model.generate(torch.tensor([tokens]), 30, temperature=0.7, top_k=5, seed=3)[0, 8:].tolist()
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 0.7, "seed": 3, "extra_body": {"top_k": 5}}
    answer = client.completions.create(model="verse", prompt="the king", **options)
    [choice] = answer.choices
    assert choice.text == served.engine.model.decode(expected)
    assert choice.finish_reason == "length" and choice.logprobs is None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (8, 30, 38)
    assert client.completions.create(model="verse", prompt=tokens, **options).choices[0].text == choice.text


def test_a_stream_has_the_same_text_then_its_usage(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "verse", "prompt": "love", "max_tokens": 40, "seed": 2}
    whole = client.completions.create(**options)
    *pieces, last = client.completions.create(**options, stream=True, stream_options={"include_usage": True})
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert [piece.choices[0].finish_reason for piece in pieces][-1] == "length"
    assert last.choices == [] and last.usage == whole.usage
    assert last.qattn == whole.qattn | {"heads": last.qattn["heads"]}  # type: ignore[attr-defined]
    *_, end = client.completions.create(**options, stream=True)
    assert end.usage is None and end.qattn["backends"] == whole.qattn["backends"]  # type: ignore[attr-defined]


def test_several_prompts_and_texts_have_seeds_of_their_own(client: openai.OpenAI) -> None:
    def alone(prompt: str, seed: int) -> str:
        return client.completions.create(model="verse", prompt=prompt, seed=seed).choices[0].text

    answer = client.completions.create(model="verse", prompt=["the", "good"], n=2, seed=9, echo=True)
    expected = [prompt + alone(prompt, seed) for prompt in ("the", "good") for seed in (9, 10)]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 64)
    texts = ["", "", "", ""]
    stream = client.completions.create(model="verse", prompt=["the", "good"], n=2, seed=9, echo=True, stream=True)
    for piece in stream:
        texts[piece.choices[0].index] += piece.choices[0].text
    assert texts == expected


def test_a_stop_ends_the_text_before_it(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "verse", "prompt": "the", "max_tokens": 50, "seed": 1}
    text = client.completions.create(**options).choices[0].text
    stop = text[20:22]
    [choice] = client.completions.create(**options, stop=["ZZ", stop]).choices
    assert choice.text == text[: text.index(stop)] and choice.finish_reason == "stop"


def test_sixty_four_at_once_have_the_texts_that_they_have_alone(client: openai.OpenAI, served: Served) -> None:
    prompts = ["the king", "love", "good sir", "night"]

    def ask(seed: int) -> str:
        options: dict[str, Any] = {"model": "verse", "prompt": prompts[seed % 4], "seed": seed}
        if seed % 2:
            return client.completions.create(max_tokens=8 + seed % 5, **options).choices[0].text
        stream = client.completions.create(max_tokens=8 + seed % 5, stream=True, **options)
        return "".join(piece.choices[0].text for piece in stream)

    alone = list(map(ask, range(64)))
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(ask, range(64)))
    assert together == alone
    assert max(served.engine.stats()["batch_sizes"]) > 1


def test_an_answer_says_where_its_heads_ran(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model="verse", prompt="the", max_tokens=4)
    where = raw.parse().qattn  # type: ignore[attr-defined]
    assert where["backends"] == {"statevector": 4} and where["falls"] == [] and where["cost"] == {}
    assert {head["kind"]: head["calls"] for head in where["heads"]}["classical"] == {"torch": 4}
    assert raw.headers["x-qattn-backends"] == "statevector (4)" and raw.headers["x-qattn-falls"] == "0"
    assert raw.headers["x-request-id"].startswith("req-")
    assert (where["passes"], where["shared"]) == (4, 1)
    both = client.completions.create(model="verse", prompt="the", max_tokens=40, n=2).qattn  # type: ignore[attr-defined]
    assert (both["passes"], both["shared"]) == (80, 2)


def test_what_others_raise_in_a_pass_is_not_told_to_clients() -> None:
    for cause, told in ((RuntimeError("/home/me/x"), False), (EncodingError("Values are not finite."), True)):
        error = GenerationError(f"A pass of verse failed: {cause}")
        error.__cause__ = cause
        refusal = as_refusal(error)
        assert refusal.status == 500 and (str(cause) in refusal.text) == told


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": "other"}, "model", "model_not_found"),
        ({"model": None}, "model", None),
        ({"prompt": ""}, "prompt", None),
        ({"prompt": []}, "prompt", None),
        ({"prompt": ["the", ""]}, "prompt", None),
        ({"prompt": "the №"}, "prompt", None),
        ({"prompt": [10_000]}, "prompt", None),
        ({"prompt": [[]]}, "prompt", None),
        ({"prompt": "the king and"}, "prompt", "context_length_exceeded"),
        ({"prompt": ["the"] * 17}, "n", None),
        ({"n": 17}, "n", None),
        ({"n": 0}, "n", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"max_tokens": "9"}, "max_tokens", None),
        ({"max_tokens": 10**6}, "max_tokens", None),
        ({"max_tokens": True}, "max_tokens", None),
        ({"temperature": 2.1}, "temperature", None),
        ({"temperature": -0.1}, "temperature", None),
        ({"top_p": 0}, "top_p", None),
        ({"seed": 2**63}, "seed", None),
        ({"stop": ["a"] * 5}, None, None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"logprobs": 0}, "logprobs", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"wisdom": 3}, "wisdom", "unknown_parameter"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_in_one_line(served: Served, body: Any, param: str | None, code: str) -> None:
    answer = post(served, **body)
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and error["code"] == code
    assert param is None or error["param"].partition(".")[0] == param
    assert error["message"] and "\n" not in error["message"]


def test_what_asks_for_nothing_is_accepted(served: Served) -> None:
    neutral = {"user": "me", "best_of": 1, "suffix": None, "logit_bias": {}, "presence_penalty": 0, "top_p": 1, "n": 1}
    assert post(served, **neutral, metadata={"a": "b"}, stream=False, seed=-5, temperature=0).status_code == 200


def test_a_model_without_a_template_refuses_chats(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="not a chat model") as refused:
        client.chat.completions.create(model="verse", messages=[{"role": "user", "content": "good"}])
    assert refused.value.code == "not_a_chat_model"
    answer = httpx2.post(f"{served.url}/v1/chat/completions", json={"model": "verse", "messages": [{"role": "tool"}]})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "messages.0.role"


def test_a_chat_is_the_continuation_of_its_template(tmp_path: Path, byte_tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }} {% endfor %}a:"
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    messages: list[Any] = [{"role": "system", "content": "so"}, {"role": "user", "content": "für"}]
    parts = [{"type": "text", "text": "f"}, {"type": "text", "text": "ür"}]
    engines, settings = {"chat": Engine(load(str(tmp_path)))}, Settings(port=0, log_level="error")
    with serving(engines, settings) as served, served.client() as client:
        options: dict[str, Any] = {"model": "chat", "seed": 4, "temperature": 0.5}
        text = client.completions.create(prompt="s:so u:für a:", max_tokens=9, **options).choices[0].text
        answer = client.chat.completions.create(messages=messages, max_completion_tokens=9, **options)
        assert answer.choices[0].message.content == text and answer.object == "chat.completion"
        assert answer.choices[0].message.role == "assistant" and answer.id.startswith("chatcmpl-")
        again = [messages[0], {"role": "user", "content": parts}]
        first, *rest = client.chat.completions.create(messages=again, max_tokens=9, stream=True, **options)
        assert first.choices[0].delta.role == "assistant" and first.object == "chat.completion.chunk"
        assert "".join(piece.choices[0].delta.content or "" for piece in (first, *rest)) == text
        assert [first, *rest][-1].qattn["backends"] == {}
        whole = client.chat.completions.create(messages=messages, **options)
        assert whole.usage is not None and whole.usage.total_tokens == 64  # the rest of the context
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(messages=messages, max_tokens=60, **options)
        assert refused.value.code == "context_length_exceeded" and refused.value.param == "messages"
        with pytest.raises(openai.BadRequestError, match="'tools' is not supported"):
            client.chat.completions.create(messages=messages, tools=[{"type": "function"}], **options)


def test_a_client_that_leaves_stops_its_text(served: Served) -> None:
    def cancelled() -> int:
        return int(served.engine.stats()["cancelled"])

    before, body = cancelled(), {"model": "verse", "prompt": "the", "max_tokens": 100_000}
    with httpx2.stream("POST", f"{served.url}/v1/completions", json=body | {"stream": True}) as answer:
        next(answer.iter_lines())
    assert until(lambda: cancelled() == before + 1)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{served.url}/v1/completions", json=body, timeout=0.3)
    assert until(lambda: cancelled() == before + 2)
    assert until(lambda: served.engine.stats()["running"] == 0)


def test_health_metrics_and_the_description(served: Served) -> None:
    assert httpx2.get(f"{served.url}/health/live").json() == {"status": "live"}
    assert httpx2.get(f"{served.url}/health/ready").json() == {"status": "ready"}
    health = httpx2.get(f"{served.url}/health").json()
    assert health["status"] == "ok" and health["models"]["verse"]["queued"] == 0 and health["devices"] == {}
    text = httpx2.get(f"{served.url}/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    stats = served.engine.stats()
    assert float(figures['qattn_tokens_total{kind="completion",model="verse"}']) == stats["completion_tokens"] > 0
    assert float(figures['qattn_batch_size_sum{model="verse"}']) >= float(figures['qattn_passes_total{model="verse"}'])
    assert 'qattn_http_requests_total{route="/v1/completions",status="200"}' in figures
    assert 'qattn_circuit_calls_total{backend="statevector",model="verse"}' in figures
    described = httpx2.get(f"{served.url}/openapi.json").json()
    assert {"/v1/models", "/v1/completions", "/v1/chat/completions", "/health"} <= set(described["paths"])
    assert httpx2.get(f"{served.url}/docs").status_code == 404  # it would load scripts from the network


def test_a_model_whose_engine_has_stopped_is_neither_ready_nor_live(serve: Serve) -> None:
    served = serve()
    served.engine.close()
    for path in ("live", "ready"):
        answer = httpx2.get(f"{served.url}/health/{path}")
        assert (answer.status_code, answer.json()) == (503, {"status": "stopped"})
    answer = httpx2.get(f"{served.url}/health")
    assert answer.status_code == 503 and answer.json()["status"] == "stopped"
    assert answer.json()["models"]["verse"]["state"] == "stopped"
    served.service.stopping = True  # it finishes its answers, and must not be killed meanwhile
    assert httpx2.get(f"{served.url}/health/live").status_code == 200
    assert httpx2.get(f"{served.url}/health/ready").json() == {"status": "stopping"}


def test_other_routes_and_methods_have_errors_of_the_same_form(served: Served) -> None:
    for answer in (httpx2.get(f"{served.url}/v1/nothing"), httpx2.get(f"{served.url}/v1/completions")):
        assert answer.status_code in (404, 405) and answer.json()["error"]["type"] == "invalid_request_error"
    assert 'route="other"' in httpx2.get(f"{served.url}/metrics").text  # a path that a client makes up is no label


def test_pages_of_other_origins_may_call_only_if_they_are_named(serve: Serve, served: Served) -> None:
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    path = "/v1/completions"
    assert "access-control-allow-origin" not in httpx2.options(served.url + path, headers=asked).headers
    named = serve(cors_origins=("https://page.example",))
    answer = httpx2.options(named.url + path, headers=asked)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://page.example"
    other = httpx2.options(named.url + path, headers=asked | {"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    assert httpx2.get(named.url + "/v1/models", headers={"host": "rebound.example"}).status_code == 403


def test_prompts_are_logged_only_if_asked(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "qiskit_qattn")
    assert post(serve(), prompt="good").status_code == 200
    assert "/v1/completions key=- 200" in caplog.text and "good" not in caplog.text
    assert post(serve(log_prompts=True), prompt="good").status_code == 200
    assert "prompt: ['good']" in caplog.text


def test_the_documentation_goes_from_a_run_to_a_streamed_answer(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "serve.md").read_text("utf-8")
    block = re.search(r"```console\n(.*?)```", page, re.DOTALL)
    assert block is not None
    train, serve, curl = map(shlex.split, block[1].splitlines())
    folder = tmp_path / train[train.index("--out") + 1]
    folder.parent.mkdir()
    folder.symlink_to(finished_run)  # what the first command makes, of another text
    monkeypatch.chdir(tmp_path)

    def talk(url: str, stop: Callable[[], None]) -> str:
        path = next(word for word in curl if word.startswith("http")).removeprefix("http://127.0.0.1:8000")
        kind, _, value = curl[curl.index("-H") + 1].partition(": ")
        return httpx2.post(url + path, content=curl[curl.index("-d") + 1], headers={kind: value}, timeout=30).text

    result, answer = commanded(serve[2:], talk)
    assert result.exit_code == 0, result.output
    events = [json.loads(line.removeprefix("data: ")) for line in answer.split("\n\n")[:-2]]
    assert len("".join(event["choices"][0]["text"] for event in events)) == 60


def test_events_are_lines_of_json_that_end_with_done(served: Served) -> None:
    answer = post(served, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events[:-2])
