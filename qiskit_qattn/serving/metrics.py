"""What a server counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from qiskit_qattn.serving.health import device_states

if TYPE_CHECKING:
    from qiskit_qattn.serving.answers import Answer
    from qiskit_qattn.serving.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts of HTTP requests, and what engines count, in a registry of their own.

    Args:
        engines: By the name that clients use.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(engines))
        self._requests = Counter("qattn_http_requests", "Requests.", ["route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "qattn_http_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._first = Histogram(
            "qattn_first_token_seconds", "Time to the first text.", ["model"], buckets=_SECONDS, registry=self._registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request, by the route's path as it is declared, so that clients cannot make new labels."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def ended(self, answer: Answer) -> None:
        """Count an answer that is complete or was given up."""
        if answer.first_after is not None:
            self._first.labels(answer.model).observe(answer.first_after)

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        return generate_latest(self._registry)


class _Engines(Collector):
    """What engines and devices count themselves, read when it is asked for."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def describe(self) -> list[Metric]:
        """Return nothing, so that nothing is asked for at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all engines, then those of their devices."""
        stats = {name: engine.stats() for name, engine in self._engines.items()}
        yield _counter("requests", "Texts by how they ended.", ["model", "end"], _ends(stats))
        yield _counter("tokens", "Tokens.", ["model", "kind"], _tokens(stats))
        yield _counter(
            "passes", "Passes of a model.", ["model"], {(name,): each["passes"] for name, each in stats.items()}
        )
        yield _counter("circuit_calls", "Calls of circuits, by where they ran.", ["model", "backend"], _calls(stats))
        text = "Calls of circuits that went on to the next backend."
        yield _counter("falls", text, ["model"], _each(stats, "falls"))
        for key, text in (("queued", "Texts that wait."), ("running", "Texts that are being generated.")):
            gauge = GaugeMetricFamily(f"qattn_{key}", text, labels=["model"])
            for name, each in stats.items():
                gauge.add_metric([name], each[key])
            yield gauge
        sizes = HistogramMetricFamily("qattn_batch_size", "Texts per pass.", labels=["model"])
        for name, each in stats.items():
            sizes.add_metric([name], *_buckets(each["batch_sizes"], each["max_batch"]))
        yield sizes
        yield from self._devices()

    def _devices(self) -> Iterator[Metric]:
        units = {"jobs": "Jobs", "shots": "Shots", "seconds": "Seconds on the processor", "usd": "US dollars"}
        spent = {
            unit: GaugeMetricFamily(f"qattn_device_{unit}", f"{text}, as estimated until known.", labels=["device"])
            for unit, text in units.items()
        }
        is_open = GaugeMetricFamily("qattn_breaker_open", "1 while a device is left alone.", labels=["device"])
        for name, state in device_states(self._engines).items():
            for unit, gauge in spent.items():
                gauge.add_metric([name], state["spent"][unit] or 0.0)
            is_open.add_metric([name], float(state["breaker"] == "open"))
        yield from (*spent.values(), is_open)


def _counter(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"qattn_{name}", text, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family


def _each(stats: Mapping[str, dict[str, Any]], what: str) -> dict[tuple[str, ...], float]:
    return {(name,): each[what] for name, each in stats.items()}


def _ends(stats: Mapping[str, dict[str, Any]]) -> dict[tuple[str, ...], float]:
    ends = ("stop", "length", "cancelled", "failed", "refused")
    return {(name, end): each[end] for name, each in stats.items() for end in ends}


def _tokens(stats: Mapping[str, dict[str, Any]]) -> dict[tuple[str, ...], float]:
    return {(name, kind): each[f"{kind}_tokens"] for name, each in stats.items() for kind in ("prompt", "completion")}


def _calls(stats: Mapping[str, dict[str, Any]]) -> dict[tuple[str, ...], float]:
    return {(name, backend): count for name, each in stats.items() for backend, count in each["calls"].items()}


def _buckets(sizes: Mapping[int, int], most: int) -> tuple[list[tuple[str, float]], float]:
    """Return cumulative counts of passes by size, for 1, 2, 4, … up to the largest, and the sum of all sizes."""
    bounds = [2**i for i in range(most.bit_length()) if 2**i < most] + [most]
    counts = [(f"{bound:.1f}", sum(count for size, count in sizes.items() if size <= bound)) for bound in bounds]
    total = sum(size * count for size, count in sizes.items())
    return [*counts, ("+Inf", sum(sizes.values()))], total
