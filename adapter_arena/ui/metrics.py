"""Metrics for Prometheus at /metrics, and the app's state at /health."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from adapter_arena.serve.catalogue import Catalogue


class Metrics:
    """Counts of one running app.

    Requests are counted in the server's event loop only, so no lock is needed.
    """

    def __init__(self, catalogue: Catalogue):
        self._catalogue = catalogue
        self.in_progress = 0
        """Number of requests that are being processed."""
        self.is_ready = True
        """Whether the app accepts requests; False during its shutdown."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "arena_requests", "Completed requests by endpoint and outcome", ["endpoint", "outcome"], registry=self._registry
        )  # fmt: skip
        self._seconds = Histogram(
            "arena_request_seconds", "Duration of requests by endpoint", ["endpoint"], registry=self._registry
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    @contextmanager
    def track(self, endpoint: str) -> Iterator[None]:
        """Count a request, its duration and its outcome: answered, refused (gr.Error) or failed."""
        self.in_progress += 1
        start = time.perf_counter()
        outcome = "failed"
        try:
            yield
            outcome = "answered"
        except gr.Error:
            outcome = "refused"
            raise
        finally:
            self._seconds.labels(endpoint).observe(time.perf_counter() - start)
            self._requests.labels(endpoint, outcome).inc()
            self.in_progress -= 1

    @property
    def routes(self) -> list[Route]:
        """The routes /health and /metrics."""
        return [Route("/health", self._health), Route("/metrics", self._metrics)]

    async def _health(self, _: Request) -> JSONResponse:
        """Return 200 while the app accepts requests and 503 during its shutdown."""
        content = {"ready": self.is_ready, "compute": self._catalogue.engine.compute, **self._gauges()}
        return JSONResponse(content, 200 if self.is_ready else 503)

    async def _metrics(self, _: Request) -> PlainTextResponse:
        return PlainTextResponse(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

    def _gauges(self) -> dict[str, float]:
        engine = self._catalogue.engine
        return {
            "adapters": len(self._catalogue.entries),
            "adapters_in_memory": engine.in_memory,
            "texts_waiting": engine.waiting,
            "requests_under_way": self.in_progress,
            "merged_mb": round(engine.merged_mb, 1),
            "memory_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges; Prometheus' registry calls this."""
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"arena_{name}", name.replace("_", " "), value)
