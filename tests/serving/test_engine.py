"""Requests that share a model's passes: each text as alone, and what happens when a request or a pass ends early."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import ConfigError, DataError, GenerationError, QueueFull, StoppedError
from qiskit_qattn.hf import QattnForCausalLM
from qiskit_qattn.nn.audit import FallbackWarning
from qiskit_qattn.serving.answers import COMPLETION, Answer
from qiskit_qattn.serving.engine import Engine, Sampling
from qiskit_qattn.serving.hugging_face import ServedTransformer
from qiskit_qattn.serving.models import ServedGPT, load
from qiskit_qattn.simulation.estimator import TorchEstimator

from .conftest import LETTERS
from .test_models import llama

REQUESTS = [
    Sampling(
        max_tokens=3 + 7 * i % 31,
        temperature=(0, 0.7, 1.3)[i % 3],
        top_k=(None, 4)[i % 2],
        top_p=(1.0, 1.0, 0.8, 0.9)[i % 4],
        seed=i,
    )
    for i in range(14)
]


@pytest.fixture
def engine(make_gpt):
    """Yield an engine of a GPT with a context of 12 tokens."""
    found = Engine(ServedGPT("gpt", make_gpt(), LETTERS), max_batch=5, max_queue=64)
    yield found
    found.close()


async def read(generation):
    """Return the text, the tokens and the reason for the end."""
    text, tokens, reason = "", [], None
    async for piece in generation:
        assert reason is None
        text, tokens, reason = text + piece.text, tokens + piece.tokens, piece.finish_reason
    return text, tokens, reason


async def started(generation):
    """Wait until a generation has its first token."""
    while generation.first_token is None:
        await asyncio.sleep(0.001)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def all_texts(engine, prompts, options):
    """Return the tokens of requests at once, some of which come after others are done."""

    async def one(i, prompt, sampling):
        await asyncio.sleep(0.003 * (i % 5))
        return (await read(engine.submit(prompt, sampling)))[1]

    return await asyncio.gather(*(one(i, *each) for i, each in enumerate(zip(prompts, options, strict=True))))


def prompts_for(rng, vocab_size, longest=12):
    return [rng.integers(vocab_size, size=size).tolist() for size in rng.integers(1, longest + 1, size=len(REQUESTS))]


def test_texts_are_those_that_the_model_streams_alone(make_gpt, engine, rng):
    prompts, model = prompts_for(rng, LETTERS.vocab_size), make_gpt()
    options = [Sampling(each.max_tokens, each.temperature, 1.0, each.top_k, each.seed) for each in REQUESTS]
    found = run(all_texts(engine, prompts, options))
    for prompt, sampling, tokens in zip(prompts, options, found, strict=True):
        asked = {"temperature": sampling.temperature, "top_k": sampling.top_k, "seed": sampling.seed}
        expected = [int(token) for token in model.stream(torch.tensor([prompt]), sampling.max_tokens, **asked)]
        assert tokens == expected
    stats = engine.stats()
    assert max(stats["batch_sizes"]) == 5
    assert stats["completion_tokens"] == sum(each.max_tokens for each in options)
    assert (stats["requests"], stats["length"], stats["queued"], stats["running"]) == (14, 14, 0, 0)


class Double(LogitsProcessor):
    """Draws in double precision, as the engine does."""

    def __call__(self, input_ids, scores):
        return scores.double()


@pytest.mark.parametrize(
    "model", ["replaced", *(pytest.param(each, marks=pytest.mark.more) for each in ("plain", "qattn"))]
)
def test_texts_are_those_that_transformers_generates_alone(make_gpt, byte_tokenizer, model, rng):
    if model == "qattn":
        gpt = make_gpt(block_size=40)
        alone = QattnForCausalLM(QattnForCausalLM.config_class(**{**vars(gpt.config)})).eval()
        alone.load_state_dict(gpt.state_dict())
        served = ServedGPT("qattn", alone, LETTERS)
    else:
        alone = llama(byte_tokenizer, "qisa:1,zz:1,classical:2" if model == "replaced" else None)
        served = ServedTransformer(model, alone, byte_tokenizer)
    alone.generation_config.pad_token_id = 0
    engine, prompts = Engine(served, max_batch=7), prompts_for(rng, served.vocab_size, 9)
    found = run(all_texts(engine, prompts, REQUESTS))
    engine.close()
    for prompt, sampling, tokens in zip(prompts, REQUESTS, found, strict=True):
        torch.manual_seed(sampling.seed)
        asked = {"do_sample": False}
        if sampling.temperature:
            asked = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k or 0}
            asked |= {"top_p": sampling.top_p, "logits_processor": LogitsProcessorList([Double()])}
        ids = torch.tensor([prompt])
        text = alone.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=sampling.max_tokens, **asked)
        assert tokens == text[0, len(prompt) :].tolist()


def test_a_text_ends_before_a_stop_string_that_spans_tokens(engine):
    async def texts():
        prompt = engine.model.encode("a ")
        whole, _, _ = await read(engine.submit(prompt, Sampling(20, seed=3)))
        stop = whole[4:7]
        at = whole.index(stop)
        generation = engine.submit(prompt, Sampling(20, seed=3, stop=(stop, "no such text")))
        text, tokens, reason = await read(generation)
        assert (text, reason) == (whole[:at], "stop")
        assert generation.usage.completion_tokens == len(tokens) == at + 3
        held = engine.submit(prompt, Sampling(7, seed=3, stop=(whole[5:7] + "\n",)))
        assert (await read(held))[::2] == (whole[:7], "length")

    run(texts())


def test_an_end_token_ends_a_text_and_is_not_in_it(byte_tokenizer):
    served = ServedTransformer("llama", llama(byte_tokenizer), byte_tokenizer)
    engine = Engine(served)

    async def texts():
        prompt, options = served.encode("für"), Sampling(12, temperature=0)
        text, tokens, reason = await read(engine.submit(prompt, options))
        assert (len(tokens), reason) == (12, "length")
        served.ends = frozenset([tokens[3]])
        at = tokens.index(tokens[3])
        short, ended, reason = await read(engine.submit(prompt, options))
        assert (ended, reason) == (tokens[: at + 1], "stop")
        assert short == served.decode(prompt + tokens[:at])[len(served.decode(prompt)) :]
        assert text.startswith(short.rstrip("\ufffd"))

    run(texts())
    engine.close()


def test_no_tokens_are_an_end_at_once(engine):
    async def texts():
        generation = engine.submit([1, 2], Sampling(0))
        assert await read(generation) == ("", [], "length")
        assert generation.usage.prompt_tokens == 2
        assert generation.ended is not None

    run(texts())
    assert engine.stats()["passes"] == 0


def test_a_cancelled_request_leaves_its_place_to_one_that_waits(make_gpt):
    engine = Engine(ServedGPT("gpt", make_gpt(), LETTERS), max_batch=1, max_queue=2)

    async def texts():
        first = engine.submit([1], Sampling(10**9))
        await started(first)
        second, third = engine.submit([2], Sampling(4, seed=1)), engine.submit([3], Sampling(4))
        with pytest.raises(QueueFull, match="2 requests wait for gpt, and no more may; try again later"):
            engine.submit([4])
        third.cancel()
        fourth = engine.submit([4], Sampling(2))  # in the place of the third
        assert engine.stats()["running"] == 1
        first.cancel()
        assert len((await read(second))[1]) == 4
        assert len((await read(fourth))[1]) == 2
        rest, drawn = [piece async for piece in first], first.usage.completion_tokens
        assert sum(len(piece.tokens) for piece in rest) <= drawn
        assert await read(third) == ("", [], None)
        assert first.ended < second.ended
        await asyncio.sleep(0.01)
        assert first.usage.completion_tokens == drawn

    run(texts())
    stats = engine.stats()
    assert [stats[name] for name in ("cancelled", "length", "refused", "running", "queued")] == [2, 2, 1, 0, 0]
    engine.close()


def test_a_slow_reader_gets_longer_pieces_and_delays_nobody(engine):
    async def texts():
        slow = engine.submit([1], Sampling(30, seed=1))
        while slow.ended is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        pieces = [piece async for piece in slow]
        assert [len(piece.tokens) for piece in pieces] == [30]
        assert pieces[0].finish_reason == "length"

    run(texts())


def test_a_slow_reader_has_no_more_time_than_others(engine):
    async def texts():
        answer = Answer(COMPLETION, "gpt", [engine.submit([1], Sampling(200, temperature=0))], [""], 1, seconds=1.0)
        events = answer.events(False)
        first = await anext(events)
        while answer.generations[0].ended is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.1)
        *_, error, done = [first, *[event async for event in events]]
        assert "not complete after 1 s" in error and done == "data: [DONE]\n\n"

    run(texts())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "The prompt is empty; give at least one token"),
        ([1, 21], "Tokens of gpt are 0 to 20, got some from 1 to 21"),
        ([-1], "Tokens of gpt are 0 to 20, got some from -1 to -1"),
        ([1] * 13, "gpt has a context of 12 tokens, but the prompt has 13"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(engine, prompt, message):
    async def submit():
        engine.submit(prompt)

    with pytest.raises(DataError, match=message):
        run(submit())
    assert engine.stats()["requests"] == 0


def test_a_text_beyond_the_context_is_refused_where_the_model_does_not_go_on(byte_tokenizer):
    engine = Engine(ServedTransformer("llama", llama(byte_tokenizer), byte_tokenizer), max_cached=30)

    async def submit():
        assert len((await read(engine.submit([1] * 25, Sampling(5))))[1]) == 5
        with pytest.raises(DataError, match="a context of 30 tokens, but the prompt has 25, and max_tokens=6 come"):
            engine.submit([1] * 25, Sampling(6))

    run(submit())
    engine.close()
    with pytest.raises(ConfigError, match="max_batch must be at least 1, got 0"):
        Engine(engine.model, max_batch=0)


def test_requests_share_passes_only_as_far_as_memory_allows(make_gpt):
    engine = Engine(ServedGPT("gpt", make_gpt(), LETTERS), max_cached=24)
    assert len(run(all_texts(engine, [[1, 2]] * 5, [Sampling(20, seed=i) for i in range(5)]))) == 5
    engine.close()
    assert set(engine.stats()["batch_sizes"]) <= {1, 2}


@pytest.mark.usefixtures("laboratory")
def test_answers_of_a_chain_whose_first_link_fails_come_with_labels(finished_run):
    with pytest.warns(FallbackWarning, match="lab.fails=all failed, statevector is next"):
        engine = Engine(load(str(finished_run), backend="lab?fails=all -> statevector"))

        async def texts():
            prompt = engine.model.encode("the king")
            generations = [engine.submit(prompt, Sampling(n, seed=1)) for n in (4, 7)]
            return [await read(each) for each in generations], generations

        texts, generations = run(texts())
    plain = Engine(load(str(finished_run)))
    assert texts[0][1] == run(all_texts(plain, [plain.model.encode("the king")], [Sampling(4, seed=1)]))[0]
    plain.close()
    for generation, passes in zip(generations, (4, 7), strict=True):
        found = generation.backends
        assert found["passes"] == passes
        assert found["shared"] == 2
        assert found["calls"] == {"statevector": passes}
        [quantum, classical] = found["heads"]
        assert quantum == {"layer": 0, "head": 0, "kind": "qisa-v3", "calls": {"statevector": passes}}
        assert classical == {"layer": 0, "head": 1, "kind": "classical", "calls": {"torch": passes}}
        [fall] = found["falls"]
        assert (fall["from"], fall["to"], fall["count"]) == ("lab?fails=all", "statevector", passes)
        assert fall["reason"] == "The laboratory is closed."
    stats = engine.stats()
    assert stats["falls"] == stats["passes"] == stats["calls"]["statevector"] == 7
    [circuit] = engine.model.parts
    assert len(circuit.module.execution.audit.falls) == 1  # no list that grows as long as the server runs
    engine.close()


@pytest.mark.usefixtures("laboratory")
def test_a_pass_that_fails_ends_its_requests_and_no_others(finished_run, caplog):
    engine = Engine(load(str(finished_run), backend="lab?fails=3"))

    async def texts():
        prompt = engine.model.encode("the king")
        first, second = (engine.submit(prompt, Sampling(5)) for _ in range(2))
        for each in (first, second):
            with pytest.raises(GenerationError, match="A pass of run that 2 requests shared failed: The laboratory is"):
                await read(each)
            assert each.usage.completion_tokens == 2
            assert type(each._error.__cause__).__name__ == "BackendError"
            assert each.backends["calls"] == {"lab?fails=3": 2}
        assert len((await read(engine.submit(prompt, Sampling(5))))[1]) == 5

    run(texts())
    stats = engine.stats()
    assert [stats[name] for name in ("failed", "length", "running", "state")] == [2, 1, 0, "running"]
    assert caplog.messages == ["A pass of run that 2 requests shared failed: The laboratory is closed."]
    engine.close()


def test_logits_that_are_not_finite_end_a_request(make_gpt):
    model = make_gpt()
    with torch.no_grad():
        model.wte.weight[7] = torch.nan
    engine = Engine(ServedGPT("gpt", model, LETTERS))

    async def texts():
        with pytest.raises(GenerationError, match=r"A pass of gpt failed: .*not finite|A pass of gpt failed: .*NaN"):
            await read(engine.submit([7]))

    run(texts())
    engine.close()


def test_draining_finishes_what_there_is_and_takes_no_more(make_gpt):
    engine = Engine(ServedGPT("gpt", make_gpt(), LETTERS), max_batch=2)

    async def texts():
        generations = [engine.submit([1], Sampling(5)) for _ in range(4)]
        draining = asyncio.create_task(engine.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(StoppedError, match="gpt is stopping and takes no more requests"):
            engine.submit([1])
        assert [len((await read(each))[1]) for each in generations] == [5] * 4
        assert await draining == 0

    run(texts())
    assert engine.state == "stopped"


def test_what_is_not_finished_when_it_stops_is_told(make_gpt):
    engine = Engine(ServedGPT("gpt", make_gpt(), LETTERS), max_batch=1)

    async def texts():
        generations = [engine.submit([1], Sampling(10**9)) for _ in range(2)]
        await started(generations[0])
        assert await engine.drain(0.01) == 2
        for each in generations:
            with pytest.raises(StoppedError, match="gpt stopped before the text was finished"):
                await read(each)

    run(texts())
    assert not any(thread.name == "qattn-gpt" for thread in threading.enumerate())


def test_a_stop_does_not_wait_for_a_device_that_does_not_answer(make_gpt):
    running, answer = threading.Event(), threading.Event()

    class Queued(TorchEstimator):
        def run(self, *args, **options):
            running.set()
            answer.wait(60)
            return super().run(*args, **options)

    model = make_gpt("qisa:2,classical:2")
    model.to_backend(Backend("queued", Queued()))
    engine = Engine(ServedGPT("gpt", model, LETTERS), max_queue=3)

    async def texts():
        generations = [engine.submit([1], Sampling(5))]
        await asyncio.to_thread(running.wait, 60)
        for _ in range(20):  # those that were cancelled are not kept until the pass ends
            engine.submit([1], Sampling(5)).cancel()
        assert engine.stats()["queued"] <= 3
        generations.append(engine.submit([1], Sampling(5)))
        engine.close(0.01)
        for each in generations:
            with pytest.raises(StoppedError, match="gpt stopped before the text was finished"):
                await read(each)
        answer.set()

    run(texts())
    engine._thread.join(60)
    assert engine.state == "stopped"
    assert asyncio.run(asyncio.wait_for(engine.drain(120), 60)) == 0


def test_readers_may_have_event_loops_of_their_own(engine):
    async def texts():
        return await read(engine.submit([1, 2], Sampling(20, seed=5)))

    found = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(texts()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(text == found[0] for text in found)


def test_a_reader_whose_loop_ended_is_forgotten(engine):
    async def leave():
        await started(engine.submit([1], Sampling(10**9)))

    run(leave())
    text = run(all_texts(engine, [[1]], [Sampling(9, seed=1)]))[0]
    assert len(text) == 9
    assert engine.stats()["cancelled"] == 1
